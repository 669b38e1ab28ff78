"""`lpu verilog`: the bench that it writes passes, needs no Python, and fails on any word that is wrong."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import lpu
from hw.spec.cascade import rows_together
from hw.spec.machine_file import load_machine
from hw.spec.registers import counters
from hw.spec.targets import list_targets
from hw.verilog import LINT_OFF, PROCESSOR

toolchain = pytest.importorskip("sim_tests.toolchain", reason="needs the extra `sim`")
verilog_bench = pytest.importorskip("sim_tests.verilog_bench", reason="needs the extra `sim`")


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = toolchain.tool_environment() | {"PYTHONPATH": str(folder / "nothing")}
    command = ["make", "-j", str(os.cpu_count() or 1), "check"]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def change_digit(file: Path, line: int) -> None:
    """Change the last digit of a line."""
    lines = file.read_text().splitlines()
    lines[line] = lines[line][:-1] + ("1" if lines[line][-1] != "1" else "2")
    file.write_text("\n".join(lines) + "\n")


def test_the_bench_passes_and_finds_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toolchain.require_tools()
    output = tmp_path / "tiny"
    assert lpu.main(["verilog", "--target", "tiny", "-o", str(output)]) == 0
    assert "lpu_processor" in capsys.readouterr().out
    names = {path.name for path in output.iterdir()}
    assert names >= {"README.txt", "filelist.f", "summary.json", "summary.txt", "bench"}
    bench = output / "bench"
    # Everything in the folder is told of.
    readme = (output / "README.txt").read_text()
    told = {*names, *(path.name for path in bench.iterdir())} - {"README.txt"}
    assert {name for name in told if name.replace("0.hex", "*.hex") not in readme} == set()
    done = check(bench)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "PASS" in done.stdout
    faults = [
        ("expected_trace.txt", 20),  # a checksum
        ("expected_results.txt", 3),  # the cycle count
        ("expected_memory0.hex", 40),  # a stored logit
        ("memory0.hex", 4),  # a weight
        ("memory0.hex", 0),  # a word that nothing reads
    ]
    for name, line in faults:
        kept = tmp_path / "kept"
        shutil.copyfile(bench / name, kept)
        change_digit(bench / name, line)
        done = check(bench)
        assert done.returncode != 0, (name, line)
        assert "PASS" not in done.stdout
        shutil.copyfile(kept, bench / name)
    assert check(bench).returncode == 0


@pytest.mark.parametrize("target", [t for t in list_targets() if load_machine(t).word_bytes <= 128])
def test_every_target_has_a_small_bench(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Verilog takes long to write, and is none of this test's business.
    monkeypatch.setattr(verilog_bench, "Simulation", lambda *arguments: None)
    monkeypatch.setattr(verilog_bench, "convert", lambda component, name: "")
    spec = load_machine(target)
    files = verilog_bench.bench_files(spec)
    assert sum(map(len, files.values())) < 500_000
    for channel in range(spec.cores * spec.channels):
        assert set(files[f"memory{channel}.hex"]) <= set("0123456789abcdef\n")
        expected = files[f"expected_memory{channel}.hex"]
        assert files[f"memory{channel}.hex"] != expected
        assert expected.startswith(files[f"memory{channel}.hex"])
    reads = files["script.txt"].count("read ")
    assert files["expected_results.txt"].count("\n") == reads == (9 + 2 * len(counters(spec.cores)))


@pytest.mark.slow  # five minutes and 4 GB, most of both in Verilator
def test_a_whole_board_is_written_and_passes_lint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toolchain.require_tools()
    spec = load_machine("u280")
    output = tmp_path / "u280"
    assert lpu.main(["verilog", "--target", "u280", "-o", str(output), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    # Whatever is there many times is written once.
    assert summary["lines"] < 200_000
    assert summary["modules"]["lpu_core"] == spec.cores
    rows = spec.cores * spec.matrix_rows // rows_together(spec)
    kinds = {name for name in summary["modules"] if name.startswith("lpu_matrix_row")}
    assert sum(summary["modules"][name] for name in kinds) == rows
    ports = {port["name"] for port in summary["ports"]}
    assert f"m_axi_{spec.cores * spec.channels - 1}_araddr" in ports
    assert (output / "bench" / "Makefile").exists()
    command = [toolchain.find_tool("verilator"), "--lint-only", "-Wall"]
    command += [*(f"-Wno-{name}" for name in LINT_OFF), "--top-module", PROCESSOR]
    done = subprocess.run(
        [*command, str(output / f"{PROCESSOR}.sv")],
        env=toolchain.tool_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr[:3000]


def test_a_machine_too_small_for_the_program_is_told_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "hw.verilog_files.generate_verilog",
        lambda spec, **_: "module lpu_processor();\nendmodule\n",
    )
    file = tmp_path / "few.yaml"
    text = (Path(lpu.__file__).parent / "hw" / "targets" / "tiny.yaml").read_text()
    file.write_text(
        text.replace("instructions: 256", "instructions: 8").replace("name: tiny", "name: few")
    )
    output = tmp_path / "few"
    assert lpu.main(["verilog", "--target", str(file), "-o", str(output)]) == 0
    message = "no bench: target few: instructions: expected at least 10, found 8"
    assert message in capsys.readouterr().err.replace("\n", " ")
    assert "instructions: expected at least 10, found 8" in (output / "README.txt").read_text()
    assert not (output / "bench").exists()


def test_an_output_that_is_a_file_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    assert lpu.main(["verilog", "--target", "tiny", "-o", str(file)]) == 2
    assert "expected a folder" in capsys.readouterr().err
    assert file.read_text() == "mine"


def test_primitives_need_slices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = str(tmp_path / "tiny")
    assert lpu.main(["verilog", "--target", "tiny", "--primitives", "-o", output]) == 2
    assert "expected dsp with --primitives" in capsys.readouterr().err.replace("\n", " ")
    assert not Path(output).exists()
