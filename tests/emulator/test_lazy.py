"""Memories larger than this computer's."""

import sys

import numpy as np
import pytest

from emulator.lazy import zeros
from emulator.machine import Machine
from hw.spec.instructions import Unit
from hw.spec.machine_file import load_machine
from tests.emulator.programs import load, mask, program, store, vector

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has such pages")


@pytest.mark.parametrize("size", [1000, 1 << 28])
def test_zeros(size: int) -> None:
    array = zeros((2, size // 8), np.int32)
    assert array.shape == (2, size // 8) and array.dtype == np.int32
    assert not array[:, :100].any() and array[1, -1] == 0
    array[1, -1] = 5
    assert array[1, -1] == 5


@linux
def test_a_machine_of_many_gibibytes_takes_what_it_writes() -> None:
    machine = load_machine("large")
    assert machine.memory.words * machine.word_bytes == 32 << 30
    last = machine.memory.words - 1
    code = program(
        machine,
        SFU=[vector(1, signal=mask(Unit.ST), target=5, a_source=1)],
        ST=[store(wait=mask(Unit.SFU), address=last, signal=mask(Unit.LD))],
        LD=[load(1, wait=mask(Unit.ST), address=last, destination=2)],
    )
    state, _ = Machine(code).run([1], 1)
    assert state.memory.shape == (machine.memory.words, machine.word_bytes)
    assert not state.memory[last].any()
