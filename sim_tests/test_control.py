"""Runs the bench of the host control."""

from hw.core.control import Control
from hw.spec.machine import load_machine
from hw.verilog import convert
from sim_tests.bench import run_bench


def test_control() -> None:
    spec = load_machine("tiny")
    netlist = convert(Control(spec), "top")
    assert run_bench("control", netlist, "sim_tests.bench_control").tests == 11
