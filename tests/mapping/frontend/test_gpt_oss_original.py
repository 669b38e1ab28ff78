"""The makers' own checkpoints of gpt-oss: the same numbers under other names."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hw.spec.errors import InputError
from mapping.frontend import load_model
from mapping.hardwired_weights import hardwired_model
from mapping.reference_gpt_oss import GptOssReference

Tensors = dict[str, dict[str, Any]]

# As the configuration of the published 120b has them; values of the fixture.
CONFIG = {
    "num_hidden_layers": 3,
    "num_experts": 8,
    "experts_per_token": 4,
    "vocab_size": 73,
    "hidden_size": 64,
    "intermediate_size": 32,
    "swiglu_limit": 1.5,
    "head_dim": 16,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "sliding_window": 9,
    "initial_context_length": 32,
    "rope_theta": 1000,
    "rope_scaling_factor": 8.0,
    "rope_ntk_alpha": 0.5,
    "rope_ntk_beta": 4.0,
}
# Hugging Face's name, the makers' name; from the reference implementation of each.
RENAMED = (
    ("input_layernorm.weight", "attn.norm.scale"),
    ("self_attn.sinks", "attn.sinks"),
    ("self_attn.o_proj.weight", "attn.out.weight"),
    ("self_attn.o_proj.bias", "attn.out.bias"),
    ("post_attention_layernorm.weight", "mlp.norm.scale"),
    ("mlp.router.weight", "mlp.gate.weight"),
    ("mlp.router.bias", "mlp.gate.bias"),
    ("mlp.experts.gate_up_proj_blocks", "mlp.mlp1_weight.blocks"),
    ("mlp.experts.gate_up_proj_scales", "mlp.mlp1_weight.scales"),
    ("mlp.experts.gate_up_proj_bias", "mlp.mlp1_bias"),
    ("mlp.experts.down_proj_blocks", "mlp.mlp2_weight.blocks"),
    ("mlp.experts.down_proj_scales", "mlp.mlp2_weight.scales"),
    ("mlp.experts.down_proj_bias", "mlp.mlp2_bias"),
)


def read_tensors(folder: Path) -> Tensors:
    """As bytes: NumPy has no BF16."""
    content = (folder / "model.safetensors").read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:begin])
    header.pop("__metadata__")
    return {
        name: entry | {"data": content[begin:][slice(*entry.pop("data_offsets"))]}
        for name, entry in header.items()
    }


def write_tensors(folder: Path, tensors: Tensors) -> None:
    header, buffer = {}, b""
    for name, tensor in tensors.items():
        offsets = [len(buffer), len(buffer) + len(tensor["data"])]
        header[name] = {"dtype": tensor["dtype"], "shape": tensor["shape"], "data_offsets": offsets}
        buffer += tensor["data"]
    text = json.dumps(header).encode()
    file = len(text).to_bytes(8, "little") + text + buffer
    (folder / "model.safetensors").write_bytes(file)


def together(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows one below another."""
    rows = sum(part["shape"][0] for part in parts)
    data = b"".join(part["data"] for part in parts)
    return parts[0] | {"shape": [rows, *parts[0]["shape"][1:]], "data": data}


def renamed(tensors: Tensors) -> Tensors:
    result = {
        "embedding.weight": tensors["model.embed_tokens.weight"],
        "norm.scale": tensors["model.norm.weight"],
        "unembedding.weight": tensors["lm_head.weight"],
    }
    for layer in range(CONFIG["num_hidden_layers"]):
        before, after = f"model.layers.{layer}.", f"block.{layer}."
        result |= {after + theirs: tensors[before + ours] for ours, theirs in RENAMED}
        for kind in ("weight", "bias"):
            parts = [tensors[f"{before}self_attn.{part}_proj.{kind}"] for part in "qkv"]
            result[f"{after}attn.qkv.{kind}"] = together(parts)
    return result


Make = Callable[..., Path]


@pytest.fixture
def published(fixtures_folder: Path) -> Path:
    return fixtures_folder.parent / "gpt_oss_mxfp4"


