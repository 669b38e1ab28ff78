"""Tabulated functions on float32 arrays, in int64 arithmetic; `hw.spec.functions` defines them.

Operands are canonical (see `emulator.numerics.floating`), and so are results. The quadratic is a
sum of powers here, where the hardware nests it; both are exact up to the one truncation.
"""

import numpy as np
import numpy.typing as npt

from emulator.numerics.floating import FloatArray, IntegerArray
from hw.spec.floating import FP32
from hw.spec.functions import (
    COEFFICIENT_FRACTION_BITS,
    RESULT_FRACTION_BITS,
    STEP_BITS,
    TABLES,
    Function,
)

__all__ = ["apply", "exponential2", "reciprocal", "reciprocal_square_root", "relu"]

_FRACTION_BITS = FP32.fraction_bits
_FRACTION_MASK = (1 << _FRACTION_BITS) - 1
_MAGNITUDE_MASK = FP32.sign_mask - 1
_STEP_MASK = (1 << STEP_BITS) - 1
_TRUNCATED_BITS = COEFFICIENT_FRACTION_BITS + 2 * STEP_BITS - RESULT_FRACTION_BITS
_LARGEST_VALUE = np.uint32(FP32.largest).view(np.float32)

# The largest float32 below the first operand that saturates.
_EXPONENTIAL2_LAST = np.nextafter(np.float32(FP32.largest_exponent + 1), np.float32(0))
_EXPONENTIAL2_FIRST = np.float32(FP32.smallest_exponent)


class _Table:
    """Coefficient columns of one function, scaled for a plain sum of powers of the step."""

    def __init__(self, function: Function) -> None:
        segments = TABLES[function]
        self.constant = np.array([s.constant << (2 * STEP_BITS) for s in segments], np.int64)
        self.linear = np.array([s.linear << STEP_BITS for s in segments], np.int64)
        self.quadratic = np.array([s.quadratic for s in segments], np.int64)

    def significand(self, position: IntegerArray) -> IntegerArray:
        """Significand less its hidden bit, 0 to 2**23, at a segment index and step."""
        index = position >> STEP_BITS
        step = position & _STEP_MASK
        total = self.constant[index]
        total = total + self.linear[index] * step
        total += self.quadratic[index] * (step * step)
        return (total >> _TRUNCATED_BITS) - (1 << _FRACTION_BITS)


_EXPONENTIAL2 = _Table(Function.EXPONENTIAL2)
_RECIPROCAL = _Table(Function.RECIPROCAL)
_RECIPROCAL_SQUARE_ROOT = _Table(Function.RECIPROCAL_SQUARE_ROOT)


def _to_float(bits: IntegerArray) -> FloatArray:
    """Bit patterns held in int64, as float32."""
    return bits.astype(np.uint32).view(np.float32)


def exponential2(x: npt.ArrayLike) -> FloatArray:
    """Two to the power ``x``: +0 below -126, the largest finite number from 128 on.

    Parameters
    ----------
    x : array_like of float32
        Canonical operand.

    Returns
    -------
    ndarray of float32
        Non-decreasing in ``x``; relative error below 2**-23; exact for integers.
    """
    x = np.asarray(x, np.float32)
    inside = np.minimum(np.maximum(x, _EXPONENTIAL2_FIRST), _EXPONENTIAL2_LAST)
    # np.rint takes ties to even, and the scaling is exact in float64.
    fixed = np.rint(np.multiply(inside, 1 << _FRACTION_BITS, dtype=np.float64)).astype(np.int64)
    # A significand of 2**24 carries into the exponent by itself.
    exponent = (fixed >> _FRACTION_BITS) + FP32.bias
    bits = (exponent << _FRACTION_BITS) + _EXPONENTIAL2.significand(fixed & _FRACTION_MASK)
    result = _to_float(bits)
    # Where the operand was not limited, which is nearly always everywhere, nothing is left to do.
    if (inside == x).all():
        return result
    result = np.where(x < _EXPONENTIAL2_FIRST, np.float32(0), result)
    return np.where(x > _EXPONENTIAL2_LAST, _LARGEST_VALUE, result)


def reciprocal(x: npt.ArrayLike) -> FloatArray:
    """One over ``x``: zero gives the largest finite number of its sign.

    Parameters
    ----------
    x : array_like of float32
        Canonical operand.

    Returns
    -------
    ndarray of float32
        Relative error below 2**-22; exact for powers of two; zero of the operand's sign where the
        result's exponent would be below -126.
    """
    bits = np.asarray(x, np.float32).view(np.int32).astype(np.int64)
    magnitude = bits & _MAGNITUDE_MASK
    exponent = magnitude >> _FRACTION_BITS
    result = ((2 * FP32.bias - 1 - exponent) << _FRACTION_BITS) + _RECIPROCAL.significand(
        magnitude & _FRACTION_MASK
    )
    result = np.where(result < FP32.smallest, 0, result)
    result = np.where(exponent == 0, FP32.largest, result)
    return _to_float(result | (bits & FP32.sign_mask))


def reciprocal_square_root(x: npt.ArrayLike) -> FloatArray:
    """One over the square root of ``x``; zero or negative gives the largest finite number.

    Parameters
    ----------
    x : array_like of float32
        Canonical operand.

    Returns
    -------
    ndarray of float32
        Relative error below 2**-23; exact for powers of four.
    """
    bits = np.asarray(x, np.float32).view(np.int32).astype(np.int64)
    # The bias is odd, so an odd exponent field is an even power of two.
    position = (bits + FP32.smallest) & ((1 << (_FRACTION_BITS + 1)) - 1)
    exponent = ((bits >> _FRACTION_BITS) - FP32.bias) >> 1
    result = ((FP32.bias - 1 - exponent) << _FRACTION_BITS) + _RECIPROCAL_SQUARE_ROOT.significand(
        position
    )
    return _to_float(np.where(bits < FP32.smallest, FP32.largest, result))


def relu(x: npt.ArrayLike) -> FloatArray:
    """The operand where it is above zero, otherwise +0.

    Parameters
    ----------
    x : array_like of float32
        Canonical operand.
    """
    x = np.asarray(x, np.float32)
    return np.where(x > 0, x, np.float32(0))


def apply(function: Function, x: npt.ArrayLike) -> FloatArray:
    """The function unit: ``function`` of each element.

    Parameters
    ----------
    function : Function
        What to compute; IDENTITY returns the operand.
    x : array_like of float32
        Canonical operand.
    """
    match function:
        case Function.IDENTITY:
            return np.asarray(x, np.float32)
        case Function.EXPONENTIAL2:
            return exponential2(x)
        case Function.RECIPROCAL:
            return reciprocal(x)
        case Function.RECIPROCAL_SQUARE_ROOT:
            return reciprocal_square_root(x)
        case Function.RELU:
            return relu(x)
