"""Runs the bench of the host control, for one core and for each of two."""

import dataclasses

import pytest

from hw.core.control import Control
from hw.spec.machine_file import load_machine
from hw.verilog import convert
from sim_tests.bench import run_bench


@pytest.mark.parametrize("cores, core", [(1, 0), (2, 0), (2, 1)])
def test_control(cores: int, core: int) -> None:
    spec = dataclasses.replace(load_machine("tiny"), cores=cores)
    netlist = convert(Control(spec), "top")
    parameters = {"spec": spec.to_dict(), "core": core}
    result = run_bench(
        f"control_{cores}", netlist, "sim_tests.bench_control", parameters=parameters
    )
    assert result.tests == 11
