"""`lpu compare` and `lpu demo`: every cell has its source, and the hardware's is that of its own counters."""

import dataclasses
import json
from pathlib import Path

import pytest

import lpu
from emulator.timing import TimingEngine
from hw.spec.instructions import Unit
from hw.spec.machine_file import load_machine
from hw.spec.program import Program, save_program
from mapping.compiler import compile_model
from mapping.frontend.model import load_model, synthetic_model
from mapping.recipe import load_recipe
from sim_tests import compare
from sim_tests.compare import EMULATED, MEASURED, MODELLED, compare_rows, plot_rows


@pytest.fixture(scope="module")
def program() -> Program:
    """A small model with random weights."""
    config = load_model("tinyllama-1.1b").config
    config = dataclasses.replace(
        config, hidden_size=24, intermediate_size=40, layers=2, heads=4, kv_heads=2, head_dim=6, vocabulary_size=50,
        maximum_positions=64,
    )  # fmt: skip
    return compile_model(synthetic_model(config), load_machine("tiny"), load_recipe("w8a8"), 32)


def test_four_accounts_of_one_run(program: Program, tmp_path: Path) -> None:
    rows = compare_rows(program, 2, 2, rtl=True, engine="native")
    assert [row.source for row in rows] == [MODELLED, MODELLED, EMULATED, MEASURED]
    bandwidth, compute, emulator, rtl = rows
    assert max(bandwidth.cycles, compute.cycles) < emulator.cycles == rtl.cycles
    assert set(emulator.busy) == set(rtl.busy) == {unit.name for unit in Unit}
    for ours, counted in ((emulator.busy, rtl.busy), (emulator.waiting, rtl.waiting)):
        assert ours == pytest.approx(counted)
    timing = TimingEngine(program).run(2, 2)
    assert rtl.busy["MPE"] == timing.busy[Unit.MPE] / timing.cycles
    plot_rows(rows, "title", tmp_path / "compare.svg")
    assert (tmp_path / "compare.svg").read_text().startswith("<?xml")


def test_the_command_prints_a_label_in_every_row(
    program: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "p.lpu"
    save_program(program, path)
    arguments = ["compare", str(path), "--prompt-length", "2", "--tokens", "1", "--no-rtl"]
    assert lpu.main(arguments) == 0
    printed = capsys.readouterr().out
    assert printed.count(MODELLED) == 2 and printed.count(EMULATED) == 1 and MEASURED not in printed
    assert lpu.main([*arguments, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in figures["rows"]] == [
        "bandwidth bound",
        "compute bound",
        "emulator",
    ]
    assert figures["emulator_equals_rtl"] is None


def test_a_difference_is_status_one(
    program: Program,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "p.lpu"
    save_program(program, path)
    honest = compare.simulate

    def one_cycle_late(*arguments: object, **options: object) -> object:
        result = honest(*arguments, **options)  # type: ignore[arg-type]  # passed on as they come
        return dataclasses.replace(result, cycles=result.cycles + 1)

    monkeypatch.setattr(compare, "simulate", one_cycle_late)
    assert lpu.main(["compare", str(path), "--prompt-length", "2", "--tokens", "1"]) == 1
    assert "the hardware took" in capsys.readouterr().err
