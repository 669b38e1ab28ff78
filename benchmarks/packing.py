"""Speed and memory of `lpu compile` on a folder of F16 weights: ``python -m benchmarks.packing [--model M] [--json]``.

The folder has random weights of the shapes of a known configuration, in shards, and is removed afterwards.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from emulator.console import print_json, print_table
from mapping.frontend.model import load_model
from mapping.frontend.safetensors_write import write_safetensors
from mapping.frontend.weights import stored_name

WANTED = {"packed": 100, "peak memory": 4096}
"""At least that many megabytes of F16 weights a second; at most that many megabytes of memory."""


def write_folder(name: str, folder: Path) -> int:
    """A Hugging Face folder of a known configuration with random F16 weights, a shard a layer; returns its bytes."""
    model = load_model(name)
    config = model.config
    shards: dict[str, list[str]] = {}
    for tensor in model.tensor_shapes:
        layer = tensor.split(".")[1] if tensor.startswith("layers.") else "none"
        shards.setdefault(f"model-{layer}.safetensors", []).append(tensor)
    places: dict[str, str] = {}
    size = 0
    for file, members in shards.items():
        tensors = {stored_name(m): model.tensor(m).astype("<f2") for m in members}
        write_safetensors(folder / file, tensors)
        places |= dict.fromkeys(tensors, file)
        size += (folder / file).stat().st_size
    index = {"metadata": {"total_size": size}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    content: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "vocab_size": config.vocabulary_size,
        "max_position_embeddings": config.maximum_positions,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tie_word_embeddings,
        "hidden_act": "silu",
        "eos_token_id": 2,
    }
    (folder / "config.json").write_text(json.dumps(content))
    return size


def compile_folder(folder: Path, target: str, recipe: str, program: Path) -> dict[str, float]:
    """Seconds, seconds of all cores together, and peak memory in megabytes of `lpu compile` in a process of its own."""
    command = [sys.executable, "-m", "lpu", "compile", str(folder), "--target", target]
    began = time.perf_counter()
    subprocess.run([*command, "--recipe", recipe, "-o", str(program), "--context", "512"], check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    seconds = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = used.ru_utime + used.ru_stime
    return {"seconds": seconds, "processor": processor, "peak memory": used.ru_maxrss / 1000}


def main() -> None:
    """Print what was measured beside what is wanted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tinyllama-1.1b", help="known configuration")
    parser.add_argument("--target", default="u280")
    parser.add_argument("--recipe", default="w4a8-g128")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="openlpu-packing-") as scratch:
        folder = Path(scratch, arguments.model)
        folder.mkdir()
        size = write_folder(arguments.model, folder)
        facts = compile_folder(folder, arguments.target, arguments.recipe, Path(scratch, "p.lpu"))
    facts = {"megabytes": size / 1e6, **facts, "packed": size / 1e6 / facts["seconds"]}
    if arguments.json:
        print_json(facts)
        return
    units = {
        "megabytes": "MB",
        "seconds": "s",
        "processor": "s",
        "peak memory": "MB",
        "packed": "MB/s",
    }
    rows = [
        [name, f"{value:,.1f}", units[name], WANTED.get(name, "")] for name, value in facts.items()
    ]
    print_table(f"{arguments.model}, {arguments.recipe}, on {arguments.target}",
                ["", "measured", "", "wanted"], rows)  # fmt: skip


if __name__ == "__main__":
    main()
