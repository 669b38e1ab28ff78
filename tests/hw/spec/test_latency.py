"""Latencies: how they follow the machine, and that the contract names each constant."""

import dataclasses
from pathlib import Path

import pytest

from hw.spec import latency
from hw.spec.machine import MachineSpec
from hw.spec.machine_file import load_machine
from hw.spec.targets import list_targets

ROOT = Path(__file__).resolve().parents[3]
MACHINES = [load_machine(name) for name in list_targets()]
each_machine = pytest.mark.parametrize("spec", MACHINES, ids=lambda spec: spec.name)


@each_machine
def test_a_block_takes_its_steps_or_its_drain_whichever_is_longer(spec: MachineSpec) -> None:
    one = latency.matrix_cycles(spec, 1, 1)
    assert one == latency.matrix_latency(spec) + 2 * spec.drain_cycles
    assert latency.matrix_cycles(spec, 1, spec.drain_cycles) == one
    assert latency.matrix_cycles(spec, 1, spec.drain_cycles + 1) == one + 1
    for blocks in (2, 7):
        more = latency.matrix_cycles(spec, blocks, 100) - latency.matrix_cycles(spec, 1, 100)
        assert more == (blocks - 1) * max(100, spec.drain_cycles)


@each_machine
def test_a_row_takes_whole_granules(spec: MachineSpec) -> None:
    for length in (1, spec.granule - 1, spec.granule, spec.granule + 1, 1000):
        beats = latency.vector_beats(spec, length)
        assert beats * spec.lanes >= length
        assert beats * spec.lanes % spec.granule == 0
        assert beats * spec.lanes - length < spec.granule
        assert latency.vector_cycles(spec, 3, length) == latency.vector_latency(spec) + 3 * beats


def test_the_tree_of_more_lanes_is_deeper() -> None:
    spec = load_machine("tiny")
    cycles = [
        latency.vector_tree_cycles(dataclasses.replace(spec, bus_bytes=4 * lanes))
        for lanes in (2, 4, 8, 16, 32)
    ]
    assert cycles == [1, 1, 2, 2, 3]


def test_the_contract_names_the_constants_it_uses() -> None:
    contract = (ROOT / "docs" / "isa.md").read_text()
    constants = [
        name for name in vars(latency) if name.endswith("_CYCLES") and name.count("_") == 1
    ]
    constants += ["matrix_latency", "vector_latency"]
    for name in constants:
        assert name in contract, name
