"""Folders of packed checkpoints: what is exported is read back, and what is broken is refused in one line."""

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import safetensors
from click.testing import CliRunner

from hw.spec.errors import InputError
from mapping.calibration import calibration_tokens, input_norms
from mapping.export import export_model, pack
from mapping.export_cli import FORMATS, export_command
from mapping.frontend import load_model
from mapping.frontend.mxfp4 import stored_mxfp4
from mapping.frontend.quantization import LAYOUTS
from mapping.frontend.quantized_weights import QuantizedFolderWeights
from mapping.frontend.safetensors_write import write_safetensors
from mapping.frontend.stored import StoredMatrix
from mapping.round_to_nearest import mxfp4_matrix, progressive_matrix, zero_point_matrix

MODEL = "pydoc-llama"
GROUP = 32
NAME = "layers.2.mlp.down_proj"
BASE = f"model.{NAME}"
SHAPE = (128, 352)
Tensors = dict[str, npt.NDArray[Any]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, bool], Path]:
    """Exports of the bundled model, each made once."""
    root = tmp_path_factory.mktemp("exports")

    def folder(layout: str, symmetric: bool = False) -> Path:
        path = root / f"{layout}-{symmetric}"
        if not path.exists():
            export_model(load_model(MODEL), layout, path, symmetric=symmetric)
        return path

    return folder


Exported = Callable[..., Path]


@pytest.fixture
def spoil(exported: Exported, tmp_path: Path) -> Callable[..., Path]:
    """A copy of an export with other tensors or another `quantization_config`; `...` removes one."""

    def copy(
        layout: str,
        tensors: dict[str, Any] | None = None,
        config: dict[str, Any] | None = None,
        symmetric: bool = False,
    ) -> Path:
        folder = Path(shutil.copytree(exported(layout, symmetric), tmp_path / "spoilt"))
        path = folder / "model.safetensors"
        if tensors:
            content = read_tensors(path)
            for end, change in tensors.items():
                name = end if end.startswith("model.") else f"{BASE}.{end}"
                if change is ...:
                    del content[name]
                else:
                    content[name] = np.asarray(
                        change(content[name]) if callable(change) else change
                    )
            write_safetensors(path, content)
        if config is not None:
            whole = json.loads((folder / "config.json").read_text())
            fields = whole["quantization_config"] | config
            whole["quantization_config"] = {k: v for k, v in fields.items() if v is not ...}
            (folder / "config.json").write_text(json.dumps(whole))
        return folder

    return copy


