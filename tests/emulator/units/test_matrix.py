"""The matrix engine's golden model against the manual, element by element in Python integers."""

import dataclasses
import itertools
import zlib
from typing import Any

import numpy as np
import pytest

from emulator.errors import IllegalInstruction
from emulator.numerics.floating import from_integer, multiply
from emulator.state import MachineState
from emulator.units import matrix
from hw.spec.instructions import Unit, operation_fields
from hw.spec.layout import pack_weights
from hw.spec.machine_file import load_machine
from hw.spec.weight_format import KEPT, StepFormat, WeightFormat

WHOLE = {
    "weight_formats": tuple(weight.name for weight in WeightFormat),
    "sparse": 1,
    "matrix_columns": 2,
}
SPECS = {
    **{name: load_machine(name) for name in ("tiny", "small")},
    "whole": dataclasses.replace(load_machine("tiny"), **WHOLE),
    "scalers": dataclasses.replace(
        load_machine("small"), **WHOLE, rows_per_scaler=4, vector_lanes=4
    ),
}


def operation(**values: int) -> dict[str, int]:
    """An instruction of one INT8 block and one vector, unless said otherwise."""
    fields = {name: 0 for name, _ in operation_fields(Unit.MPE)}
    return (
        fields | {"first": 1, "last": 1, "pop": 1, "blocks": 1, "steps": 1, "vectors": 1} | values
    )


def step_fields(step: StepFormat) -> dict[str, int]:
    """The fields that say what steps are made of."""
    return {"format": int(step.weight), "kept": KEPT.index(step.kept), "bitmap": int(step.bitmap)}


def random_state(target: str, seed: int) -> MachineState:
    """All buffers that the engine reads full of random bits."""
    rng = np.random.default_rng(seed)
    state = MachineState(SPECS[target])
    for buffer in (state.stream, state.scale_ring, state.activation.view(np.uint8)):
        buffer[...] = rng.integers(0, 256, buffer.shape, np.uint8)
    state.matrix_scales[:] = rng.normal(size=state.matrix_scales.shape).astype(np.float32)
    return state


def signed(value: int, bits: int) -> int:
    """Two's complement."""
    value &= (1 << bits) - 1
    return value - (value >> bits - 1 << bits)


FP4 = [0, 1, 2, 3, 4, 6, 8, 12]


