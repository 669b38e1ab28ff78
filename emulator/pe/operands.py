"""Values of operands: what the bits at the ports of a processing element mean."""

import numpy as np
import numpy.typing as npt

from hw.spec.processing_element import Operand

__all__ = ["Codes", "Values", "decode", "signed_value", "split"]

Codes = npt.NDArray[np.int64]
Values = npt.NDArray[np.int64] | npt.NDArray[np.float64]

_INTEGER_BITS = {
    Operand.INT4: 4,
    Operand.INT5: 5,
    Operand.INT8: 8,
    Operand.INT12: 12,
    Operand.INT14: 14,
    Operand.INT24: 24,
}

_TWICE_E2M1 = np.array([0, 1, 2, 3, 4, 6, 8, 12])


def signed_value(codes: npt.ArrayLike, bits: int) -> Codes:
    """Bits of two's complement as integers; bits above the width are ignored."""
    codes = np.asarray(codes, np.int64) & ((1 << bits) - 1)
    return codes - ((codes >> (bits - 1)) << bits)


def split(codes: npt.ArrayLike, bits: int, count: int) -> Codes:
    """Several operands of one port, the lowest bits first, along a new last axis."""
    # Unsigned, because a port may be 64 bits wide.
    words = np.asarray(codes).astype(np.uint64)
    places = np.arange(count, dtype=np.uint64) * np.uint64(bits)
    return ((words[..., np.newaxis] >> places) & np.uint64((1 << bits) - 1)).astype(np.int64)


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
    ndarray of int64, or of float64 where the format has fractions
        Of the shape of `codes`. E2M1 is an integer, twice its value.
    """
    codes = np.asarray(codes, np.int64)
    match operand:
        case Operand.UINT4:
            return codes & 15
        case Operand.FP16:
            return codes.astype(np.uint16).view(np.float16).astype(np.float64)
        case Operand.E5M2:
            # It is the upper half of an FP16 number.
            return (codes << 8).astype(np.uint16).view(np.float16).astype(np.float64)
        case Operand.E4M3:
            return _decode_e4m3(codes)
        case Operand.E2M1:
            return _TWICE_E2M1[codes & 7] * np.where(codes & 8, -1, 1)
        case Operand.DECODED_FLINT | Operand.DECODED_OLIVE:
            return signed_value(codes, 4) * (1 << (codes >> 4))
        case _:
            return signed_value(codes, _INTEGER_BITS[operand])


def _decode_e4m3(codes: Codes) -> npt.NDArray[np.float64]:
    exponent, fraction = (codes >> 3) & 15, codes & 7
    magnitude = np.where(
        exponent == 0,
        np.ldexp(fraction.astype(np.float64), -9),
        np.ldexp(1 + fraction / 8, exponent - 7),
    )
    magnitude = np.where((codes & 127) == 127, np.nan, magnitude)
    return np.where(codes & 128, -magnitude, magnitude)
