"""Matrix engine: dot products of streamed integer weights with the activation buffer."""

import zlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from emulator.errors import IllegalInstruction
from emulator.numerics.floating import canonical, from_integer, multiply
from emulator.state import MachineState
from emulator.units.matrix_check import check_operation, step_format
from emulator.units.rows import taken, write_rows
from emulator.units.wires import check_wired, group_sums_of, is_wired
from hw.spec.weight_format import BLOCK_ELEMENTS, StepFormat, WeightFormat

__all__ = ["FRACTION_BITS", "SCALE_FACTORS", "check_operation", "execute", "group_sums"]

FRACTION_BITS = 24
"""Of the accumulators: the smallest FP16 number is 2**-24."""

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]


def _scale_factors() -> Integers:
    """Every FP16 code as an integer multiple of 2**-24; an exponent of all ones is nothing special."""
    codes = np.arange(1 << 16, dtype=np.int64)
    exponents, fractions = codes >> 10 & 31, codes & 1023
    normal = exponents > 0
    magnitudes = (fractions + 1024 * normal) << (exponents - normal)
    return np.where(codes >> 15, -magnitudes, magnitudes)


SCALE_FACTORS = _scale_factors()


def execute(state: MachineState, operation: Mapping[str, int]) -> int:
    """Apply one operation of MPE; CRC-32 of the outputs written, 0 if there are none.

    Parameters
    ----------
    state : MachineState
        Changed: `accumulators`, `result` (with `last`), the read pointers of the rings (with `pop`).
    operation : mapping of `operation_fields(Unit.MPE)`

    Raises
    ------
    IllegalInstruction
        See `emulator.units.matrix_check`.
    """
    if operation["sync"]:
        return 0
    spec = state.spec
    if is_wired(operation):
        return _execute_wired(state, operation)
    step = step_format(operation)
    check_operation(spec, operation)
    if state.checked:
        _check_columns(state, operation)
    blocks, steps = operation["blocks"], operation["steps"]
    groups = steps // operation["group_steps"] if operation["scaled"] else 1

    weight_words = blocks * step.block_words(steps)
    stream = taken(state.stream, state.stream_read, weight_words).reshape(blocks, -1)
    weights, slots = decode_stream(stream, step, steps)
    activations = _activations(state, operation, step, steps)
    # [blocks, vectors, groups, rows]; like the hardware's, the group sum has 32 bits.
    sums = group_sums(weights, slots, activations, groups).astype(np.int32).astype(np.int64)
    if operation["scaled"]:
        codes = taken(state.scale_ring, state.scale_read, blocks * groups).view(np.uint16)
        sums *= SCALE_FACTORS[codes.reshape(blocks, 1, groups, spec.matrix_rows)]
    else:
        sums <<= FRACTION_BITS
    accumulators = sums.sum(axis=2)
    if not operation["first"]:
        accumulators += state.accumulators[: operation["vectors"]]

    _keep(state, accumulators[-1])
    if operation["pop"]:
        state.stream_read += weight_words
        state.scale_read += blocks * groups if operation["scaled"] else 0
    return _write(state, operation, accumulators) if operation["last"] else 0


def _execute_wired(state: MachineState, operation: Mapping[str, int]) -> int:
    """A product with a hardwired matrix: one group a row, with the row's scale; no ring is read."""
    check_wired(state.spec, operation)
    if state.wires is None:
        raise ValueError("the program has no weights for its hardwired matrices")
    sums, codes = group_sums_of(state.wires, operation, state.activation)
    accumulators = (sums * SCALE_FACTORS[codes]).reshape(-1, 1, state.spec.matrix_rows)
    _keep(state, accumulators[-1])
    return _write(state, operation, accumulators)


def _check_columns(state: MachineState, operation: Mapping[str, int]) -> None:
    """What an accumulator holds that the last pass did not use is nobody's business."""
    if not operation["first"] and operation["vectors"] > state.accumulated_columns:
        raise IllegalInstruction(
            f"MPE: vectors: expected at most {state.accumulated_columns} with first = 0, those of the pass "
            f"before, found {operation['vectors']}"
        )


def _keep(state: MachineState, accumulators: Integers) -> None:
    """Leave the accumulators of the last pass behind; int64 [vectors, rows] of the last block."""
    vectors, columns = len(accumulators), state.spec.matrix_columns
    last = (vectors - 1) % columns + 1
    state.accumulators[:last] = accumulators[vectors - last :]
    state.accumulated_columns = last


