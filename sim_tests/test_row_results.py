"""Runs the bench of reductions over all cores, and checks that it finds faults."""

import dataclasses
import functools

import pytest

from hw.core.exchange import RowResults
from hw.spec.machine_file import load_machine
from hw.verilog import convert
from sim_tests.bench import run_bench

BENCH = "sim_tests.bench_row_results"
SHAPES = {"two cores": (2, 4), "three cores, near": (3, 1)}
"""Cores and latency."""


@functools.cache
def netlist(name: str) -> str:
    """Verilog of the network."""
    cores, latency = SHAPES[name]
    spec = dataclasses.replace(load_machine("two-core"), cores=cores, exchange_latency=latency)
    return convert(RowResults(spec), "top")


def run(name: str, text: str, label: str) -> int:
    """Tests that pass."""
    cores, latency = SHAPES[name]
    return run_bench(label, text, BENCH, parameters={"cores": cores, "latency": latency}).tests


@pytest.mark.parametrize("name", list(SHAPES))
def test_row_results(name: str) -> None:
    assert run(name, netlist(name), f"row_results_{SHAPES[name][0]}") == 1


FAULTS = {
    "the smallest": ("result__1[33:2] > result__0[33:2]", "result__1[33:2] < result__0[33:2]"),
    "core 1 is not added": ("_00_ + result__1[65:2]", "_00_"),
    "one cycle early": ("_07_ = combined_2;", "_07_ = combined_1;"),
    "sums are taken for keys": ("result__0[1] ? _01_", "1'b0 ? _01_"),
}


@pytest.mark.parametrize("name", list(FAULTS))
def test_a_fault_is_found(name: str) -> None:
    right, wrong = FAULTS[name]
    text = netlist("two cores")
    assert text.count(right) == 1
    with pytest.raises(AssertionError, match="tests failed"):
        run("two cores", text.replace(right, wrong), "row_results_faulty")
