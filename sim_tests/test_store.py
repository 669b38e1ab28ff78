"""Runs the bench of the store unit, on both bundled shapes, beside memory models and alone."""

import dataclasses

import pytest

from hw.core.store import StoreUnit
from hw.spec.machine import MachineSpec
from hw.spec.machine_file import load_machine
from sim_tests.bench import run_bench, to_verilog
from sim_tests.memory_system import StoreSystem, system_verilog

BENCH = "sim_tests.bench_store"


def small_buffers(target: str) -> MachineSpec:
    """A bundled target with a shallow buffer and little memory."""
    spec = load_machine(target)
    return dataclasses.replace(
        spec, store_rows=32, memory=dataclasses.replace(spec.memory, words=2048)
    )


def as_parameters(spec: MachineSpec, system: bool) -> dict[str, object]:
    return {"spec": spec.to_dict(), "system": system, "rounds": 12}


@pytest.mark.parametrize("target", ["tiny", "small"])
def test_store_on_memory_models(target: str) -> None:
    spec = small_buffers(target)
    netlist = system_verilog(StoreSystem(spec))
    result = run_bench(
        "store_system", netlist, BENCH, parameters=as_parameters(spec, True), only="ends_in"
    )
    assert result.tests == 1


@pytest.mark.parametrize("target", ["tiny", "small"])
def test_store_on_slow_slaves(target: str) -> None:
    spec = small_buffers(target)
    netlist = to_verilog(StoreUnit(spec))
    result = run_bench(
        "store", netlist, BENCH, parameters=as_parameters(spec, False), only="works_with"
    )
    assert result.tests == 6