def read_tensors(path: Path) -> Tensors:
    """Tensors of a file by the library that defines the format; bfloat16 as float32."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header.pop("__metadata__")
    others = {}
    for name, entry in header.items():
        begin, end = (8 + size + offset for offset in entry["data_offsets"])
        if entry["dtype"] == "BF16":
            upper = np.frombuffer(content[begin:end], "<u2").astype(np.uint32) << 16
            others[name] = upper.view(np.float32).reshape(entry["shape"])
        else:
            types = {"I32": "<i4", "F16": "<f2", "U8": "u1", "I8": "i1", "F32": "<f4"}
            data = np.frombuffer(content[begin:end], types[entry["dtype"]])
            others[name] = data.reshape(entry["shape"]).copy()
    return others


def quantizer(layout: str, symmetric: bool) -> Callable[[npt.NDArray[np.float32]], StoredMatrix]:
    if layout == "qserve":
        return lambda weight: progressive_matrix(weight, GROUP).stored()
    if layout == "mxfp4":
        return lambda weight: stored_mxfp4(mxfp4_matrix(weight))
    least = int(layout == "gptq")
    return lambda weight: zero_point_matrix(
        weight, GROUP, symmetric=symmetric, least_zero=least
    ).stored()


def cases() -> Iterator[tuple[str, bool]]:
    for layout in LAYOUTS:
        yield layout, False
        if layout not in ("qserve", "mxfp4"):
            yield layout, True


@pytest.mark.parametrize(("layout", "symmetric"), list(cases()))
def test_what_is_exported_is_read_back(layout: str, symmetric: bool, exported: Exported) -> None:
    source, model = load_model(MODEL), load_model(exported(layout, symmetric))
    assert model.quantized is not None
    assert len(model.quantized.packed) == 7 * 5
    assert model.quantized.notes == ()
    for name in source.tensor_shapes:
        if name not in model.quantized.packed:
            np.testing.assert_array_equal(model.tensor(name), source.tensor(name))
            continue
        expected = quantizer(layout, symmetric)(source.tensor(name))
        found = model.quantized.stored(name)
        np.testing.assert_array_equal(found.values, expected.values)
        np.testing.assert_array_equal(found.scales, expected.scales)
        np.testing.assert_array_equal(found.groups, expected.groups)
        assert found.kind == expected.kind
        np.testing.assert_array_equal(model.tensor(name), expected.dequantize())
    low, high = model.quantized.integer_range()
    values = [model.quantized.stored(name).values for name in model.quantized.packed]
    assert low <= min(v.min() for v in values)
    assert high >= max(v.max() for v in values)
    if symmetric:
        assert (low, high) == (-8, 7)
    assert model.tokenizer.encode("with") == source.tokenizer.encode("with")


def test_other_software_reads_the_files(exported: Exported) -> None:
    path = exported("gptq", False) / "model.safetensors"
    with safetensors.safe_open(path, "numpy") as file:  # type: ignore[no-untyped-call] # the library's
        codes = file.get_tensor(f"{BASE}.qweight")
        assert codes.dtype == np.int32
        assert codes.shape == (352 // 8, 128)
        assert file.get_tensor(f"{BASE}.g_idx")[33] == 1


def test_unpacked_weights_keep_their_type(tmp_path: Path) -> None:
    halves = np.array([1 + 2**-10, 65504], np.float32)
    tensors = {"b": np.ones(3, np.float32), "h": halves, "f": halves + np.float32(2**-20)}
    write_safetensors(tmp_path / "t.safetensors", tensors)
    found = read_tensors(tmp_path / "t.safetensors")
    assert [found[name].dtype for name in "bhf"] == [np.float32, np.float16, np.float32]
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], tensor)
    with pytest.raises(ValueError, match="not float64"):
        write_safetensors(tmp_path / "t.safetensors", {"d": np.ones(1)})


def shuffled_groups(seed: int = 7) -> npt.NDArray[np.int32]:
    return np.random.default_rng(seed).permutation(np.arange(352) // GROUP).astype(np.int32)


def test_activation_order(spoil: Callable[..., Path]) -> None:
    groups = shuffled_groups()
    folder = spoil("gptq", {"g_idx": groups}, {"desc_act": True})
    plain = load_model(MODEL).tensor(NAME)
    rounded = zero_point_matrix(plain, GROUP, least_zero=1)
    codes, zeros = rounded.codes.astype(np.int32), rounded.zeros.astype(np.int32)
    expected = (codes - zeros[:, groups]) * rounded.scales[:, groups]
    model = load_model(folder)
    np.testing.assert_array_equal(model.tensor(NAME), expected)
    assert model.quantized is not None
    assert not model.quantized.ordered(NAME)
    assert model.quantized.ordered("layers.2.mlp.up_proj")


@pytest.mark.parametrize("layout", ["gptq", "gptq-v2"])
def test_an_export_in_activation_order_is_read_back(layout: str, tmp_path: Path) -> None:
    """The inputs that are largest on the calibration text come first; each group is rounded by itself."""
    source = load_model(MODEL)
    export_model(source, layout, tmp_path / "out", activation_order=True)
    model = load_model(tmp_path / "out")
    norms = input_norms(source, calibration_tokens(source, "test"))
    assert model.quantized is not None
    for name in (NAME, "layers.0.self_attn.q_proj"):
        groups = model.quantized.groups(name)
        sizes = [norms[name][groups == group] for group in range(groups.max() + 1)]
        assert all(a.min() >= b.max() for a, b in itertools.pairwise(sizes))
        plain, found = source.tensor(name), model.tensor(name)
        for group in range(groups.max() + 1):
            own = groups == group
            wanted = zero_point_matrix(plain[:, own], None, least_zero=int(layout == "gptq"))
            np.testing.assert_array_equal(found[:, own], wanted.stored().dequantize())
    queries, keys = (model.quantized.groups(f"layers.0.self_attn.{x}_proj") for x in "qk")
    np.testing.assert_array_equal(queries, keys)


@pytest.mark.parametrize(("labelled", "actual"), [("gptq", "gptq-v2"), ("gptq_v2", "gptq")])
def test_a_wrong_version_is_told_by_content(
    labelled: str, actual: str, spoil: Callable[..., Path]
) -> None:
    folder = spoil(actual, None, {"checkpoint_format": labelled}, symmetric=True)
    model = load_model(folder)
    expected = quantizer(actual, True)(load_model(MODEL).tensor(NAME))
    np.testing.assert_array_equal(model.tensor(NAME), expected.dequantize())
    assert model.quantized is not None
    (note,) = model.quantized.notes
    assert "checkpoint_format says version" in note
    # Not said to be symmetric: all the same. Said not to be: the label counts.
    folder_config = {"checkpoint_format": labelled, "sym": ...}
    shutil.rmtree(folder)
    assert load_model(spoil(actual, None, folder_config, symmetric=True)).quantized.notes  # type: ignore[union-attr] # it is


def with_fifteen(qzeros: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    result = qzeros.copy()
    result[0, 0] |= 15
    return result


def test_version_1_wraps_the_zero_point_0(spoil: Callable[..., Path]) -> None:
    folder = spoil("gptq", {"qzeros": with_fifteen})
    model = load_model(folder)
    matrix = zero_point_matrix(load_model(MODEL).tensor(NAME), GROUP, least_zero=1)
    expected = matrix.codes[0, :GROUP] * matrix.scales[0, 0]
    np.testing.assert_array_equal(model.tensor(NAME)[0, :GROUP], expected)
    assert model.quantized is not None
    (note,) = model.quantized.notes
    assert "1 zero point(s) stored as 15, which version 1 writes for 0: read as 0" in note


def test_the_label_counts_where_zero_points_differ(spoil: Callable[..., Path]) -> None:
    model = load_model(spoil("gptq-v2", None, {"checkpoint_format": "gptq"}))
    rounded = zero_point_matrix(load_model(MODEL).tensor(NAME), GROUP)
    zeros = (rounded.zeros.astype(np.int32) + 1) % 16
    expected = (rounded.codes - zeros[:, rounded.groups]) * rounded.scales[:, rounded.groups]
    np.testing.assert_array_equal(model.tensor(NAME), expected)


def test_older_folders_say_it_beside(spoil: Callable[..., Path]) -> None:
    folder = spoil("gptq")
    config = json.loads((folder / "config.json").read_text())
    fields = config.pop("quantization_config")
    (folder / "config.json").write_text(json.dumps(config))
    del fields["quant_method"]
    (folder / "quantize_config.json").write_text(json.dumps(fields))
    assert load_model(folder).quantized is not None


def test_biases_of_zero_are_no_biases(spoil: Callable[..., Path]) -> None:
    folder = spoil("gptq", {"bias": np.zeros(128, np.float16)})
    assert load_model(folder).quantized is not None


def filled(value: float) -> Callable[[npt.NDArray[Any]], npt.NDArray[Any]]:
    def change(tensor: npt.NDArray[Any]) -> npt.NDArray[Any]:
        result = tensor.copy()
        result.flat[5] = value
        return result

    return change


REFUSED: dict[str, tuple[str, dict[str, Any] | None, dict[str, Any] | None, str]] = {
    "packing of another layout": ("awq-gemm", None, {"version": "gemv"}, "shape: expected"),
    "packing of another method": ("gptq", None, {"quant_method": "awq"}, "shape: expected"),
    "transposed": ("gptq", {"qweight": lambda t: t.T.copy()}, None, r"shape: expected \[44, 128\]"),
    "wider words": ("awq-gemm", {"qweight": lambda t: t.astype(np.float32)}, None, "dtype: expected one of I32"),
    "another group size": ("gptq", None, {"group_size": 64}, "shape: expected"),
    "group that divides nothing": ("awq-gemm", None, {"group_size": 48}, "expected a multiple of 48, found 128"),
    "scales of another shape": ("awq-gemm", {"scales": lambda t: t[1:].copy()}, None, r"scales.*shape: expected \[11, 128\]"),
    "zeros of another shape": ("gptq", {"qzeros": lambda t: t[:, 1:].copy()}, None, r"qzeros.*shape: expected \[11, 16\]"),
    "NaN": ("awq-gemv", {"scales": filled(np.nan)}, None, "scales.*expected finite weights, found nan"),
    "infinity": ("gptq", {"scales": filled(np.inf)}, None, "expected finite weights, found inf"),
    "NaN of qserve": ("qserve", {"s1_scales": filled(np.nan)}, None, "s1_scales.*found nan"),
    "NaN of mxfp4": ("mxfp4", {"weight_scales": filled(255)}, None, "found the NaN scale 0xFF"),
    "blocks of mxfp4": ("mxfp4", {"weight_blocks": lambda t: t[:, 1:].copy()}, None, r"shape: expected \[128, 11, 16\]"),
    "step of 0": ("qserve", {"s2_scales": filled(0)}, None, "s2_scales.*expected scales of 1 to 17, found 0"),
    "step too large": ("qserve", {"s2_scales": filled(18)}, None, "expected scales of 1 to 17, found 18"),
    "zero point that is none": ("qserve", {"s2_zeros": filled(1)}, None, "s2_zeros.*expected -z . s2 with a zero point"),
    "groups of qserve": ("qserve", None, {"group_size": -1}, "group_size: expected a number of inputs"),
    "missing": ("gptq", {"scales": ...}, None, "scales.*expected in the weights, not found"),
    "missing level": ("qserve", {"s2_zeros": ...}, None, "s2_zeros.*expected in the weights, not found"),
    "missing matrix": ("gptq", dict.fromkeys(("qweight", "qzeros", "scales", "g_idx"), ...), None, "down_proj.weight'.*not found"),
    "twice": ("gptq", {"weight": np.zeros(SHAPE, np.float32)}, None, "expected packed or plain weights, found both"),
    "order without groups": ("gptq", {"g_idx": ...}, {"desc_act": True}, "g_idx.*expected because quantization_config says desc_act"),
    "groups without order": ("gptq", {"g_idx": filled(3)}, None, "g_idx.*expected group 0 for input 5 .* found 3"),
    "group out of range": ("gptq", {"g_idx": filled(11)}, {"desc_act": True}, "expected groups 0 to 10, found 11"),
    "negative group": ("gptq", {"g_idx": filled(-1)}, {"desc_act": True}, "expected groups 0 to 10, found -1"),
    "uneven groups": ("gptq", {"g_idx": filled(3)}, {"desc_act": True}, "expected 32 inputs in group 0, found 31"),
    "order of a short table": ("gptq", {"g_idx": lambda t: t[1:].copy()}, None, r"g_idx.*expected \[352\]"),
    "asymmetric zeros": ("gptq-v2", None, {"sym": True}, "qzeros.*expected all zero points stored as 7 or all as 8 .* found others"),
    "a bias": ("gptq", {"bias": np.ones(128, np.float32)}, None, "expected a bias of zeros, found others"),
    "unknown tensor": ("awq-gemm", {"g_idx": np.zeros(352, np.int32)}, None, "found one that it does not use"),
    "not converted": ("awq-gemm", None, {"modules_to_not_convert": ["down_proj"]}, "expected 'down_proj' as plain weights, found .* packed"),
    "no list": ("awq-gemm", None, {"modules_to_not_convert": 3}, "modules_to_not_convert: expected a list of names"),
    "method": ("gptq", None, {"quant_method": "bitsandbytes"}, "quant_method: expected one of awq, gptq, qserve, mxfp4"),
    "no method": ("gptq", None, {"quant_method": ...}, "quant_method: .*found nothing"),
    "bits": ("gptq", None, {"bits": 3}, "bits: expected 4, found 3"),
    "group": ("gptq", None, {"group_size": "all"}, "group_size: expected a number of inputs, or -1"),
    "no group": ("gptq", None, {"group_size": True}, "group_size: .*found True"),
    "version": ("gptq", None, {"checkpoint_format": "marlin"}, "checkpoint_format: expected 'gptq' or 'gptq_v2', found 'marlin'"),
    "kernel": ("awq-gemm", None, {"version": "gemv_fast"}, "version: expected 'gemm' or 'gemv'"),
    "no zero point": ("awq-gemm", None, {"zero_point": False}, "zero_point: expected true"),
    "dynamic": ("gptq", None, {"dynamic": {"a": {"bits": 8}}}, "dynamic: expected none"),
    "words": ("gptq", None, {"pack_dtype": "int16"}, "pack_dtype: expected 'int32'"),
    "order": ("gptq", None, {"desc_act": 3}, "desc_act: expected true or false"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_contradicts_itself_is_refused_in_one_line(
    case: str, spoil: Callable[..., Path]
) -> None:
    layout, tensors, config, message = REFUSED[case]
    with pytest.raises(InputError, match=message) as caught:
        load_model(spoil(layout, tensors, config)).tensor(NAME)
    assert "\n" not in str(caught.value)


def test_mixed_versions_are_refused(spoil: Callable[..., Path]) -> None:
    folder = spoil("gptq", {"qzeros": lambda t: t + 0x11111111}, symmetric=True)
    with pytest.raises(InputError, match=r"expected zero points of one version, found 7 .* and 8"):
        load_model(folder).tensor(NAME)


def test_packed_weights_that_nobody_describes(spoil: Callable[..., Path]) -> None:
    folder = spoil("gptq")
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="quantization_config: expected one that says how"):
        load_model(folder)
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": [4]}))
    with pytest.raises(InputError, match="quantization_config: expected an object"):
        load_model(folder)


def test_plain_weights_said_to_be_packed(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(load_model(MODEL).folder or "", tmp_path / "plain"))
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "awq", "bits": 4, "group_size": 32}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="expected matrices packed as awq-gemm, found none"):
        load_model(folder)


EXPORTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "group": ("awq-gemm", {"group": 128}, "group: expected a divisor of the 352 inputs"),
    "block": ("mxfp4", {"group": 64}, "group: expected 32 with mxfp4"),
    "symmetric": ("qserve", {"symmetric": True}, "symmetric: expected a format with zero points"),
    "format": ("int4", {}, "format: expected one of awq-gemm"),
    "order": ("awq-gemm", {"activation_order": True}, "activation_order: expected a gptq format"),
    "padding": ("awq-gemv", {"group": 16}, "group_size: expected 32, 64, or at least 128"),
}


@pytest.mark.parametrize("case", EXPORTS)
def test_exports_that_are_not_possible(case: str, tmp_path: Path) -> None:
    layout, options, message = EXPORTS[case]
    with pytest.raises(InputError, match=message):
        export_model(load_model(MODEL), layout, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_exports_of_what_has_no_weights_or_no_place(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a model with weights of its own"):
        export_model(load_model("tinyllama-1.1b"), "gptq", tmp_path / "out")
    with pytest.raises(InputError, match="expected LlamaForCausalLM"):
        export_model(load_model("pydoc-gpt-oss"), "gptq", tmp_path / "out")
    with pytest.raises(InputError, match="expected no such folder, or an empty one"):
        export_model(load_model(MODEL), "gptq", tmp_path.parent)


def test_the_command_knows_every_layout(tmp_path: Path) -> None:
    assert FORMATS == LAYOUTS
    result = CliRunner().invoke(
        export_command, [MODEL, "--format", "mxfp4", "-o", str(tmp_path / "out"), "--json"]
    )
    facts = json.loads(result.output)
    assert facts["file_bytes"] == (tmp_path / "out" / "model.safetensors").stat().st_size
    assert facts["group"] == 32
    shown = CliRunner().invoke(
        export_command, [MODEL, "--format", "gptq", "-o", str(tmp_path / "other")]
    )
    assert "file bytes" in shown.output


def test_a_large_model_is_written_in_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exported: Exported
) -> None:
    monkeypatch.setattr("mapping.export.SHARD_PARAMETERS", 1000)
    export_model(load_model(MODEL), "gptq", tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == 6
    one, many = load_model(exported("gptq", False)), load_model(tmp_path / "out")
    np.testing.assert_array_equal(many.tensor(NAME), one.tensor(NAME))


def test_a_last_group_may_be_short(tmp_path: Path) -> None:
    folder = tmp_path / "short"
    export_model(load_model(MODEL), "gptq", folder, group=128)
    found = load_model(folder).tensor(NAME)
    assert pack(found, "gptq", 128, False)["scales"].shape == (3, 128)
    weight = load_model(MODEL).tensor(NAME)
    expected = zero_point_matrix(weight, 128, least_zero=1).stored().dequantize()
    np.testing.assert_array_equal(found, expected)


def test_quantized_weights_are_told_from_others(exported: Exported) -> None:
    assert load_model(MODEL).quantized is None
    assert isinstance(load_model(exported("qserve", False)).quantized, QuantizedFolderWeights)
