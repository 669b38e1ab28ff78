"""The matrix engine, compiled: one instruction on a core's arrays; `emulator.units.matrix` has the same in NumPy."""

import numpy as np
import numpy.typing as npt

from emulator.compiled import compiled
from emulator.kernels.floats import rounded
from emulator.kernels.layout import (
    ALIGNMENT,
    BACK,
    BITMAP,
    BITS,
    COLUMNS,
    CYCLES,
    EACH,
    FRONT,
    KEPT_OF_16,
    LANES,
    MATRIX_COLUMNS,
    MATRIX_ROWS,
    PER_SCALER,
    SPAN,
    WORD_BYTES,
    Flat,
    Integers,
    Scratch,
    Whole,
)
from emulator.state import ACCUMULATED, SCALE_READ, STREAM_READ
from hw.spec.instructions import Unit
from hw.spec.weight_format import WeightFormat

Bytes = npt.NDArray[np.uint8]
Halves = npt.NDArray[np.int16]
Floats = npt.NDArray[np.float32]

_FIELDS = COLUMNS[Unit.MPE]
_FORMAT, _KEPT, _BITMAP_FIELD, _SCALED, _FIRST, _LAST, _POP, _GROUP_STEPS = (
    _FIELDS[name]
    for name in ("format", "kept", "bitmap", "scaled", "first", "last", "pop", "group_steps")
)
_BLOCKS, _STEPS, _VECTORS = (_FIELDS[name] for name in ("blocks", "steps", "vectors"))
_ACTIVATION, _ACTIVATION_PITCH, _RESULT, _RESULT_PITCH, _SCALE, _SCALE_PITCH = (
    _FIELDS[name]
    for name in (
        "activation",
        "activation_pitch",
        "result",
        "result_pitch",
        "scale",
        "scale_pitch",
    )
)
_FP4 = int(WeightFormat.FP4)
_MAGNITUDE = np.int32(0x7FFFFFFF)


@compiled
def format_of(op: Integers) -> Whole:
    """Row of the table of step formats."""
    return op[_FORMAT] | op[_KEPT] << 3 | op[_BITMAP_FIELD] << 5


@compiled
def _legal(op: Integers, step: Integers, p: Integers) -> bool:
    if step[EACH] < 0 or op[_BLOCKS] == 0 or op[_STEPS] == 0 or op[_VECTORS] == 0:
        return False
    if not (op[_FIRST] and op[_LAST]) and (op[_BLOCKS] > 1 or op[_VECTORS] > p[MATRIX_COLUMNS]):
        return False
    if op[_SCALED]:
        group = op[_GROUP_STEPS]
        if group == 0 or op[_STEPS] % group or group * step[CYCLES] < p[PER_SCALER]:
            return False
    units = step[ALIGNMENT] // 4
    return op[_ACTIVATION] % units == 0 and op[_ACTIVATION_PITCH] % units == 0


@compiled
def _weight(code: Whole, bits: Whole, fp4: bool) -> Whole:
    """Integer that a weight's code stands for."""
    if fp4:
        exponent, fraction = code >> 1 & 3, code & 1
        value = (2 + fraction) << (exponent - 1) if exponent else fraction
        return -value if code & 8 else value
    return code - (code >> (bits - 1) << bits)


@compiled
def _field(data: Bytes, first: Whole, position: Whole, bits: Whole) -> Whole:
    """Field of up to 8 bits at a bit position behind byte `first`; wraps at the end of the ring."""
    byte = first + (position >> 3)
    low = np.int64(data[byte % len(data)])
    high = np.int64(data[(byte + 1) % len(data)])
    return (low | high << 8) >> (position & 7) & ((1 << bits) - 1)