def decode_stream(
    stream: Bytes, step: StepFormat, steps: int
) -> tuple[npt.NDArray[np.int16], Integers | None]:
    """Weights of blocks, and the elements that they meet.

    Parameters
    ----------
    stream : uint8 [blocks, bytes of a block]
    step : StepFormat
    steps : int

    Returns
    -------
    weights : int16 [blocks, steps, rows, weights of a step]
    slots : int64 of that shape, or None
        Elements from the beginning of the activation vector; None if dense: weight j of step s meets E*s + j.
    """
    blocks, each = len(stream), step.weight.step_weights
    word_bytes = stream.shape[1] // step.block_words(steps)
    rows = word_bytes // 2
    shape = (blocks, steps, rows, each)
    if not step.kept:
        codes = bit_fields(stream, steps * rows * each, step.weight.bits)
        return weight_values(codes, step.weight).reshape(shape), None
    by_step = stream.reshape(blocks, steps, -1)
    front, back = np.split(by_step, [step.metadata_words * word_bytes], axis=2)
    weights = weight_values(bit_fields(back, rows * each, step.weight.bits), step.weight)
    # The kept element's number, of which every `kept` ones come from the next 16.
    number = each * np.arange(steps)[:, None] + np.arange(each)
    first = (number // step.kept * BLOCK_ELEMENTS)[:, None, :]
    if step.bitmap:
        places = _set_bits(bit_fields(front, rows, BLOCK_ELEMENTS), each)
    else:
        places = bit_fields(front, rows * each, 4).reshape(shape)
    return weights.reshape(shape), first + places


def bit_fields(data: Bytes, count: int, bits: int) -> Integers:
    """`count` fields of `bits` bits (up to 16), lowest first, from the last axis of little-endian bytes."""
    begin = bits * np.arange(count)
    padded = np.concatenate([data, np.zeros((*data.shape[:-1], 2), np.uint8)], axis=-1)
    window = np.zeros((*data.shape[:-1], count), np.int64)
    for byte in range((bits + 7 + 7) // 8):
        window |= padded[..., (begin >> 3) + byte].astype(np.int64) << (8 * byte)
    return window >> (begin & 7) & ((1 << bits) - 1)


def weight_values(codes: Integers, weight: WeightFormat) -> npt.NDArray[np.int16]:
    """Integers that weights of these codes stand for."""
    half = 1 << (weight.bits - 1)
    if weight is WeightFormat.FP4:
        # Two bits of exponent, one of fraction; in units of a half, subnormals are 0 and 1.
        exponent, fraction = codes >> 1 & 3, codes & 1
        magnitude = np.where(exponent > 0, (2 + fraction) << np.maximum(exponent - 1, 0), fraction)
        values = np.where(codes & half, -magnitude, magnitude)
    else:
        values = (codes ^ half) - half
    return values.astype(np.int16)


def _set_bits(bitmaps: Integers, count: int) -> Integers:
    """Numbers of the lowest `count` set bits of 16, lowest first; 0 for each that is missing."""
    places = np.zeros((*bitmaps.shape, count), np.int64)
    rank = np.zeros_like(bitmaps)
    for bit in range(BLOCK_ELEMENTS):
        here = (bitmaps >> bit & 1).astype(bool)
        for nth in range(count):
            places[..., nth][here & (rank == nth)] = bit
        rank += here
    return places


def group_sums(
    weights: npt.NDArray[np.int16],
    slots: Integers | None,
    activations: npt.NDArray[np.int8],
    groups: int,
) -> Integers:
    """Exact dot products of each group.

    Parameters
    ----------
    weights, slots
        From `decode_stream`.
    activations : int8 [vectors, elements]
    groups : int
        Of so many equal runs of steps.

    Returns
    -------
    int64 [blocks, vectors, groups, rows]
    """
    blocks, steps, rows, each = weights.shape
    group_steps = steps // groups
    by_group = weights.reshape(blocks, groups, group_steps, rows, each).swapaxes(2, 3)
    by_group = by_group.reshape(blocks, groups, rows, -1).astype(np.float64)
    # Sums of up to 2**22 steps are integers below 2**53, which BLAS adds exactly in any order.
    if slots is None:
        vectors = activations.astype(np.float64).reshape(len(activations), groups, -1)
        sums = np.einsum("bgrk,vgk->bvgr", by_group, vectors, optimize=True)
        return sums.astype(np.int64)
    places = slots.reshape(blocks, groups, group_steps, rows, each).swapaxes(2, 3)
    places = places.reshape(by_group.shape)
    sums = [(by_group * vector[places]).sum(axis=3) for vector in activations]
    return np.stack(sums, axis=1).astype(np.int64)


def _activations(
    state: MachineState, operation: Mapping[str, int], step: StepFormat, steps: int
) -> npt.NDArray[np.int8]:
    """The activation vectors, wrapping: int8 [vectors, elements]."""
    count = -(-steps * step.span // step.alignment) * step.alignment
    starts = operation["activation"] + operation["activation_pitch"] * np.arange(
        operation["vectors"]
    )
    places = 4 * starts[:, None] + np.arange(count)
    return state.activation[places % len(state.activation)]


def _write(state: MachineState, operation: Mapping[str, int], accumulators: Integers) -> int:
    """Write the outputs of int64 [blocks, vectors, rows] to result rows; their checksum."""
    spec = state.spec
    blocks, vectors, _ = accumulators.shape
    number = np.arange(vectors)
    entries = operation["scale"] + number * operation["scale_pitch"]
    scales = canonical(state.matrix_scales[entries % spec.matrix_scales])
    outputs = multiply(from_integer(accumulators, FRACTION_BITS), scales[:, None])
    # In the order of the writes: block, vector (pass by pass), row.
    rows = operation["result"] + np.arange(blocks)[:, None, None] * spec.block_rows
    rows = rows + number[:, None] * operation["result_pitch"] + np.arange(spec.block_rows)
    write_rows(state.result, rows, outputs.reshape(-1, spec.lanes))
    return zlib.crc32(outputs.tobytes())
