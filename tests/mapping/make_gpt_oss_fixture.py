"""Make the small gpt-oss checkpoint of this folder, and the logits an outside implementation gives it.

    python tests/mapping/make_gpt_oss_fixture.py

Needs torch, transformers and safetensors. Experts are stored in MXFP4 as published checkpoints have them:
the codes are drawn at random, and the outside implementation dequantizes them itself where it can.
"""

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

# Imported by name: both are extras, and the type checker should pass without them.
torch: Any = importlib.import_module("torch")
transformers: Any = importlib.import_module("transformers")
safetensors_torch: Any = importlib.import_module("safetensors.torch")
mxfp4: Any = importlib.import_module("transformers.integrations.mxfp4")

FOLDER = Path(__file__).parent / "gpt_oss_mxfp4"
TOKENS = 48

SETTINGS: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 16,
    "vocab_size": 73,
    "num_local_experts": 8,
    "num_experts_per_tok": 4,
    "sliding_window": 9,
    "max_position_embeddings": 256,
    "swiglu_limit": 1.5,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 1000.0,
        "factor": 8.0,
        "beta_fast": 4.0,
        "beta_slow": 0.5,
        "truncate": False,
        "original_max_position_embeddings": 32,
    },
}


def random_codes(generator: Any, experts: int, outputs: int, inputs: int) -> tuple[Any, Any]:
    """Random MXFP4 blocks and scales; scales vary so that a swap of blocks shows."""
    shape = (experts, outputs, inputs // 32)
    blocks = torch.randint(256, (*shape, 16), generator=generator, dtype=torch.uint8)
    scales = torch.randint(121, 126, shape, generator=generator).to(torch.uint8)
    return blocks, scales


def fill(model: Any, config: Any, generator: Any) -> dict[str, Any]:
    """Give the model lively random weights; return what the checkpoint stores."""
    stored: dict[str, Any] = {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
                experts, inputs, outputs = parameter.shape
                blocks, scales = random_codes(generator, experts, outputs, inputs)
                stored[f"{name}_blocks"], stored[f"{name}_scales"] = blocks, scales
                parameter.copy_(
                    mxfp4.convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
                )
                continue
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                value = 1.0 + 0.3 * noise
            elif name.endswith(("bias", "sinks")):
                value = 0.5 * noise
            else:
                value = 1.5 * noise / parameter.shape[-1] ** 0.5
            stored[name] = value.bfloat16()
            parameter.copy_(stored[name].float())
    return stored


def main() -> None:
    """Make the folder and say how large it is."""
    config = transformers.GptOssConfig(**SETTINGS, attn_implementation="eager")
    model = transformers.GptOssForCausalLM(config).float()
    generator = torch.Generator().manual_seed(11)
    stored = fill(model, config, generator)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    safetensors_torch.save_file(stored, FOLDER / "model.safetensors", metadata={"format": "pt"})
    tokens = torch.randint(config.vocab_size, (1, TOKENS), generator=generator)
    with torch.no_grad():
        logits = model.eval()(tokens).logits[0]
    np.savez_compressed(FOLDER / "expected.npz", token_ids=tokens[0].numpy(), logits=logits.numpy())
    raw = {
        "architectures": ["GptOssForCausalLM"],
        "model_type": config.model_type,
        **SETTINGS,
        "attention_bias": config.attention_bias,
        "layer_types": config.layer_types,
        "rms_norm_eps": config.rms_norm_eps,
        "swiglu_alpha": config.swiglu_alpha,
        "quantization_config": {"quant_method": "mxfp4"},
    }
    text = json.dumps(raw, indent=2)
    (FOLDER / "config.json").write_text(text + "\n", encoding="utf-8")
    size = 0
    for path in FOLDER.iterdir():
        path.chmod(0o644)
        size += path.stat().st_size
    print(f"{FOLDER.name}: {size} bytes")


if __name__ == "__main__":
    main()
