"""The compiled units against those in NumPy: operations of all kinds, to the bit."""

import dataclasses
import random
from itertools import islice

import numpy as np
import pytest

from emulator.errors import IllegalInstruction
from emulator.kernels import layout
from emulator.kernels.matrix import format_of
from emulator.kernels.matrix import matrix as matrix_kernel
from emulator.kernels.transfer import load as load_kernel
from emulator.kernels.transfer import next_token
from emulator.kernels.transfer import store as store_kernel
from emulator.kernels.vector import vector as vector_kernel
from emulator.state import Arrays, MachineState, allocate
from emulator.units import load, matrix, store, system, vector
from hw.spec.instructions import Reduce, Target, Unit, operation_fields
from hw.spec.machine import MachineSpec
from sim_tests.vector_operations import combinations, fill, random_operation, random_patterns
from tests.emulator.units import test_matrix as matrix_tests
from tests.emulator.units.test_vector import CORES
from tests.emulator.units.test_vector import SPECS as VECTOR_SPECS


class Pair:
    """The same machine twice: states for NumPy, arrays for the kernels."""

    def __init__(self, spec: MachineSpec, seed: int) -> None:
        self.spec = spec
        self.reference, self.arrays = allocate(spec), allocate(spec)
        self.states = [MachineState(spec, self.reference, core) for core in range(spec.cores)]
        self.flat, self.room = layout.flat(self.arrays), layout.scratch(spec)
        self.parameters, self.formats = layout.parameters(spec), layout.format_table(spec)
        self.rng = np.random.default_rng(seed)
        for state in self.states:
            state.checked = False

    def same(self) -> None:
        """Give the kernels what the states hold."""
        for theirs, ours in zip(self.arrays, self.reference, strict=True):
            theirs[...] = ours

    def compare(self, where: object) -> None:
        """Everything but the accumulators that the last pass did not use."""
        for name in Arrays._fields:
            ours, theirs = getattr(self.reference, name), getattr(self.arrays, name)
            if name == "accumulators":
                used = self.states[0].accumulated_columns
                ours, theirs = ours[:, :used], theirs[:, :used]
            assert ours.tobytes() == theirs.tobytes(), (name, where)

    def operation(self, unit: Unit, fields: dict[str, int]) -> np.ndarray:
        """The fields as a kernel takes them."""
        op = np.zeros(layout.OPERATION_COLUMNS, np.int64)
        for name, _ in operation_fields(unit):
            op[layout.COLUMNS[unit][name]] = fields[name]
        return op

    def matrix(self, fields: dict[str, int]) -> bool:
        op = self.operation(Unit.MPE, fields)
        step = self.formats[format_of(op)]
        return matrix_kernel(self.flat, 0, op, self.parameters, step, self.room)

    def vector(self, fields: dict[str, int]) -> bool:
        op = self.operation(Unit.SFU, fields)
        return vector_kernel(self.flat, op, self.parameters, self.room)


MATRIX_SPECS = {
    **matrix_tests.SPECS,
    "wide": dataclasses.replace(
        matrix_tests.SPECS["small"], channels=8, drain_lanes=8, **matrix_tests.WHOLE
    ),
}


@pytest.mark.parametrize("target", list(MATRIX_SPECS))
@pytest.mark.parametrize("seed", range(3))
def test_matrix(target: str, seed: int) -> None:
    spec = MATRIX_SPECS[target]
    pair = Pair(spec, seed)
    state, rng = pair.states[0], pair.rng
    for buffer in (state.stream, state.scale_ring, state.activation, state.matrix_scales):
        buffer.view(np.uint8)[...] = rng.integers(0, 256, buffer.view(np.uint8).shape, np.uint8)
    state.matrix_scales[::2] = rng.normal(size=state.matrix_scales[::2].shape)
    state.stream_read, state.scale_read = spec.stream_words - 6, spec.scale_words - 2
    pair.same()
    for number in range(60):
        step = spec.step_formats[(seed * 60 + number) % len(spec.step_formats)]
        fields = matrix_tests.random_operation(rng, state, step)
        matrix.execute(state, fields)
        assert pair.matrix(fields)
        pair.compare(fields)


def test_matrix_sums_wrap() -> None:
    spec = MATRIX_SPECS["tiny"]
    pair = Pair(spec, 0)
    state = pair.states[0]
    state.stream[:] = 0x80
    state.activation[:] = -128
    state.scale_ring.view(np.uint16)[:] = 0x7FFF
    state.matrix_scales[:] = 1
    pair.same()
    steps = 1 << 15
    for first in (1, 0, 0, 0, 0):
        fields = matrix_tests.operation(steps=steps, scaled=1, group_steps=steps, first=first)
        matrix.execute(state, fields)
        assert pair.matrix(fields)
        pair.compare(first)


def test_every_scale() -> None:
    pair = Pair(MATRIX_SPECS["small"], 1)
    state = pair.states[0]
    state.stream[...] = pair.rng.integers(0, 256, state.stream.shape, np.uint8)
    state.activation[...] = pair.rng.integers(-128, 128, state.activation.shape)
    state.matrix_scales[:] = 1
    for begin in range(0, 1 << 16, 8192):
        state.scale_ring.view(np.uint16).reshape(-1)[:] = np.arange(begin, begin + 8192)
        pair.same()
        fields = matrix_tests.operation(scaled=1, group_steps=1, blocks=512)
        matrix.execute(state, fields)
        assert pair.matrix(fields)
        pair.compare(begin)


