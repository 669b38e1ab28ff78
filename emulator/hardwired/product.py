"""What a hardwired matrix computes, and what it is fed: by integer arithmetic on whole numbers."""

import numpy as np
import numpy.typing as npt

from hw.spec.errors import InputError

__all__ = ["digits", "multiply"]

Integers = npt.NDArray[np.int64]


def multiply(
    weights: npt.ArrayLike, inputs: npt.ArrayLike, biases: npt.ArrayLike | None = None
) -> Integers:
    """Outputs of a matrix of integers.

    Parameters
    ----------
    weights : integers [outputs, inputs]
    inputs : integers [..., inputs]
        INT8 vectors.
    biases : integers [outputs], optional

    Returns
    -------
    int64 [..., outputs]
        Exact.

    Raises
    ------
    InputError
        If an input is not an INT8.
    """
    vectors = np.asarray(inputs, dtype=np.int64)
    if vectors.size and (vectors.min() < -128 or vectors.max() > 127):
        raise InputError("inputs: expected INT8, found a number outside of -128 to 127")
    result = np.einsum("...i,oi->...o", vectors, np.asarray(weights, dtype=np.int64))
    return result if biases is None else result + np.asarray(biases, dtype=np.int64)


def digits(
    inputs: npt.ArrayLike, cycle: int, bits: int, taps: int, cycles: int, offset: bool
) -> npt.NDArray[np.uint8]:
    """Bits that a digit-serial design is fed in one cycle.

    Parameters
    ----------
    inputs : integers [vectors, inputs]
    cycle : int
        From 0, lowest digits first.
    bits, taps, cycles : int
        Bits of a digit, versions ``x * 2**tap`` of each element, cycles of a vector.
    offset : bool
        Numbers are made positive by adding half of the range of all digits.

    Returns
    -------
    uint8 [vectors, inputs * taps * bits]
        0 or 1; bits of a digit first, then taps.
    """
    scaled = np.asarray(inputs, dtype=np.int64)[..., None] * 2 ** np.arange(taps)
    if offset:
        scaled = scaled + 2 ** (cycles * bits - 1)
    shifted = scaled[..., None] // 2 ** np.arange(cycle * bits, (cycle + 1) * bits)
    return (shifted % 2).astype(np.uint8).reshape(len(scaled), -1)
