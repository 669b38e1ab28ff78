"""`lpu pe array`: labelled figures, cycles equal to those of the RTL, and one line for whatever is wrong."""

import json
from pathlib import Path

import pytest
import yaml

import lpu
from hw.pe.array import SystolicArray
from hw.spec.errors import InputError
from hw.spec.systolic_target import systolic_from_dict
from hw.spec.targets import TARGETS
from sim_tests import systolic_cli
from sim_tests.bench import run_bench
from sim_tests.toolchain import require_tools


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert lpu.main(["pe", "array", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def need_tools() -> None:
    try:
        require_tools()
    except InputError as error:
        pytest.skip(str(error))


def test_figures_are_labelled_and_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--rows", 16, "--columns", 8, "--dataflow", "os", "--gemm", "33x300x20", "--json")
    facts = json.loads(run(capsys, *arguments, "--no-rtl"))
    figures = facts["figures"]
    assert {figure["label"] for figure in figures.values()} == {
        "emulated",
        "modelled",
        "measured on RTL",
        "emulated array, modelled memory",
    }
    assert figures["array cycles on RTL"]["value"] is None and facts["rtl"] == "not asked for"
    # Nine tiles of 128 + 128 + 44 beats, then the pipeline, the skew of 8 columns, and 16 rows.
    printed = systolic_from_dict({"family": "mixpe"} | facts["array"], "printed")
    latency = printed.output_latency
    assert figures["array cycles"]["value"] == 9 * 300 + latency + 15
    assert figures["products"]["value"] == 33 * 300 * 20
    busy = 33 * 300 * 20 / (128 * figures["array cycles"]["value"])
    assert figures["utilization of the array"]["value"] == pytest.approx(busy)
    assert figures["cycles with buffers and memory"]["value"] >= figures["array cycles"]["value"]
    table = run(capsys, *arguments[:-1], "--no-rtl")
    assert table.startswith("array cycles (emulated) ")
    assert f"{figures['array cycles']['value']:,}" in table.splitlines()[0]


@pytest.mark.parametrize("dataflow", ["os", "ws"])
def test_cycles_are_measured_on_rtl_and_equal(
    capsys: pytest.CaptureFixture[str], dataflow: str
) -> None:
    need_tools()
    arguments = ("--rows", 3, "--columns", 2, "--dataflow", dataflow, "--group-size", 12)
    facts = json.loads(run(capsys, *arguments, "--gemm", "7x30x5", "--json"))
    figures = facts["figures"]
    assert facts["rtl"] == "equal"
    assert figures["array cycles on RTL"]["label"] == "measured on RTL"
    assert figures["array cycles on RTL"]["value"] == figures["array cycles"]["value"]


def test_a_difference_is_a_failed_check(monkeypatch: pytest.MonkeyPatch) -> None:
    need_tools()
    monkeypatch.setattr(systolic_cli, "measure", lambda *_: 7)
    assert lpu.main(["pe", "array", "--rows", "2", "--gemm", "4x4x4", "--rtl"]) == 1


def test_rtl_that_disagrees_with_the_golden_model_is_found() -> None:
    need_tools()
    given = {"rows": 3, "columns": 2, "dataflow": "os", "group_size": 12}
    spec = systolic_cli.build_array(None, given)
    # The bench is told of another array than the one that is built: later, and with other roundings.
    wrong = systolic_cli.build_array(None, given | {"dequantization": "float32"})
    with pytest.raises(AssertionError, match=r"outputs differ|event \d+: cycle"):
        run_bench(
            "pe_array",
            lambda: SystolicArray(spec),
            "sim_tests.bench_systolic",
            parameters={"array": wrong.to_dict(), "gemms": [{"shape": (3, 40, 3)}]},
            only="every_product_is_right",
        )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--rows", "0"], "rows: expected a whole number from 1 to 1024, found 0"),
        (["--columns", "0"], "columns: expected a whole number from 1 to 1024, found 0"),
        (["--element", "abacus"], "element: expected one of"),
        (["--dataflow", "is"], "'is' is not one of"),
        (["--target", "tiny"], "tiny.yaml: family: expected 'mixpe', found flight"),
        (["--target", "nothing"], "nothing: no such target"),
        (["--group-size", "3"], "group_size: expected at least 64, or every group would stall"),
        (
            ["--dequantization", "none", "--element", "int8", "--gemm", "4x900x4"],
            "at most 128 beats",
        ),
        (["--rtl"], "--rtl: expected an array of at most 1024 elements, found 4096"),
        (["--gemm", "4x4"], "gemm: expected MxKxN, three whole numbers, found '4x4'"),
        (["--gemm", "4x0x4"], "gemm: k: expected a whole number from 1"),
        (["--gemm", "4x4x4.5"], "gemm: expected MxKxN"),
    ],
)
def test_bad_input_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert lpu.main(["pe", "array", "--gemm", "4x8x4", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = printed.err.splitlines()
    assert len(lines) == 1 and message in lines[0]


def test_a_contradictory_target_file_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = yaml.safe_load((TARGETS / "mixpe-tiny.yaml").read_text())
    path = tmp_path / "mine.yaml"
    for field, value in (("group_size", 4), ("result_rows", 3), ("element", "none"), ("rows", [])):
        path.write_text(yaml.safe_dump(content | {field: value}))
        assert lpu.main(["pe", "array", "--gemm", "4x8x4", "--target", str(path)]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and f"mine.yaml: {field}: expected" in lines[0]


@pytest.mark.parametrize("command", ["estimate", "compile", "verilog"])
def test_other_commands_say_that_they_need_another_family(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    arguments = {
        "estimate": ["pydoc-llama", "--recipe", "w8a8"],
        "compile": ["pydoc-llama", "--recipe", "w8a8", "-o", str(tmp_path / "x.lpu")],
        "verilog": ["-o", str(tmp_path / "rtl")],
    }[command]
    assert lpu.main([command, *arguments, "--target", "mixpe-tiny"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].endswith("mixpe-tiny.yaml: family: expected 'flight', found mixpe")


def test_arrays_are_listed_with_the_targets(capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert lpu.main(["list", "targets", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {"mixpe-tiny", "mixpe-w4a8"} <= {row["name"] for row in listed["arrays"]}
    assert {"tiny", "small"} <= {row["name"] for row in listed["targets"]}
