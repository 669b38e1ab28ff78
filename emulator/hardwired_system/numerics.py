"""Bit-exact arithmetic of the hardwired machine: what its wires, links and vector units compute.

Wires: INT8 activations times E2M1 codes taken twice (whole numbers up to 12), block scales as shifts, sums
exact. Links: whole numbers of a stated width with one shared power of two a message. Vector units: single
float32 operations, exponentials and reciprocals from stored tables, sums in whole numbers or correctly
rounded; so results depend on no order.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emulator.numerics.functions import exponential2, reciprocal
from hw.spec.errors import InputError

Codes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

TWICE_E2M1 = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.int64)
"""E2M1 codes 0 to 15, times two."""

MX_BLOCK = 32
MOST_TAPS = 24
"""Largest spread of exponents in a matrix, in delayed taps of the serial input."""

INPUT_LIMIT = 127
_LOG2_E = np.float32(math.log2(math.e))


@dataclass(frozen=True)
class Wires:
    """A hardwired matrix.

    Members
    -------
    weights : int64 [outputs, inputs]
        Whole numbers: codes times two, shifted by their block's taps.
    exponent : int
        Value of a weight is ``weights * 2**exponent``.
    """

    weights: Integers
    exponent: int

    def part(self, first: int, count: int) -> "Wires":
        """The wires of one chip, which has so many of the inputs."""
        return Wires(self.weights[:, first : first + count], self.exponent)

    def multiply(self, inputs: Integers) -> Integers:
        """Exact sums [T, outputs] of INT8 inputs [T, inputs]."""
        # Sums stay below 2**53: products of float64 are exact, and quicker than those of int64.
        limit = int(np.abs(self.weights).sum(axis=1).max(initial=0)) * INPUT_LIMIT
        if limit < 1 << 53:
            exact = inputs.astype(np.float64) @ self.weights.T.astype(np.float64)
            return exact.astype(np.int64)
        return inputs @ self.weights.T


def make_wires(codes: Codes, exponents: npt.NDArray[np.integer], name: str) -> Wires:
    """Return the wires of a matrix in MXFP4: codes [outputs, inputs], exponents [outputs, inputs / 32].

    Raises
    ------
    InputError
        If the shapes do not belong together, or exponents spread over more than the taps.
    """
    if codes.ndim != 2 or exponents.shape != (codes.shape[0], codes.shape[1] // MX_BLOCK):
        raise InputError(
            f"{name}: expected codes [outputs, inputs] and exponents [outputs, inputs / {MX_BLOCK}], "
            f"found {list(codes.shape)} and {list(exponents.shape)}"
        )
    # A block of zeros needs no tap, whatever its exponent.
    used = (codes & 7).reshape(*exponents.shape, MX_BLOCK).any(axis=-1)
    if not used.any():
        return Wires(np.zeros(codes.shape, np.int64), 0)
    lowest, highest = int(exponents[used].min()), int(exponents[used].max())
    if highest - lowest > MOST_TAPS:
        raise InputError(
            f"{name}: expected block scales within {MOST_TAPS} taps, "
            f"found 2**{lowest} to 2**{highest}"
        )
    taps = np.where(used, exponents.astype(np.int64) - lowest, 0)
    return Wires(TWICE_E2M1[codes] << np.repeat(taps, MX_BLOCK, axis=1), lowest - 1)


def bit_serial(weights: Integers, inputs: Integers, bits: int = 8) -> Integers:
    """Sums as the silicon forms them: bit by bit, one population count for each value of a weight.

    Parameters
    ----------
    weights : int64 [outputs, inputs]
    inputs : int64 [inputs]
        Two's complement of `bits` bits, lowest first; the last bit counts negatively.
    """
    result = np.zeros(len(weights), np.int64)
    for bit in range(bits):
        ones = (inputs >> bit) & 1
        weight_of_bit = -(1 << bit) if bit == bits - 1 else 1 << bit
        for value in np.unique(weights):
            region = np.count_nonzero((weights == value) & (ones == 1), axis=1)
            result += weight_of_bit * int(value) * region
    return result


def quantize(x: Floats) -> tuple[Integers, Floats]:
    """Return INT8 values and the scale of each row of x [T, n]; half to even, largest to 127."""
    largest = np.abs(x).max(axis=-1, keepdims=True)
    scale = np.where(largest > 0, largest / np.float32(INPUT_LIMIT), np.float32(1)).astype(
        np.float32
    )
    values = np.rint((x / scale).astype(np.float64))
    return np.clip(values, -INPUT_LIMIT, INPUT_LIMIT).astype(np.int64), scale


def shared(x: npt.NDArray[np.floating], bits: int) -> tuple[Doubles, Integers]:
    """Whole numbers of `bits` bits with one power of two along the last axis: a message, or a stored head.

    Returns
    -------
    The whole numbers as float64 [..., n], and the exponents [..., 1]. Half to even; the largest saturate.
    Whole numbers that fit are kept as they are in value.
    """
    largest = np.abs(x).max(axis=-1, keepdims=True, initial=0)
    exponent = np.frexp(largest.astype(np.float64))[1].astype(np.int64) - (bits - 1)
    limit = (1 << (bits - 1)) - 1
    steps = np.rint(np.ldexp(x.astype(np.float64), -exponent))
    return np.clip(steps, -limit, limit), exponent


def to_fixed(x: npt.NDArray[np.floating], bits: int) -> Doubles:
    """Numbers as the receiver of a message of `bits` bits has them."""
    steps, exponent = shared(x, bits)
    return np.ldexp(steps, exponent)


def reduce_scatter(partial: Doubles, bits: int) -> Doubles:
    """Sum of partial sums [group, ..., n]: each of the group receives its part of n from all others.

    What is sent is rounded to a message; a chip's own part is not.
    """
    group = len(partial)
    parts = partial.reshape(*partial.shape[:-1], group, -1)
    sent = to_fixed(parts, bits)
    total = np.empty(parts.shape[1:])
    for own in range(group):
        kept = parts[own, ..., own, :]
        for other in range(group):
            if other != own:
                kept = kept + sent[other, ..., own, :]
        total[..., own, :] = kept
    return total.reshape(partial.shape[1:])


def all_gather(values: Doubles, group: int, bits: int) -> Doubles:
    """Values [..., n], an equal part with each of the group, after everybody has sent its own to all."""
    parts = values.reshape(*values.shape[:-1], group, -1)
    return to_fixed(parts, bits).reshape(values.shape)


def exponential(x: Floats) -> Floats:
    """E to the power x by the table of powers of two; x is 0 or less, far below gives 0."""
    return exponential2((x * _LOG2_E).astype(np.float32))


def sigmoid(x: Floats) -> Floats:
    """One over one plus e to the power -x, by two tables; no overflow on either side."""
    decayed = exponential(-np.abs(x))
    share = reciprocal((np.float32(1) + decayed).astype(np.float32))
    return np.where(x >= 0, share, (decayed * share).astype(np.float32)).astype(np.float32)


def mean_square(x: Floats) -> Floats:
    """Mean of squares of each row, correctly rounded: squares of float32 are exact in float64."""
    squares = x.astype(np.float64) ** 2
    sums = [math.fsum(row) for row in squares]
    return (np.array(sums)[:, None] / x.shape[-1]).astype(np.float32)
