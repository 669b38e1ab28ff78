"""Runs the bench of the load unit, on both bundled shapes, beside memory models and alone."""

import dataclasses

import pytest

from hw.core.load import LoadUnit
from hw.spec.machine import MachineSpec
from hw.spec.machine_file import load_machine
from sim_tests.bench import run_bench, to_verilog
from sim_tests.memory_system import LoadSystem, system_verilog

BENCH = "sim_tests.bench_load"


def small_buffers(target: str) -> MachineSpec:
    """A bundled target with shallow buffers, so that rings wrap often, and little memory."""
    spec = load_machine(target)
    return dataclasses.replace(
        spec,
        stream_words=64,
        scale_words=32,
        input_words=64,
        memory=dataclasses.replace(spec.memory, words=2048),
    )


def as_parameters(spec: MachineSpec, system: bool) -> dict[str, object]:
    return {"spec": spec.to_dict(), "system": system, "rounds": 12}


@pytest.mark.parametrize("target", ["tiny", "small"])
def test_load_on_memory_models(target: str) -> None:
    spec = small_buffers(target)
    netlist = system_verilog(LoadSystem(spec))
    only = "ends_in|takes_words"
    result = run_bench(
        "load_system", netlist, BENCH, parameters=as_parameters(spec, True), only=only
    )
    assert result.tests == 2


@pytest.mark.parametrize("target", ["tiny", "small"])
def test_load_on_slow_slaves(target: str) -> None:
    spec = small_buffers(target)
    netlist = to_verilog(LoadUnit(spec))
    result = run_bench(
        "load", netlist, BENCH, parameters=as_parameters(spec, False), only="works_with"
    )
    assert result.tests == 3
