"""Make the small checkpoints of this folder, and the logits an outside implementation gives them.

    python tests/mapping/make_fixtures.py [NAME ...]

Needs torch and transformers, which the tests themselves do not. Weights are random but lively: the
attention is far from uniform and the norms are not all ones, so that a mistake anywhere shows.
"""

import importlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

# Imported by name: both are extras, and the type checker should pass without them.
torch: Any = importlib.import_module("torch")
transformers: Any = importlib.import_module("transformers")

FIXTURES = Path(__file__).parent / "fixtures"
TOKENS = 40

# "save" holds what save_pretrained gets; everything else goes into the configuration.
CHECKPOINTS: dict[str, dict[str, Any]] = {
    "tied_f32": {
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "vocab_size": 61,
        "tie_word_embeddings": True,
    },
    "grouped_odd_f16": {
        "hidden_size": 72,
        "intermediate_size": 100,
        "num_hidden_layers": 1,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 20,
        "vocab_size": 97,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "dtype": "float16",
    },
    "llama3_sharded_bf16": {
        "hidden_size": 40,
        "intermediate_size": 56,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 12,
        "vocab_size": 53,
        "tie_word_embeddings": True,
        "rope_theta": 1000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
        "max_position_embeddings": 256,
        "dtype": "bfloat16",
        "save": {"max_shard_size": "20KB"},
    },
    "linear_untied_f32": {
        "hidden_size": 20,
        "intermediate_size": 36,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 6,
        "vocab_size": 47,
        "rope_scaling": {"rope_type": "linear", "factor": 4.0},
        "max_position_embeddings": 256,
    },
    "mistral_f32": {
        "architecture": "Mistral",
        "hidden_size": 16,
        "intermediate_size": 28,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "vocab_size": 37,
        "sliding_window": None,
        "rope_theta": 1e6,
    },
    "opt_f32": {
        "architecture": "OPT",
        "hidden_size": 24,
        "word_embed_proj_dim": 24,
        "ffn_dim": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "vocab_size": 61,
        "max_position_embeddings": 64,
    },
    "opt_odd_untied_f16": {
        "architecture": "OPT",
        "hidden_size": 36,
        "word_embed_proj_dim": 36,
        "ffn_dim": 50,
        "num_hidden_layers": 1,
        "num_attention_heads": 6,
        "vocab_size": 97,
        "max_position_embeddings": 48,
        "tie_word_embeddings": False,
        "dtype": "float16",
    },
}


def make(name: str, settings: dict[str, Any], seed: int) -> None:
    """Write one folder: the checkpoint, and `expected.npz` with token ids and float32 logits."""
    settings = dict(settings)
    saving = settings.pop("save", {})
    dtype = getattr(torch, settings.pop("dtype", "float32"))
    family = settings.pop("architecture", "Llama")
    config = getattr(transformers, f"{family}Config")(**settings)
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter_name.endswith("bias"):
                parameter.copy_(0.3 * noise)
            elif parameter.dim() == 1:
                parameter.copy_(1.0 + 0.3 * noise)
            else:
                parameter.copy_(1.5 * noise / parameter.shape[1] ** 0.5)
    folder = FIXTURES / name
    shutil.rmtree(folder, ignore_errors=True)
    model.to(dtype).save_pretrained(folder, **saving)
    # Loaded anew, because converting a model in place also rounds its rotary frequencies.
    model = type(model).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    (folder / "generation_config.json").unlink(missing_ok=True)
    tokens = torch.randint(config.vocab_size, (1, TOKENS), generator=generator)
    with torch.no_grad():
        logits = model.eval()(tokens).logits[0]
    np.savez_compressed(folder / "expected.npz", token_ids=tokens[0].numpy(), logits=logits.numpy())
    for path in folder.iterdir():
        path.chmod(0o644)
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del raw["transformers_version"]
    (folder / "config.json").write_text(json.dumps(raw, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Make every folder and say how large they are together."""
    torch.manual_seed(0)
    for seed, (name, settings) in enumerate(CHECKPOINTS.items()):
        if not sys.argv[1:] or name in sys.argv[1:]:
            make(name, settings, seed)
    size = sum(path.stat().st_size for path in FIXTURES.rglob("*") if path.is_file())
    print(f"{len(CHECKPOINTS)} folders, {size} bytes")


if __name__ == "__main__":
    main()