class Manual:
    """What the manual says, one product at a time."""

    def __init__(self, state: MachineState, fields: dict[str, int]) -> None:
        self.spec, self.state, self.fields = state.spec, state, fields
        self.stream = int.from_bytes(state.stream.tobytes(), "little")
        self.codes = state.scale_ring.view(np.uint16).tolist()
        self.weight = WeightFormat(fields["format"])
        self.each = 4 if self.weight in (WeightFormat.INT8, WeightFormat.INT5) else 8
        self.kept = KEPT[fields["kept"]]
        # Words of a step: metadata and weights; dense steps may end within a word.
        self.front = 0
        if self.kept:
            self.front = 1 if fields["bitmap"] or self.each == 4 else 2
        size = 8 * self.spec.word_bytes
        bits = self.spec.matrix_rows * self.each * self.weight.bits
        self.step_bits = bits if not self.kept else size * (self.front - -bits // size)
        self.block_words = -(-fields["steps"] * self.step_bits // size)

    def take(self, position: int, bits: int) -> int:
        """Bits of the ring from a bit position on, which wraps."""
        size = 8 * self.spec.word_bytes * self.spec.stream_words
        position %= size
        double = self.stream >> position | self.stream << (size - position)
        return double & ((1 << bits) - 1)

    def pair(self, block: int, step: int, row: int, j: int) -> tuple[int, int]:
        """Weight j of a row, and the element that it meets."""
        word = self.state.stream_read + block * self.block_words
        begin = 8 * self.spec.word_bytes * word + step * self.step_bits
        bits, at = self.weight.bits, row * self.each + j
        code = self.take(begin + 8 * self.spec.word_bytes * self.front + at * bits, bits)
        value = signed(code, bits)
        if self.weight is WeightFormat.FP4:
            value = -FP4[code & 7] if code & 8 else FP4[code]
        element = self.each * step + j
        if self.fields["bitmap"]:
            bitmap = self.take(begin + 16 * row, 16)
            chosen = [i for i in range(16) if bitmap >> i & 1]
            element = 16 * (element // self.kept) + (chosen[j] if j < len(chosen) else 0)
        elif self.kept:
            element = 16 * (element // self.kept) + self.take(begin + 4 * at, 4)
        return value, element

    def block(self, block: int, vector: int, accumulators: list[int]) -> list[int]:
        """Accumulators of one block and vector."""
        fields, activation = self.fields, self.state.activation
        group_steps = fields["group_steps"] if fields["scaled"] else fields["steps"]
        groups = fields["steps"] // group_steps
        base = 4 * (fields["activation"] + vector * fields["activation_pitch"])
        result = []
        for row, accumulator in enumerate(accumulators):
            for group in range(groups):
                total = 0
                for step in range(group * group_steps, (group + 1) * group_steps):
                    for j in range(self.each):
                        weight, element = self.pair(block, step, row, j)
                        total += weight * int(activation[(base + element) % len(activation)])
                total, mantissa, shift, sign = signed(total, 32), 1, 24, 0
                if fields["scaled"]:
                    word = self.state.scale_read + block * groups + group
                    code = self.codes[word % len(self.codes)][row]
                    exponent = code >> 10 & 31
                    mantissa = (code & 1023) + (1024 if exponent else 0)
                    shift, sign = max(exponent, 1) - 1, code >> 15
                accumulator += (-total if sign else total) * mantissa << shift
            result.append(signed(accumulator, 64))
        return result

    def execute(self) -> dict[str, Any]:
        """State behind the instruction, and its checksum."""
        state, fields, spec = self.state, self.fields, self.spec
        kept = state.accumulators.tolist()
        result, written = state.result.copy(), b""
        for block in range(fields["blocks"]):
            for vector in range(fields["vectors"]):
                column = vector % spec.matrix_columns
                begin = [0] * spec.matrix_rows if fields["first"] else kept[column]
                kept[column] = self.block(block, vector, begin)
                if not fields["last"]:
                    continue
                entry = fields["scale"] + vector * fields["scale_pitch"]
                scale = state.matrix_scales[entry % spec.matrix_scales]
                outputs = multiply(from_integer(np.array(kept[column]), 24), scale)
                written += outputs.tobytes()
                first = fields["result"] + vector * fields["result_pitch"] + block * spec.block_rows
                for row, values in enumerate(outputs.reshape(-1, spec.lanes)):
                    result[(first + row) % len(result)] = values
        last = (fields["vectors"] - 1) % spec.matrix_columns + 1
        moved = fields["blocks"] if fields["pop"] else 0
        groups = fields["steps"] // fields["group_steps"] if fields["scaled"] else 0
        return {
            "accumulators": kept[:last],
            "result": result.tobytes(),
            "stream_read": state.stream_read + moved * self.block_words,
            "scale_read": state.scale_read + moved * groups,
            "checksum": zlib.crc32(written),
        }


def compare(state: MachineState, fields: dict[str, int]) -> None:
    expected = Manual(state, fields).execute()
    checksum = matrix.execute(state, fields)
    assert state.accumulators[: len(expected["accumulators"])].tolist() == expected["accumulators"]
    assert state.accumulated_columns == len(expected["accumulators"])
    assert state.result.tobytes() == expected["result"]
    assert (state.stream_read, state.scale_read) == (
        expected["stream_read"],
        expected["scale_read"],
    )
    assert checksum == expected["checksum"]


def random_operation(
    rng: np.random.Generator, state: MachineState, step: StepFormat
) -> dict[str, int]:
    """A legal instruction with steps of this format."""
    spec = state.spec
    units = step.alignment // 4
    least = -(-spec.rows_per_scaler // step.cycles)
    group_steps = least + int(rng.integers(3))
    scaled, first, last, pop = rng.integers(2, size=4).tolist()
    fields = operation(
        **step_fields(step),
        scaled=scaled,
        first=first,
        last=last,
        pop=pop,
        group_steps=group_steps,
        steps=group_steps * int(rng.integers(1, 4)) if scaled else int(rng.integers(1, 9)),
        activation=units * int(rng.integers((1 << 16) // units)),
        activation_pitch=units * int(rng.integers(4)),
        result=int(rng.integers(1 << 16)) if rng.random() < 0.5 else spec.result_rows - 1,
        result_pitch=int(rng.integers(4)),
        scale=int(rng.integers(1 << 16)),
        scale_pitch=int(rng.integers(3)),
    )
    if first and last:
        fields["blocks"], fields["vectors"] = rng.integers(1, (4, 6)).tolist()
    else:
        fields["vectors"] = int(
            rng.integers(1, 1 + (spec.matrix_columns if first else state.accumulated_columns))
        )
    return fields


@pytest.mark.parametrize("target", list(SPECS))
@pytest.mark.parametrize("seed", range(4))
def test_random_chains(target: str, seed: int) -> None:
    state = random_state(target, seed)
    rng = np.random.default_rng(seed)
    spec = state.spec
    state.stream_read = spec.stream_words - 6
    state.scale_read = spec.scale_words - 2
    for number in range(16):
        step = spec.step_formats[(seed * 16 + number) % len(spec.step_formats)]
        compare(state, random_operation(rng, state, step))


@pytest.mark.parametrize("step", SPECS["whole"].step_formats, ids=str)
def test_every_format(step: StepFormat) -> None:
    state = random_state("whole", 7)
    rng = np.random.default_rng(8)
    for _ in range(4):
        compare(state, random_operation(rng, state, step))


@pytest.mark.parametrize("step", SPECS["whole"].step_formats, ids=str)
def test_packed_matrices_give_plain_products(step: StepFormat) -> None:
    state = random_state("whole", 9)
    spec = state.spec
    rng = np.random.default_rng(10)
    rows, columns, vectors = 2 * spec.matrix_rows, 3 * step.alignment, 3
    values = np.unique(matrix.weight_values(np.arange(1 << step.weight.bits), step.weight))
    weights = rng.choice(values.astype(np.int8), (rows, columns))
    if step.kept:
        order = rng.random((rows, columns // 16, 16)).argsort(axis=2)
        weights[(order >= step.kept).reshape(rows, columns)] = 0
    words = pack_weights(weights, step, spec)
    state.stream[: len(words)] = words
    activations = rng.integers(-128, 128, (vectors, columns)).astype(np.int8)
    state.activation[: activations.size] = activations.reshape(-1)
    state.matrix_scales[:] = 1
    fields = operation(
        **step_fields(step),
        blocks=2,
        steps=columns // step.span,
        vectors=vectors,
        activation_pitch=columns // 4,
        result_pitch=2 * spec.block_rows,
    )
    matrix.execute(state, fields)
    expected = activations.astype(int) @ weights.astype(int).T
    assert np.array_equal(
        state.result.reshape(-1)[: expected.size].reshape(vectors, rows), expected
    )
    assert state.stream_read == len(words)


def test_every_code_of_every_format() -> None:
    assert matrix.weight_values(np.arange(16), WeightFormat.FP4).tolist() == [
        *FP4,
        *(-v for v in FP4),
    ]
    for weight in WeightFormat:
        if weight is not WeightFormat.FP4:
            codes = np.arange(1 << weight.bits)
            expected = [signed(int(code), weight.bits) for code in codes]
            assert matrix.weight_values(codes, weight).tolist() == expected


def test_bit_fields_of_every_width() -> None:
    data = np.random.default_rng(1).integers(0, 256, (3, 40), np.uint8)
    for bits in range(1, 17):
        count = 320 // bits
        whole = [int.from_bytes(row.tobytes(), "little") for row in data]
        expected = [
            [value >> bits * i & ((1 << bits) - 1) for i in range(count)] for value in whole
        ]
        assert matrix.bit_fields(data, count, bits).tolist() == expected


def test_bitmaps_with_too_few_and_too_many_bits() -> None:
    state = random_state("whole", 11)
    bitmaps = [0, 0xFFFF, 0x8001, 0x01FF]
    for first, second in itertools.product(bitmaps, repeat=2):
        state.stream[0].view(np.uint16)[:] = [first, second, first, second]
        compare(state, operation(format=1, kept=1, bitmap=1, pop=0))


def test_every_scale_code() -> None:
    state = random_state("small", 3)
    for begin in range(0, 1 << 16, 8192):
        state.scale_ring.view(np.uint16).reshape(-1)[:] = np.arange(begin, begin + 8192)
        compare(state, operation(scaled=1, group_steps=1, blocks=512))
    assert state.scale_read == 4096


@pytest.mark.parametrize("weight", [WeightFormat.INT8, WeightFormat.INT4])
@pytest.mark.parametrize("sign", [-1, 1])
def test_long_groups_are_exact(weight: WeightFormat, sign: int) -> None:
    # The last product makes the sum odd: a type that rounds would show it.
    steps, each = 1 << 16, weight.step_weights
    activations = np.full((1, each * steps), 127 if sign > 0 else -128, np.int8)
    largest = weight.largest - 1
    weights = np.full((1, steps, 4, each), largest, np.int16)
    weights[0, -1, :, -1] -= 1
    sums = matrix.group_sums(weights, None, activations, 1)
    expected = int(activations[0, 0]) * (largest * activations.size - 1)
    assert sums.reshape(-1).tolist() == [expected] * 4


def test_sums_wrap_at_32_and_accumulators_at_64_bits() -> None:
    state = random_state("tiny", 4)
    state.stream[:] = 0x80
    state.activation[:] = -128
    steps = 1 << 15
    fields = operation(steps=steps, scaled=1, group_steps=steps)
    state.scale_ring.view(np.uint16)[:] = 0x7FFF
    assert matrix.execute(state, fields)
    # 2**15 * 4 * 2**14 = 2**31, which wraps to the lowest number.
    lowest = -(1 << 31) * (2047 << 30)
    assert state.accumulators.tolist() == [[signed(lowest, 64)] * 4]
    fields["first"] = 0
    for count in range(2, 6):
        matrix.execute(state, fields)
        assert state.accumulators.tolist() == [[signed(count * lowest, 64)] * 4]


ILLEGAL = {
    "no block": {"blocks": 0},
    "no step": {"steps": 0},
    "blocks without first": {"blocks": 2, "first": 0},
    "blocks without last": {"blocks": 2, "last": 0},
    "no group": {"scaled": 1, "group_steps": 0},
    "group too long": {"scaled": 1, "steps": 2, "group_steps": 3},
    "group does not divide": {"scaled": 1, "steps": 5, "group_steps": 2},
    "no vector": {"vectors": 0},
    "vectors without first": {"vectors": 3, "first": 0},
    "vectors without last": {"vectors": 3, "last": 0},
    "INT4 from an odd unit": {"format": 1, "activation": 1},
    "INT4 with an odd pitch": {"format": 1, "activation_pitch": 3},
    "sparse INT8 within 16": {"kept": 1, "activation": 2},
    "sparse INT4 within its span": {"format": 1, "kept": 3, "activation": 8},
    "sparse with a pitch within 16": {"format": 1, "kept": 1, "activation_pitch": 6},
    "no format": {"format": 6},
    "dense bitmap": {"format": 1, "bitmap": 1},
    "bitmap of 4": {"format": 1, "kept": 2, "bitmap": 1},
    "bitmap of INT8": {"kept": 1, "bitmap": 1},
}


@pytest.mark.parametrize("fields", list(ILLEGAL.values()), ids=list(ILLEGAL))
def test_illegal_instructions_change_nothing(fields: dict[str, int]) -> None:
    state = random_state("whole", 5)
    with pytest.raises(IllegalInstruction):
        matrix.execute(state, operation(**fields))
    assert (state.stream_read, state.scale_read) == (0, 0)
    assert not state.result.any() and not state.accumulators.any()


@pytest.mark.parametrize("weight", WeightFormat)
@pytest.mark.parametrize("kept", range(4))
def test_a_machine_has_what_it_is_built_with(weight: WeightFormat, kept: int) -> None:
    # "tiny" has INT8 and INT4, dense.
    legal = weight in (WeightFormat.INT8, WeightFormat.INT4) and kept == 0
    state = random_state("tiny", 5)
    fields = operation(format=int(weight), kept=kept)
    if legal:
        matrix.execute(state, fields)
        return
    with pytest.raises(IllegalInstruction, match="not built with"):
        matrix.execute(state, fields)


@pytest.mark.parametrize(
    "kept, group_steps, legal", [(0, 3, False), (0, 4, True), (1, 1, False), (1, 2, True)]
)
def test_groups_wait_for_shared_scalers(kept: int, group_steps: int, legal: bool) -> None:
    state = random_state("scalers", 5)
    fields = operation(kept=kept, scaled=1, steps=2 * group_steps, group_steps=group_steps)
    matrix.execute(state, fields | {"scaled": 0})
    if legal:
        matrix.execute(state, fields)
        return
    with pytest.raises(IllegalInstruction, match="rows_per_scaler"):
        matrix.execute(state, fields)


def test_an_accumulator_that_the_pass_before_did_not_use() -> None:
    state = random_state("whole", 5)
    matrix.execute(state, operation(vectors=2, last=0))
    matrix.execute(state, operation(vectors=2, first=0, last=0))
    matrix.execute(state, operation(vectors=3))
    matrix.execute(state, operation(vectors=1, first=0, last=0))
    with pytest.raises(IllegalInstruction, match="those of the pass before"):
        matrix.execute(state, operation(vectors=2, first=0))


def test_sync_does_nothing() -> None:
    state = random_state("tiny", 6)
    assert matrix.execute(state, operation(sync=1, blocks=0)) == 0
    assert state.stream_read == 0
