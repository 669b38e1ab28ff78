"""gpt-oss folders: configuration, MXFP4 experts, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from hw.spec.errors import InputError
from hw.spec.machine_file import load_machine
from mapping.compiler import plan_model
from mapping.frontend import load_model
from mapping.frontend.config import parse_config
from mapping.frontend.gpt_oss import GptOssConfig, require_gpt_oss
from mapping.frontend.gpt_oss_weights import unpack_mxfp4
from mapping.graph import build_graph
from mapping.recipe import load_recipe
from mapping.reference import FloatReference

GATE_UP = "model.layers.1.mlp.experts.gate_up_proj"


@pytest.fixture
def folder(tmp_path: Path, fixtures_folder: Path) -> Path:
    return Path(shutil.copytree(fixtures_folder.parent / "gpt_oss_mxfp4", tmp_path / "model"))


@pytest.fixture
def raw(fixtures_folder: Path) -> dict[str, Any]:
    return json.loads((fixtures_folder.parent / "gpt_oss_mxfp4" / "config.json").read_text())


def parse(raw: dict[str, Any], **changes: Any) -> GptOssConfig:
    kept = {key: value for key, value in (raw | changes).items() if value is not ...}
    return require_gpt_oss(parse_config(kept, "trial", "config.json"), "this test")


def edit_weights(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Change stored arrays; BF16, which NumPy lacks, is left as it is by editing bytes of the rest."""
    path = folder / "model.safetensors"
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header.pop("__metadata__")
    arrays = {}
    for name, entry in header.items():
        begin, end = (8 + size + offset for offset in entry["data_offsets"])
        arrays[name] = (entry["dtype"], entry["shape"], content[begin:end])
    edit(arrays)
    buffer, out = b"", {}
    for name, (dtype, shape, data) in arrays.items():
        out[name] = {"dtype": dtype, "shape": shape,
                     "data_offsets": [len(buffer), len(buffer) + len(data)]}  # fmt: skip
        buffer += data
    text = json.dumps(out).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + buffer)


def test_the_published_configuration() -> None:
    config = require_gpt_oss(load_model("gpt-oss-120b").config, "this test")
    assert (config.layers, config.experts, config.experts_per_token, config.window) == (
        36,
        128,
        4,
        128,
    )
    assert config.windowed_layers[:3] == (True, False, True)
    assert [config.attended(layer, 1000) for layer in (0, 1)] == [128, 1000]
    assert config.rope_scaling is not None
    assert config.rope_scaling["attention_factor"] == pytest.approx(0.1 * np.log(32) + 1)
    small = require_gpt_oss(load_model("gpt-oss-20b").config, "this test")
    assert (small.layers, small.experts) == (24, 32)


def test_every_code_of_mxfp4_by_the_table() -> None:
    """Values as the format's specification lists them, not by the code's own table."""
    low_first = np.array([0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE] * 2, np.uint8)
    blocks, scales = np.stack([low_first] * 3), np.array([127, 128, 0], np.uint8)
    unpacked = unpack_mxfp4(blocks, scales, "trial")
    listed = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6]
    values = unpacked.values().reshape(3, 32)
    np.testing.assert_array_equal(values[0], listed * 2)
    np.testing.assert_array_equal(values[1], 2 * np.array(listed * 2))
    np.testing.assert_array_equal(values[2], np.ldexp(np.array(listed * 2, np.float32), -127))


