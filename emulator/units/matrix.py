"""Matrix engine: dot products of streamed integer weights with the activation buffer."""

import zlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from emulator.errors import IllegalInstruction
from emulator.numerics.floating import canonical, from_integer, multiply
from emulator.state import MachineState
from hw.spec.machine import MachineSpec

FRACTION_BITS = 24
"""Of the accumulators: the smallest FP16 number is 2**-24."""


def _scale_factors() -> npt.NDArray[np.int64]:
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
        If a count is zero, several blocks share accumulators, a group does not fit, or an INT4
        instruction's activations do not begin at a multiple of 8.
    """
    if operation["sync"]:
        return 0
    check_operation(operation)
    spec = state.spec
    blocks, steps = operation["blocks"], operation["steps"]
    group_steps = operation["group_steps"] if operation["scaled"] else steps
    groups = steps // group_steps

    weight_words = 2 * blocks * steps
    weights = _ring_words(state.stream, state.stream_read, weight_words)
    activations = _activations(state, operation)
    step_bytes = weights.reshape(blocks, groups, group_steps, spec.matrix_rows, 4)
    sums = group_sums(step_bytes, activations.reshape(groups, -1), bool(operation["wide"]))
    # Like the hardware's, the group sum has 32 bits and the accumulator 64; both wrap.
    sums = sums.astype(np.int32).astype(np.int64)
    if operation["scaled"]:
        codes = _ring_words(state.scale_ring, state.scale_read, blocks * groups).view(np.uint16)
        sums *= SCALE_FACTORS[codes.reshape(blocks, groups, spec.matrix_rows)]
    else:
        sums <<= FRACTION_BITS
    accumulators = sums.sum(axis=1)
    if not operation["first"]:
        accumulators += state.accumulators

    state.accumulators[:] = accumulators[-1]
    if operation["pop"]:
        state.stream_read += weight_words
        state.scale_read += blocks * groups if operation["scaled"] else 0
    return _write(state, operation, accumulators) if operation["last"] else 0


def check_operation(operation: Mapping[str, int]) -> None:
    """Raise `IllegalInstruction` for an operation that the hardware refuses."""
    steps, group_steps = operation["steps"], operation["group_steps"]
    for name in ("blocks", "steps"):
        if operation[name] == 0:
            raise IllegalInstruction(f"MPE: {name}: expected at least 1, found 0")
    if operation["blocks"] != 1 and not (operation["first"] and operation["last"]):
        found = operation["blocks"]
        raise IllegalInstruction(
            f"MPE: blocks: expected 1 with first = 0 or last = 0, found {found}"
        )
    if operation["scaled"] and (group_steps == 0 or steps % group_steps):
        raise IllegalInstruction(
            f"MPE: group_steps: expected a divisor of {steps}, found {group_steps}"
        )
    if not operation["wide"] and operation["activation"] % 2:
        found = operation["activation"]
        raise IllegalInstruction(
            f"MPE: activation: expected an even number for INT4, found {found}"
        )


def group_sums(
    weights: npt.NDArray[np.uint8], activations: npt.NDArray[np.int8], wide: bool
) -> npt.NDArray[np.int64]:
    """Exact dot products of each group.

    Parameters
    ----------
    weights : uint8 [blocks, groups, group steps, rows, 4]
        Bytes of the stream; contiguous.
    activations : int8 [groups, group steps * (4 if wide else 8)]
    wide : bool
        Weights are INT8, not INT4.

    Returns
    -------
    int64 [blocks, groups, rows]
    """
    blocks, groups, group_steps, rows, _ = weights.shape
    # To [groups, blocks * rows, group steps * 4], a step's four bytes as one item.
    items = weights.view(np.uint32).reshape(blocks, groups, group_steps, rows)
    bytes_ = items.transpose(1, 0, 3, 2).copy().view(np.uint8)
    bytes_ = bytes_.reshape(groups, blocks * rows, 4 * group_steps)
    # Every partial sum, in whatever order BLAS forms it, must be an integer that the type holds.
    terms, unit, exact_bits = 4 * group_steps, 1, 24
    if not wide:
        # Nibbles are taken 16 times too large, in the upper half of a byte, and so are the sums.
        terms, unit, exact_bits = 8 * group_steps, 16, 28
    kind = np.float32 if terms << 14 <= 1 << exact_bits else np.float64
    vectors = activations.astype(kind)
    if wide:
        sums = np.matmul(bytes_.view(np.int8).astype(kind), vectors[:, :, None])
    else:
        low, high = (bytes_ << 4).view(np.int8), (bytes_ & 0xF0).view(np.int8)
        sums = np.matmul(low.astype(kind), vectors[:, 0::2, None])
        sums += np.matmul(high.astype(kind), vectors[:, 1::2, None])
        sums *= 1 / unit
    return sums.reshape(groups, blocks, rows).transpose(1, 0, 2).astype(np.int64)


def _ring_words(ring: npt.NDArray[np.uint8], first: int, count: int) -> npt.NDArray[np.uint8]:
    """Contiguous words of a ring, wrapping."""
    first %= len(ring)
    if first + count <= len(ring):
        return ring[first : first + count]
    return ring[np.arange(first, first + count) % len(ring)]


def _activations(state: MachineState, operation: Mapping[str, int]) -> npt.NDArray[np.int8]:
    """The activation vector, wrapping."""
    first = 4 * operation["activation"] % len(state.activation)
    count = (4 if operation["wide"] else 8) * operation["steps"]
    if first + count <= len(state.activation):
        return state.activation[first : first + count]
    return state.activation[np.arange(first, first + count) % len(state.activation)]


def _write(
    state: MachineState, operation: Mapping[str, int], accumulators: npt.NDArray[np.int64]
) -> int:
    """Write the outputs of int64 [blocks, rows] to result rows; their checksum."""
    spec: MachineSpec = state.spec
    scale = canonical(state.matrix_scales[operation["scale"] % spec.matrix_scales])
    outputs = multiply(from_integer(accumulators, FRACTION_BITS), scale)
    rows = outputs.reshape(-1, spec.lanes)
    first = operation["result"] % spec.result_rows
    if first + len(rows) <= spec.result_rows:
        state.result[first : first + len(rows)] = rows
    else:
        # Rows that a later one overwrites are left out.
        kept = np.arange(max(0, len(rows) - spec.result_rows), len(rows))
        state.result[(first + kept) % spec.result_rows] = rows[kept]
    return zlib.crc32(outputs.tobytes())