@pytest.mark.parametrize(
    "fields", list(matrix_tests.ILLEGAL.values()), ids=list(matrix_tests.ILLEGAL)
)
def test_illegal_matrix_operations(fields: dict[str, int]) -> None:
    assert not Pair(MATRIX_SPECS["whole"], 0).matrix(matrix_tests.operation(**fields))


@pytest.mark.parametrize("target", [*VECTOR_SPECS, "cores"])
def test_vector(target: str) -> None:
    spec = CORES if target == "cores" else VECTOR_SPECS[target]
    rng = random.Random(target)
    pair = Pair(spec, 5)
    for number, fields in enumerate(islice(combinations(rng), 500)):
        if number % 20 == 0:
            for state in pair.states:
                fill(state, pair.rng)
            pair.same()
        if number % 5 == 0:
            written = rng.choice([Target.VECTOR, Target.ACTIVATION])
            fields |= {"reduce": 0, "target": int(written), "exchange": 1}
        values = random_operation(rng, spec, fields)
        if values["exchange"]:
            vector.exchange(pair.states, values)
        else:
            for state in pair.states:
                vector.execute(state, values)
        assert pair.vector(values)
        pair.compare(values)


@pytest.mark.parametrize("function", range(5))
@pytest.mark.parametrize("reduce", list(Reduce))
def test_special_values(function: int, reduce: Reduce) -> None:
    spec = dataclasses.replace(VECTOR_SPECS["small"], input_words=1 << 12, vector_rows=1 << 12)
    pair = Pair(spec, 100 * function + reduce)
    state, length = pair.states[0], 1 << 14
    for begin, shift in ((0, 0), (1 << 14, 1), (0, 13)):
        numbers = random_patterns(pair.rng, state.input.size)
        # Neighbours of powers of two, and products and sums at both ends of the range.
        numbers[::3] = (
            (pair.rng.integers(0, 512, numbers[::3].shape) << 23).astype(np.uint32).view(np.float32)
        )
        numbers.view(np.uint32)[::6] += pair.rng.integers(0, 3, numbers[::6].shape).astype(
            np.uint32
        )
        state.input[...] = numbers.reshape(state.input.shape)
        pair.same()
        fields = {name: 0 for name, _ in operation_fields(Unit.SFU)} | {
            "function": function,
            "reduce": int(reduce),
            "target": int(Target.NONE if reduce else Target.VECTOR),
            "rows": 1,
            "length": length,
            "a_source": 1,
            "b_source": 1,
            "c_source": 1 if shift != 13 else 0,
            "a": begin // spec.lanes,
            "b": shift,
            "c": 3 * shift,
        }
        vector.execute(state, fields)
        assert pair.vector(fields)
        pair.compare(fields)


def test_illegal_vector_operations() -> None:
    spec = VECTOR_SPECS["small"]
    pair = Pair(spec, 0)
    rng = random.Random(4)
    legal = illegal = 0
    for _ in range(3000):
        fields = {name: 0 for name, _ in operation_fields(Unit.SFU)} | {
            "function": rng.randrange(6),
            "reduce": rng.randrange(6),
            "target": rng.randrange(8),
            "rows": rng.choice([0, 1, 1, 2]),
            "length": rng.choice([0, 3, 8]),
            "a_source": rng.randrange(8),
            "b_source": rng.randrange(8),
            "c_source": rng.randrange(8),
            "exchange": rng.choice([0, 0, 1]),
        }
        try:
            vector.execute(pair.states[0], fields)
        except IllegalInstruction:
            illegal += 1
            assert not pair.vector(fields), fields
        else:
            legal += 1
            assert pair.vector(fields), fields
    assert min(legal, illegal) > 50


@pytest.mark.parametrize("target", ["tiny", "narrow"])
def test_load_and_store(target: str) -> None:
    spec = VECTOR_SPECS[target]
    spec = dataclasses.replace(spec, memory=dataclasses.replace(spec.memory, words=256))
    pair = Pair(spec, 3)
    state, rng = pair.states[0], random.Random(8)
    for buffer in (state.memory, state.store):
        buffer[...] = pair.rng.integers(0, 256, buffer.shape, np.uint8)
    pair.same()
    for _ in range(400):
        unit = rng.choice([Unit.LD, Unit.ST])
        fields = {name: rng.getrandbits(width) for name, width in operation_fields(unit)}
        fields["sync"] = 0
        if unit == Unit.LD:
            fields["length"] = rng.randrange(70)
        else:
            fields |= {
                "rows": rng.randrange(6),
                "steps": rng.randrange(4),
                "lane": rng.randrange(20),
            }
        golden, kernel = (load, load_kernel) if unit == Unit.LD else (store, store_kernel)
        try:
            golden.execute(state, fields)
            legal = True
        except IllegalInstruction:
            legal = False
        op = pair.operation(unit, fields)
        assert kernel(pair.flat, 0, op, pair.parameters) == legal, fields
        pair.compare(fields)


def test_tokens() -> None:
    pair = Pair(CORES, 3)
    rng = random.Random(2)
    for _ in range(300):
        for state in pair.states:
            state.best_value = rng.choice([None, -1.0, -0.0, 0.0, 2.0])
            state.best_index = rng.randrange(3)
            state.prompt_length, state.steps = 3, 7
            state.stop_tokens = (4, 8)
            state.forced = [5] * rng.choice([0, 0, 2])
        pair.same()
        position = rng.randrange(10)
        system.execute_cores(pair.states, {"position": position})
        forced = np.array(pair.states[0].forced, np.int64)
        host, stops = np.array([3, 7]), np.array([4, 8])
        next_token(pair.flat, position, host, stops, forced, pair.parameters)
        pair.compare(position)
