"""FP32 arithmetic of OpenLPU on NumPy arrays: finite only, flush to zero, nearest even.

`hw.spec.floating` states the rules. Every function here takes and returns *canonical* float32
values (no subnormals, infinities or NaNs); `canonical` makes them from what a memory holds.
Operands broadcast against each other. Nothing warns and nothing raises on any value.
"""

import numpy as np
import numpy.typing as npt

from hw.spec.floating import FP32

__all__ = [
    "FloatArray",
    "IntegerArray",
    "add",
    "canonical",
    "from_integer",
    "maximum",
    "multiply",
    "to_integer",
]

FloatArray = npt.NDArray[np.float32]
IntegerArray = npt.NDArray[np.int64]

_MAGNITUDE_MASK = np.uint32(FP32.sign_mask - 1)
_SIGN_MASK = np.uint32(FP32.sign_mask)
_SMALLEST = np.uint32(FP32.smallest)
_LARGEST = np.uint32(FP32.largest)
_RESERVED = np.uint32(FP32.exponent_reserved << FP32.fraction_bits)
_ABOVE_SMALLEST = np.uint32(FP32.smallest + 1)
# Magnitude patterns in [_ABOVE_SMALLEST, _RESERVED) need no look at the exact result.
_ORDINARY_RANGE = np.uint32(_RESERVED - _ABOVE_SMALLEST)
_SUBNORMAL_RANGE = np.uint32(FP32.smallest - 1)

_SMALLEST_VALUE = float(_SMALLEST.view(np.float32))
_LARGEST_VALUE = float(_LARGEST.view(np.float32))


def canonical(x: npt.ArrayLike) -> FloatArray:
    """Read float32 bit patterns the way the hardware does.

    Parameters
    ----------
    x : array_like of float32
        Any bit patterns.

    Returns
    -------
    ndarray of float32
        Subnormals replaced by zero, infinities and NaNs by the largest finite number, of the
        operand's sign. A new array only if something had to change.
    """
    values = np.asarray(x, np.float32)
    bits = values.view(np.uint32)
    magnitude = bits & _MAGNITUDE_MASK
    if ((magnitude >= _SMALLEST) & (magnitude < _RESERVED)).all():
        return values
    magnitude = np.where(magnitude < _SMALLEST, np.uint32(0), np.minimum(magnitude, _LARGEST))
    return (magnitude | (bits & _SIGN_MASK)).view(np.float32)


def multiply(a: npt.ArrayLike, b: npt.ArrayLike) -> FloatArray:
    """Product: flushed by its exact magnitude, rounded to nearest even, saturated.

    Parameters
    ----------
    a, b : array_like of float32
        Canonical operands.
    """
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    with np.errstate(all="ignore"):
        product = np.multiply(a, b)
    magnitude = product.view(np.uint32) & _MAGNITUDE_MASK
    # One unsigned comparison: zeros and subnormals wrap round to large numbers.
    if (magnitude - _ABOVE_SMALLEST < _ORDINARY_RANGE).all():
        return product
    # A product rounded up to the smallest normal number has to be flushed all the same. The
    # product of two 24-bit significands is exact in float64, so it is judged there.
    exact = np.multiply(a, b, dtype=np.float64)
    limited = np.clip(exact, -_LARGEST_VALUE, _LARGEST_VALUE)
    flushed = np.where(np.abs(exact) < _SMALLEST_VALUE, np.copysign(0.0, exact), limited)
    return flushed.astype(np.float32)


def add(a: npt.ArrayLike, b: npt.ArrayLike) -> FloatArray:
    """Sum: rounded to nearest even, flushed, saturated; an exact zero is -0 only for -0 + -0.

    Parameters
    ----------
    a, b : array_like of float32
        Canonical operands.
    """
    with np.errstate(all="ignore"):
        total = np.add(np.asarray(a, np.float32), np.asarray(b, np.float32))
    bits = total.view(np.uint32)
    magnitude = bits & _MAGNITUDE_MASK
    if (magnitude - _SMALLEST < _RESERVED - _SMALLEST).all():
        return total
    # A sum below the smallest normal number is exact, so that flushing its rounded value is right.
    subnormal = magnitude - np.uint32(1) < _SUBNORMAL_RANGE
    magnitude = np.where(subnormal, np.uint32(0), np.minimum(magnitude, _LARGEST))
    return (magnitude | (bits & _SIGN_MASK)).view(np.float32)


def maximum(a: npt.ArrayLike, b: npt.ArrayLike) -> FloatArray:
    """The larger by value; ``a`` where they are equal, which decides between -0 and +0.

    Parameters
    ----------
    a, b : array_like of float32
        Canonical operands.
    """
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    return np.where(b > a, b, a)


def to_integer(x: npt.ArrayLike, bits: int, shift: int = 0) -> IntegerArray:
    """``x * 2**shift`` to the nearest integer, ties to even, saturated symmetrically.

    Parameters
    ----------
    x : array_like of float32
        Canonical operand.
    bits : int
        Width of the result, 2 to 53; its range is ``+-(2**(bits - 1) - 1)``.
    shift : int
        Fraction bits of the result.

    Returns
    -------
    ndarray of int64
    """
    limit = float((1 << (bits - 1)) - 1)
    # Scaling by a power of two is exact in float64.
    scaled = np.rint(np.multiply(x, 2.0**shift, dtype=np.float64))
    return np.minimum(np.maximum(scaled, -limit), limit).astype(np.int64)


def from_integer(i: npt.ArrayLike, shift: int = 0) -> FloatArray:
    """The float32 nearest to ``i * 2**-shift``, ties to even; zero gives +0.

    Parameters
    ----------
    i : array_like of int64
        Any integers.
    shift : int
        Fraction bits of ``i``, 0 to 126: then neither flush nor saturation can occur.
    """
    # int64 to float32 rounds once, to nearest even; the scale is a power of two, hence exact.
    return np.multiply(np.asarray(i, np.int64).astype(np.float32), np.float32(2.0**-shift))