@compiled
def _dense_block(
    stream: Bytes,
    first: Whole,
    steps: Whole,
    rows: Whole,
    step: Integers,
    fp4: bool,
    weights: Halves,
) -> None:
    """Weights of a dense block: int16 [row][step][weight]."""
    each, bits = step[EACH], step[BITS]
    whole = first + steps * rows * each * bits // 8 <= len(stream)
    if bits == 8 and whole:
        for s in range(steps):
            for row in range(rows):
                source, target = first + 4 * (s * rows + row), 4 * (row * steps + s)
                for j in range(4):
                    weights[target + j] = np.int8(stream[source + j])
    elif bits == 4 and whole and not fp4:
        for s in range(steps):
            for row in range(rows):
                source, target = first + 4 * (s * rows + row), 8 * (row * steps + s)
                for j in range(4):
                    pair = stream[source + j]
                    weights[target + 2 * j] = np.int8(pair << 4) >> 4
                    weights[target + 2 * j + 1] = np.int8(pair) >> 4
    else:
        for s in range(steps):
            for row in range(rows):
                target = each * (row * steps + s)
                for j in range(each):
                    position = ((s * rows + row) * each + j) * bits
                    code = _field(stream, first, position, bits)
                    weights[target + j] = _weight(code, bits, fp4)


@compiled
def _sparse_block(
    stream: Bytes,
    first: Whole,
    steps: Whole,
    rows: Whole,
    step: Integers,
    fp4: bool,
    word: Whole,
    weights: Halves,
    slots: npt.NDArray[np.int32],
) -> None:
    """Weights of a sparse block and the elements that they meet: [row][step][weight]."""
    each, bits, kept = step[EACH], step[BITS], step[KEPT_OF_16]
    front, whole = word * step[FRONT], word * (step[FRONT] + step[BACK])
    for s in range(steps):
        begin = first + s * whole
        for row in range(rows):
            target = each * (row * steps + s)
            left = np.int64(0)
            if step[BITMAP]:
                left = np.int64(stream[(begin + 2 * row) % len(stream)])
                left |= np.int64(stream[(begin + 2 * row + 1) % len(stream)]) << 8
            for j in range(each):
                position = row * each + j
                code = _field(stream, begin + front, position * bits, bits)
                weights[target + j] = _weight(code, bits, fp4)
                element = np.int64(0)
                if step[BITMAP]:
                    # The lowest set bit that is left; none: element 0.
                    while left and not left >> element & 1:
                        element += 1
                    left &= left - 1
                else:
                    element = _field(stream, begin, position * 4, 4)
                slots[target + j] = (each * s + j) // kept * 16 + element


@compiled
def _dot(weights: Halves, first: Whole, count: Whole, vector: Halves, begin: Whole) -> np.int32:
    """Sum of products, wrapping at 32 bits."""
    row, other = weights[first : first + count], vector[begin : begin + count]
    total = np.int32(0)
    for i in range(count):
        total = np.int32(total + np.int32(row[i]) * np.int32(other[i]))
    return total


@compiled
def _gathered(
    weights: Halves,
    slots: npt.NDArray[np.int32],
    first: Whole,
    count: Whole,
    vector: Halves,
    begin: Whole,
) -> np.int32:
    """The same, each weight with the element of its slot."""
    total = np.int32(0)
    for i in range(first, first + count):
        total = np.int32(total + np.int32(weights[i]) * np.int32(vector[begin + slots[i]]))
    return total


@compiled
def scaled(total: np.int32, code: Whole) -> Whole:
    """Times an FP16 scale, in units of 2**-24."""
    exponent, fraction = code >> 10 & 31, code & 1023
    product = np.int64(total) * ((fraction + 1024) << (exponent - 1) if exponent else fraction)
    return -product if code >> 15 else product


@compiled
def _take_vectors(
    activation: npt.NDArray[np.int8], op: Integers, count: Whole, vectors: Halves
) -> None:
    """Activation vectors one behind the other, without their wrapping."""
    for v in range(op[_VECTORS]):
        begin = 4 * (op[_ACTIVATION] + v * op[_ACTIVATION_PITCH]) % len(activation)
        if begin + count <= len(activation):
            for i in range(count):
                vectors[v * count + i] = activation[begin + i]
        else:
            for i in range(count):
                vectors[v * count + i] = activation[(begin + i) % len(activation)]


@compiled
def _output_scale(bits: np.int32) -> np.int32:
    """Canonical pattern of an output scale."""
    magnitude = bits & _MAGNITUDE
    sign = bits & ~_MAGNITUDE
    if magnitude < np.int32(0x00800000):
        magnitude = np.int32(0)
    return sign | min(magnitude, np.int32(0x7F7FFFFF))