def test_experts_are_dequantized_per_block_of_inputs(folder: Path) -> None:
    stored: dict[str, Any] = {}
    edit_weights(folder, stored.update)
    blocks = np.frombuffer(stored[GATE_UP + "_blocks"][2], np.uint8).reshape(8, 64, 2, 16)
    scales = np.frombuffer(stored[GATE_UP + "_scales"][2], np.uint8).reshape(8, 64, 2)
    table = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    weight = load_model(folder).tensor("layers.1.mlp.experts.gate_up_proj")
    rng = np.random.default_rng(0)
    for expert, row, column in rng.integers((8, 64, 64), size=(200, 3)):
        byte = int(blocks[expert, row, column // 32, column % 32 // 2])
        code = byte >> 4 if column % 2 else byte & 15
        value = table[code % 8] * (-1 if code > 7 else 1)
        value *= 2.0 ** (int(scales[expert, row, column // 32]) - 127)
        assert weight[expert, row, column] == value


def test_a_converted_folder_says_the_same(folder: Path) -> None:
    """Folders that were converted hold numbers, inputs before outputs."""
    model = load_model(folder)
    names = [name for name in model.tensor_shapes if name.endswith(("gate_up_proj", "down_proj"))]
    before = {name: model.tensor(name) for name in names}

    def convert(arrays: dict[str, Any]) -> None:
        for name in names:
            del arrays[f"model.{name}_blocks"], arrays[f"model.{name}_scales"]
            values = np.ascontiguousarray(before[name].swapaxes(1, 2))
            arrays[f"model.{name}"] = ("F32", list(values.shape), values.tobytes())

    edit_weights(folder, convert)
    converted = load_model(folder)
    assert converted.mxfp4(names[0]) is None
    for name in names:
        np.testing.assert_array_equal(converted.tensor(name), before[name])


def test_a_nan_scale_is_refused(folder: Path) -> None:
    def spoil(arrays: dict[str, Any]) -> None:
        dtype, shape, data = arrays[GATE_UP + "_scales"]
        spoiled = bytearray(data)
        spoiled[2 * 37 + 1] = 0xFF
        arrays[GATE_UP + "_scales"] = (dtype, shape, bytes(spoiled))

    edit_weights(folder, spoil)
    model = load_model(folder)
    with pytest.raises(InputError, match=r"gate_up_proj_scales.*NaN scale 0xFF at \[0, 37, 1\]"):
        model.tensor("layers.1.mlp.experts.gate_up_proj")
    with pytest.raises(InputError, match="NaN scale"):
        model.mxfp4("layers.1.mlp.experts.gate_up_proj")


@pytest.mark.parametrize(
    "spoil, complaint",
    [
        (lambda a: a.pop(GATE_UP + "_scales"), "gate_up_proj_scales.*not found"),
        (lambda a: a.pop("model.layers.0.self_attn.sinks"), "sinks.*not found"),
        (lambda a: a.update({"model.extra": ("U8", [1], b"\0")}), "one that it does not use"),
        (
            lambda a: a.update({
                GATE_UP + "_scales": ("U8", [8, 32, 4], a[GATE_UP + "_scales"][2])
            }),
            r"shape: expected \[8, 64, 2\]",
        ),
        (
            lambda a: a.update({GATE_UP + "_scales": ("I8", *a[GATE_UP + "_scales"][1:])}),
            "dtype: expected one of U8, found 'I8'",
        ),
    ],
    ids=["no scales", "no sinks", "unknown", "wrong shape", "wrong type"],
)
def test_spoiled_weights_are_refused(folder: Path, spoil: Any, complaint: str) -> None:
    edit_weights(folder, spoil)
    with pytest.raises(InputError, match=complaint):
        load_model(folder)


def test_shapes_of_blocks_and_scales_must_agree() -> None:
    blocks, scales = np.zeros((4, 3, 16), np.uint8), np.zeros((4, 2), np.uint8)
    with pytest.raises(InputError, match=r"found \[4, 3, 16\] with \[4, 2\]"):
        unpack_mxfp4(blocks, scales, "trial")


def test_inputs_must_be_whole_blocks(folder: Path, raw: dict[str, Any]) -> None:
    (folder / "config.json").write_text(json.dumps(raw | {"intermediate_size": 40}))
    with pytest.raises(InputError, match="expected inputs in blocks of 32, found 40|shape"):
        load_model(folder)


@pytest.mark.parametrize(
    "changes, complaint",
    [
        ({"num_local_experts": ...}, "num_local_experts: expected a whole number"),
        ({"num_experts_per_tok": 9}, "num_experts_per_tok: expected at most num_local_experts 8"),
        ({"layer_types": ["full_attention"]}, "layer_types: expected 3 of"),
        ({"layer_types": ["odd"] * 3}, "layer_types"),
        ({"sliding_window": 0}, "sliding_window"),
        ({"attention_bias": False}, "attention_bias"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quant_method 'mxfp4'"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "rope_type: expected 'yarn'"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "factor: expected a positive number"),
        ({"num_key_value_heads": 3}, "num_key_value_heads: expected a divisor"),
        ({"head_dim": 15}, "head_dim"),
        ({"hidden_act": "gelu"}, "hidden_act"),
    ],
)
def test_bad_configurations_are_refused(
    raw: dict[str, Any], changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        parse(raw, **changes)


def test_window_defaults_alternate(raw: dict[str, Any]) -> None:
    assert parse(raw, layer_types=...).windowed_layers == (True, False, True)


def test_the_flight_processor_refuses_in_one_line(folder: Path) -> None:
    model = load_model(folder)
    for attempt in (
        lambda: plan_model(model.config, load_machine("small"), load_recipe("w4a8")),
        lambda: build_graph(model.config),
        lambda: FloatReference(model),
    ):
        with pytest.raises(
            InputError, match="model: architecture: .*lpu hardwire system"
        ) as caught:
            attempt()
        assert "\n" not in str(caught.value)


def test_other_families_are_refused_by_the_hardwired_system() -> None:
    with pytest.raises(
        InputError, match="tinyllama-1.1b: architecture: expected GptOssForCausalLM"
    ):
        require_gpt_oss(load_model("tinyllama-1.1b").config, "a test")


def test_the_reader_agrees_with_the_safetensors_library(folder: Path, tmp_path: Path) -> None:
    arrays = {"blocks": np.arange(96, dtype=np.uint8).reshape(2, 3, 16)}
    save_file(arrays, tmp_path / "model.safetensors")
    from mapping.frontend.safetensors_file import TensorFolder

    np.testing.assert_array_equal(
        TensorFolder(tmp_path).load_bytes("blocks", (2, 3, 16)),
        load_file(tmp_path / "model.safetensors")["blocks"],
    )
