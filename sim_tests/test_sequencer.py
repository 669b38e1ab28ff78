"""Runs the sequencer bench for every unit."""

import pytest

from hw.core.sequencer import Sequencer
from hw.spec.instructions import Unit
from hw.spec.machine_file import load_machine
from hw.verilog import convert
from sim_tests.bench import run_bench

BENCH = "sim_tests.bench_sequencer"


def _run(unit: Unit) -> int:
    netlist = convert(Sequencer(load_machine("tiny"), unit, trace=True), "top")
    parameters = {"unit": int(unit), "target": "tiny"}
    return run_bench(f"sequencer_{unit.name.lower()}", netlist, BENCH, parameters=parameters).tests


@pytest.mark.parametrize("unit", list(Unit), ids=lambda unit: unit.name)
def test_sequencer(unit: Unit) -> None:
    assert _run(unit) == 3