@compiled
def write_outputs(
    result: Floats,
    row: Whole,
    sums: Integers,
    scales: Floats,
    entry: Whole,
    lanes: Whole,
    holder: Floats,
) -> None:
    """Outputs of a block of one vector, from a result row on."""
    holder.view(np.int32)[0] = _output_scale(scales.view(np.int32)[entry % len(scales)])
    scale = np.float64(holder[0])
    begin = row * lanes % len(result)
    for i in range(len(sums)):
        # From integer to FP32 is one rounding; the power of two is exact.
        value = np.float64(np.float32(sums[i])) * 2.0**-24
        result[(begin + i) % len(result)] = rounded(value * scale)


@compiled
def matrix(
    flat: Flat, core: Whole, op: Integers, p: Integers, step: Integers, room: Scratch
) -> bool:
    """An operation of MPE with steps of the given format; False if it is illegal."""
    if not _legal(op, step, p):
        return False
    blocks, steps, vectors, rows = op[_BLOCKS], op[_STEPS], op[_VECTORS], p[MATRIX_ROWS]
    word, fp4, sparse = p[WORD_BYTES], op[_FORMAT] == _FP4, step[KEPT_OF_16] > 0
    group_steps = op[_GROUP_STEPS] if op[_SCALED] else steps
    groups, each = steps // group_steps, step[EACH]
    if sparse:
        block_words = steps * (step[FRONT] + step[BACK])
    else:
        block_words = (steps * each * step[BITS] + 15) // 16
    count = (steps * step[SPAN] + step[ALIGNMENT] - 1) // step[ALIGNMENT] * step[ALIGNMENT]

    registers, stream, scales = flat.registers[core], flat.stream[core], flat.scale_ring[core]
    activation, result = flat.activation[core], flat.result[core]
    kept, output_scales = flat.accumulators[core], flat.matrix_scales[core]
    # Counts as wide as these are beyond any program, but legal.
    weights, slots, acts = room.weights, room.slots, room.activations
    if rows * steps * each > len(weights):
        weights = np.zeros(rows * steps * each, np.int16)
    if sparse and rows * steps * each > len(slots):
        slots = np.zeros(rows * steps * each, np.int32)
    if vectors * count > len(acts):
        acts = np.zeros(vectors * count, np.int16)
    _take_vectors(activation, op, count, acts)

    sums, holder = np.zeros(rows, np.int64), np.zeros(1, np.float32)
    length = group_steps * each
    for block in range(blocks):
        first = (registers[STREAM_READ] + block * block_words) * word % len(stream)
        if sparse:
            _sparse_block(stream, first, steps, rows, step, fp4, word, weights, slots)
        else:
            _dense_block(stream, first, steps, rows, step, fp4, weights)
        group_word = registers[SCALE_READ] + block * groups
        for v in range(vectors):
            column = v % p[MATRIX_COLUMNS]
            for row in range(rows):
                total = np.int64(0) if op[_FIRST] else kept[column * rows + row]
                for g in range(groups):
                    begin = row * steps * each + g * length
                    if sparse:
                        part = _gathered(weights, slots, begin, length, acts, v * count)
                    else:
                        part = _dot(weights, begin, length, acts, v * count + g * length)
                    if op[_SCALED]:
                        code = scales[((group_word + g) * rows + row) % len(scales)]
                        total += scaled(part, np.int64(code))
                    else:
                        total += np.int64(part) << 24
                sums[row] = total
            kept[column * rows : (column + 1) * rows] = sums
            if op[_LAST]:
                at = op[_RESULT] + v * op[_RESULT_PITCH] + block * rows // p[LANES]
                entry = op[_SCALE] + v * op[_SCALE_PITCH]
                write_outputs(result, at, sums, output_scales, entry, p[LANES], holder)
    registers[ACCUMULATED] = (vectors - 1) % p[MATRIX_COLUMNS] + 1
    if op[_POP]:
        registers[STREAM_READ] += blocks * block_words
        if op[_SCALED]:
            registers[SCALE_READ] += blocks * groups
    return True
