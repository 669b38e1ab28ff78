"""Values of operands: what the bits at the ports of a processing element mean."""

import numpy as np
import numpy.typing as npt

from hw.spec.processing_element import Operand

__all__ = ["Codes", "Values", "decode", "operand_bits", "signed_value", "split"]

Codes = npt.NDArray[np.int64]
Values = npt.NDArray[np.int64] | npt.NDArray[np.float64]

_INTEGER_BITS = {
    Operand.INT2: 2,
    Operand.INT4: 4,
    Operand.INT5: 5,
    Operand.INT8: 8,
    Operand.INT12: 12,
    Operand.INT14: 14,
    Operand.INT24: 24,
}


def operand_bits(operand: Operand) -> int:
    """Width of one operand."""
    return _INTEGER_BITS[operand] if operand in _INTEGER_BITS else 4


def signed_value(codes: npt.ArrayLike, bits: int) -> Codes:
    """Bits of two's complement as integers; bits above the width are ignored."""
    codes = np.asarray(codes, np.int64) & ((1 << bits) - 1)
    return codes - ((codes >> (bits - 1)) << bits)


def split(codes: npt.ArrayLike, bits: int, count: int) -> Codes:
    """Several operands of one port, the lowest bits first, along a new last axis."""
    codes = np.asarray(codes, np.int64)
    return (codes[..., np.newaxis] >> (bits * np.arange(count))) & ((1 << bits) - 1)


def decode(operand: Operand, codes: npt.ArrayLike) -> Values:
    """Values of operand codes, exactly.

    Parameters
    ----------
    operand : Operand
        The format.
    codes : array_like of int
        Bit patterns.

    Returns
    -------
    ndarray of int64
        Of the shape of `codes`.
    """
    codes = np.asarray(codes, np.int64)
    if operand is Operand.UINT4:
        return codes & 15
    return signed_value(codes, _INTEGER_BITS[operand])
