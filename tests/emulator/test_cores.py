"""Machines of several cores: one program, each core's own memory, exchanges and the best token of all."""

import dataclasses
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emulator.machine import Machine
from emulator.state import MachineState, order_key
from emulator.timing import TimingEngine
from emulator.units import system
from hw.spec.instructions import Opcode, Unit
from hw.spec.program import Program, load_program, save_program
from tests.emulator.programs import (
    MACHINE,
    Line,
    count,
    execute,
    load,
    mask,
    program,
    store,
    vector,
)

LD, ST, _, SFU, SYS = (mask(unit) for unit in Unit)
CORES = 4
MACHINE_OF_CORES = replace(MACHINE, cores=CORES)
LANES = MACHINE.lanes
PROMPT = [1]


def with_memories(lines: dict[str, list[Line]], words: int = 8) -> Program:
    """A program whose cores have other numbers in their memories."""
    rng = np.random.default_rng(5)
    values = rng.normal(size=(CORES, words, MACHINE.word_bytes // 4)).astype(np.float32)
    code = program(MACHINE_OF_CORES, **lines)
    return dataclasses.replace(code, memory=values.view(np.uint8))


def numbers(code: Program) -> np.ndarray:
    return code.memory.view(np.float32)


def test_every_core_has_its_own_memory() -> None:
    length = 8
    code = with_memories({
        "LD": [load(8, signal=SFU, destination=2)],
        "SFU": [vector(length, wait=LD, signal=ST, a_source=1, target=5)],
        "ST": [store(wait=SFU, address=20)],
    })
    machine = Machine(code)
    machine.run(PROMPT, 1)
    checksums = set()
    for core, (state, image) in enumerate(zip(machine.states, code.images, strict=True)):
        assert (state.memory[:8] == image).all()
        assert state.memory[20].view(np.float32)[0] == numbers(code)[core, 0, 0]
        trace = machine.core_traces[core]
        assert trace[Unit.LD].checksum == [zlib.crc32(image.tobytes())]
        checksums.add(trace[Unit.LD].checksum[0])
    assert len(checksums) == CORES
    assert machine.state is machine.states[0] and machine.traces is machine.core_traces[0]


def test_an_exchange_puts_the_parts_of_a_vector_together() -> None:
    length, beats = 8, 8 // LANES
    code = with_memories({
        "LD": [load(8, signal=SFU, destination=2)],
        "SFU": [vector(length, wait=LD, a_source=1, d_base=3, exchange=1, exchange_pitch=beats)],
    })
    machine = Machine(code)
    machine.run(PROMPT, 1)
    parts = [image.reshape(-1)[:length] for image in numbers(code)]
    for state, traces in zip(machine.states, machine.core_traces, strict=True):
        whole = state.vector.reshape(-1)[3 * LANES :][: CORES * length]
        assert np.array_equal(whole, np.concatenate(parts))
        assert traces[Unit.SFU].checksum == machine.traces[Unit.SFU].checksum


@pytest.mark.parametrize("check, trace", [(True, True), (False, False)])
def test_the_best_token_of_all_cores_wins(check: bool, trace: bool) -> None:
    length = 16
    code = with_memories({
        "LD": [load(8, signal=SFU, destination=2)],
        "SFU": [vector(length, wait=LD, signal=SYS, a_source=1, target=0, reduce=4)],
        # Position 0 belongs to the prompt.
        "SYS": [(Opcode.INCREMENT, count("count", 1)), execute(wait=SFU)],
    })
    machine = Machine(code, check=check, trace=trace)
    machine.run(PROMPT, 1)
    values = [image.reshape(-1)[:length] for image in numbers(code)]
    core = int(np.argmax([part.max() for part in values]))
    expected = int(values[core].argmax()) * CORES + core
    assert [state.token for state in machine.states] == [expected] * CORES
    assert [int(state.tokens[1]) for state in machine.states] == [expected] * CORES


@pytest.mark.parametrize(
    "candidates, token",
    [
        ([(1.0, 5), (2.0, 3), (1.5, 0), (-1.0, 0)], 3 * CORES + 1),
        ([(2.0, 5), (2.0, 3), (2.0, 4), (2.0, 3)], 3 * CORES + 1),
        ([(-0.0, 1), (0.0, 9), (-0.0, 0), (-3.0, 0)], 9 * CORES + 1),
        ([(-5.0, 7), (None, 0), (None, 0), (-2.0, 8)], 8 * CORES + 3),
        ([(None, 0)] * 4, 0),
    ],
)
def test_ties_and_zeros(candidates: list[tuple[float | None, int]], token: int) -> None:
    states = [MachineState(MACHINE) for _ in range(CORES)]
    for state, (value, index) in zip(states, candidates, strict=True):
        state.best_value, state.best_index = value, index
        assert state.best_value == value
    assert system.best_token(states) == token


def test_the_order_of_numbers() -> None:
    values = [-3.4e38, -2.0, -1e-38, -0.0, 0.0, 1e-38, 2.0, 3.4e38]
    assert sorted(values, key=order_key) == values
    assert len({order_key(value) for value in values}) == len(values)


def test_cores_take_the_cycles_of_one() -> None:
    lines = {"LD": [load(8, signal=SFU, destination=2)], "SFU": [vector(8, wait=LD, a_source=1)]}
    one, all_ = (
        TimingEngine(program(**lines)).run(1, 1),
        TimingEngine(with_memories(lines)).run(1, 1),
    )
    assert (one.cycles, one.busy, one.bytes_read) == (all_.cycles, all_.busy, all_.bytes_read)


def test_a_program_of_several_cores_comes_back_as_it_was(tmp_path: Path) -> None:
    code = with_memories({})
    path = tmp_path / "p.lpu"
    save_program(code, path)
    again = load_program(path)
    assert again.memory.shape == (CORES, 8, MACHINE.word_bytes)
    assert np.array_equal(again.memory, code.memory)
    assert len(again.images) == CORES
    with pytest.raises(ValueError, match="an image for each of 4 cores"):
        save_program(dataclasses.replace(code, memory=code.memory[0]), path)
