"""Load and store: against loops over single bytes that follow docs/isa.md word for word."""

import dataclasses
import random
import zlib

import numpy as np
import pytest

from emulator.errors import IllegalInstruction
from emulator.state import MachineState
from emulator.units import load, store
from hw.spec.instructions import Destination, Pattern
from hw.spec.machine import MachineSpec
from hw.spec.machine_file import load_machine


@pytest.fixture(params=["tiny", "small", "narrow"])
def spec(request: pytest.FixtureRequest) -> MachineSpec:
    narrow = request.param == "narrow"
    machine = load_machine("small" if narrow else request.param)
    if narrow:
        # Four rows of the vector unit in a word.
        machine = dataclasses.replace(machine, vector_lanes=2, drain_lanes=2)
    memory = dataclasses.replace(machine.memory, words=256)
    return dataclasses.replace(
        machine, stream_words=32, scale_words=16, input_words=32, store_rows=16, memory=memory
    )


def random_state(spec: MachineSpec, seed: int) -> MachineState:
    generator = np.random.default_rng(seed)
    state = MachineState(spec)
    state.memory[:] = generator.integers(0, 256, state.memory.shape, np.uint8)
    state.store[:] = generator.integers(0, 256, state.store.shape, np.uint8)
    return state


def test_load_by_words(spec: MachineSpec) -> None:
    rng = random.Random(1)
    state = random_state(spec, 1)
    depths = (spec.stream_words, spec.scale_words, spec.input_words)
    expected = [[bytes(spec.word_bytes)] * depth for depth in depths]
    pointers = [0, 0, 0]
    for _ in range(100):
        target = rng.choice(list(Destination))
        length, buffer = rng.randint(1, 70), rng.getrandbits(16)
        address = rng.getrandbits(28)
        operation = {"sync": 0, "destination": int(target), "random": 0}
        operation |= {"address": address, "length": length, "buffer": buffer}
        words = [state.memory[(address + i) % 256].tobytes() for i in range(length)]
        if target == Destination.INPUT:
            pointers[target] = buffer
        for word in words:
            expected[target][pointers[target] % depths[target]] = word
            pointers[target] += 1
        assert load.execute(state, operation) == zlib.crc32(b"".join(words))
    assert state.stream.tobytes() == b"".join(expected[0])
    assert state.scale_ring.tobytes() == b"".join(expected[1])
    assert state.input.tobytes() == b"".join(expected[2])
    assert [state.stream_write, state.scale_write] == pointers[:2]


def test_store_by_bytes(spec: MachineSpec) -> None:
    rng = random.Random(2)
    state = random_state(spec, 2)
    memory = bytearray(state.memory.tobytes())
    content, word = state.store.tobytes(), spec.word_bytes
    lanes = {Pattern.COLUMN: spec.matrix_rows, Pattern.SPREAD: 4, Pattern.SCALAR: spec.lanes}
    for _ in range(300):
        pattern = rng.choice(list(Pattern))
        steps, rows, lane = rng.randint(1, 6), rng.randint(1, 9), rng.randrange(lanes[pattern])
        address, pitch = rng.getrandbits(28), rng.choice([0, 1, 2, 7, 1 << 20])
        source, source_pitch = rng.getrandbits(16), rng.choice([0, 1, 5, 40000])
        stream = bytearray()
        for row in range(rows):
            taken = 4 * (source + row * source_pitch)
            count = {Pattern.COLUMN: 2 * steps, Pattern.SPREAD: 2, Pattern.SCALAR: 1}[pattern]
            beats = [(bytearray(word), bytearray(word // 8)) for _ in range(count)]
            for i in range(
                spec.matrix_rows if pattern == Pattern.SPREAD else 4 * ((count + 1) // 2)
            ):
                if pattern == Pattern.SPREAD:
                    position = 4 * i + lane
                else:
                    position = i // 4 * 2 * word + 4 * lane + i % 4
                byte = content[(taken + i) % len(content)]
                data, strobe = beats[position // word]
                data[position % word] = byte
                strobe[position % word // 8] |= 1 << position % 8
                memory[((address + row * pitch) * word + position) % len(memory)] = byte
            for data, strobe in beats:
                stream += data + strobe
        operation = {
            "sync": 0,
            "pattern": int(pattern),
            "address": address,
            "lane": lane,
            "rows": rows,
        }
        operation |= {
            "pitch": pitch,
            "steps": steps,
            "source": source,
            "source_pitch": source_pitch,
        }
        assert store.execute(state, operation) == zlib.crc32(stream)
    assert state.memory.tobytes() == bytes(memory)


LOAD = {"sync": 0, "destination": 0, "random": 0, "address": 0, "length": 1, "buffer": 0}
STORE = {"sync": 0, "pattern": 0, "address": 0, "lane": 0, "rows": 1}
STORE |= {"pitch": 0, "steps": 1, "source": 0, "source_pitch": 0}


@pytest.mark.parametrize("change", [{"length": 0}, {"destination": 3}])
def test_illegal_loads(spec: MachineSpec, change: dict[str, int]) -> None:
    with pytest.raises(IllegalInstruction):
        load.execute(MachineState(spec), LOAD | change)
    assert load.execute(MachineState(spec), LOAD | change | {"sync": 1}) == 0


@pytest.mark.parametrize(
    "change",
    [{"rows": 0}, {"steps": 0}, {"pattern": 3}, {"pattern": 1, "lane": 4}, {"lane": 1000}],
)
def test_illegal_stores(spec: MachineSpec, change: dict[str, int]) -> None:
    with pytest.raises(IllegalInstruction):
        store.execute(MachineState(spec), STORE | change)
    assert store.execute(MachineState(spec), STORE | change | {"sync": 1}) == 0


def test_steps_count_only_in_columns(spec: MachineSpec) -> None:
    assert store.execute(MachineState(spec), STORE | {"pattern": int(Pattern.SCALAR), "steps": 0})
