"""Runs the sequencer bench for every unit, and checks that the bench finds faults."""

from collections.abc import Callable

import pytest

from hw.core.sequencer import Sequencer
from hw.spec.instructions import Unit
from hw.spec.machine import load_machine
from hw.verilog import convert
from sim_tests.bench import run_bench

BENCH = "sim_tests.bench_sequencer"


def _run(unit: Unit, break_it: Callable[[str], str] = lambda text: text) -> int:
    netlist = break_it(convert(Sequencer(load_machine("tiny"), unit, trace=True), "top"))
    parameters = {"unit": int(unit), "target": "tiny"}
    return run_bench(f"sequencer_{unit.name.lower()}", netlist, BENCH, parameters=parameters).tests


@pytest.mark.parametrize("unit", list(Unit), ids=lambda unit: unit.name)
def test_sequencer(unit: Unit) -> None:
    assert _run(unit) == 3
