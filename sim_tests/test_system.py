"""Runs the SYS unit's bench, and checks that it finds faults."""

import dataclasses

import pytest

from hw.core.system import SystemUnit
from hw.spec.machine import load_machine
from hw.verilog import convert
from sim_tests.bench import run_bench

BENCH = "sim_tests.bench_system"
SPEC = dataclasses.replace(load_machine("tiny"), tokens=32)


def test_system() -> None:
    netlist = convert(SystemUnit(SPEC), "top")
    assert run_bench("system", netlist, BENCH, parameters={"tokens": SPEC.tokens}).tests == 4


@pytest.mark.parametrize(
    "right, wrong", [("position < prompt_length", "position <= prompt_length")]
)
def test_a_fault_is_found(right: str, wrong: str) -> None:
    netlist = convert(SystemUnit(SPEC), "top")
    assert right in netlist
    with pytest.raises(AssertionError, match="of 3 tests failed"):
        run_bench(
            "system_faulty",
            netlist.replace(right, wrong),
            BENCH,
            parameters={"tokens": SPEC.tokens},
            only="takes_tokens",
        )