@pytest.fixture
def make(tmp_path: Path, published: Path) -> Make:
    """Writes the fixture as its makers would, with a change to tensors or configuration."""

    def written(change: Callable[[Tensors], object] | None = None, **fields: Any) -> Path:
        folder = tmp_path / "original"
        folder.mkdir()
        tensors = renamed(read_tensors(published))
        if change is not None:
            change(tensors)
        write_tensors(folder, tensors)
        (folder / "config.json").write_text(json.dumps(CONFIG | fields))
        return folder

    return written


def test_every_weight_is_that_of_the_other_folder(make: Make, published: Path) -> None:
    ours, theirs = load_model(make()), load_model(published)
    assert ours.tensor_shapes == theirs.tensor_shapes
    for name in ours.tensor_shapes:
        np.testing.assert_array_equal(ours.tensor(name), theirs.tensor(name), err_msg=name)
        packed = ours.mxfp4(name)
        assert (packed is None) == (theirs.mxfp4(name) is None)
    changed = {
        name: (getattr(ours.config, name), getattr(theirs.config, name))
        for name in vars(ours.config)
        if getattr(ours.config, name) != getattr(theirs.config, name)
    }
    assert set(changed) == {"name"}


def test_stored_logits(make: Make, published: Path) -> None:
    expected = np.load(published / "expected.npz")
    model = load_model(make())
    found = GptOssReference(model, precision=np.float64).logits(expected["token_ids"])
    tolerance = 1e-5 * np.abs(expected["logits"]).max()
    np.testing.assert_allclose(found, expected["logits"], rtol=1e-5, atol=tolerance)


def test_it_can_be_hardwired(make: Make, published: Path) -> None:
    ours, theirs = hardwired_model(load_model(make())), hardwired_model(load_model(published))
    for one, other in zip(ours.layers, theirs.layers, strict=True):
        assert np.array_equal(one.keys.wires.weights, other.keys.wires.weights)
        assert np.array_equal(one.gate_up[5].wires.weights, other.gate_up[5].wires.weights)


def spoil_scale(tensors: Tensors) -> None:
    scales = tensors["block.1.mlp.mlp2_weight.scales"]
    data = bytearray(scales["data"])
    data[64 * 2 + 7] = 0xFF
    tensors["block.1.mlp.mlp2_weight.scales"] = scales | {"data": bytes(data)}


def test_a_nan_scale_is_refused(make: Make) -> None:
    model = load_model(make(spoil_scale))
    with pytest.raises(
        InputError, match=r"mlp2_weight.scales.*found the NaN scale 0xFF at \[2, 7, 0\]"
    ):
        model.mxfp4("layers.1.mlp.experts.down_proj")


@pytest.mark.parametrize(
    "change, complaint",
    [
        (lambda t: t.pop("block.0.attn.sinks"), "'block.0.attn.sinks': expected in the weights"),
        (lambda t: t.pop("block.2.mlp.mlp1_weight.scales"), "mlp1_weight.scales': expected"),
        (lambda t: t.update({"block.3.attn.sinks": t["block.2.attn.sinks"]}), "does not use"),
        (
            lambda t: t.update({"block.1.attn.qkv.bias": t["block.1.attn.out.bias"]}),
            r"'block.1.attn.qkv.bias': shape: expected \[256\], found \[64\]",
        ),
    ],
    ids=["no sinks", "no scales", "another layer", "short bias"],
)
def test_spoiled_weights_are_refused(make: Make, change: Any, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        load_model(make(change))


@pytest.mark.parametrize(
    "fields, complaint",
    [
        ({"num_experts": "many"}, "num_local_experts: expected a whole number"),
        ({"initial_context_length": 0}, "initial_context_length: expected a whole number"),
        ({"rope_scaling_factor": -1}, "rope_scaling_factor: expected a positive number"),
        ({"experts_per_token": 9}, "experts_per_token: expected at most num_local_experts 8"),
    ],
)
def test_bad_configurations_are_refused(make: Make, fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=f"config.json: {complaint}"):
        load_model(make(**fields))


def test_a_factor_of_one_scales_nothing(make: Make) -> None:
    config = load_model(make(rope_scaling_factor=1)).config
    assert (config.rope_scaling, config.maximum_positions) == (None, 32)
