"""FP32 arithmetic of OpenLPU on rows of numbers, in place: the rules of `hw.spec.floating`, in doubles.

A double holds every product of two FP32 numbers exactly, and enough of a sum that rounding it again gives the
correctly rounded sum (53 >= 2*24 + 2 bits).
"""

import numpy as np
import numpy.typing as npt

from emulator.compiled import compiled
from emulator.kernels.layout import Real, Whole
from hw.spec.floating import FP32
from hw.spec.functions import (
    COEFFICIENT_FRACTION_BITS,
    RESULT_FRACTION_BITS,
    STEP_BITS,
    TABLES,
    Function,
)

Floats = npt.NDArray[np.float32]

_SMALLEST = 2.0**-126
_LARGEST = (2.0 - 2.0**-23) * 2.0**127
_MAGNITUDE = np.int32(0x7FFFFFFF)
_SMALLEST_BITS, _LARGEST_BITS = np.int32(FP32.smallest), np.int32(FP32.largest)
_FRACTION = FP32.fraction_bits
_FRACTION_MASK = (1 << _FRACTION) - 1
_BIAS = FP32.bias
_STEP_MASK = (1 << STEP_BITS) - 1
_SHIFT = COEFFICIENT_FRACTION_BITS + 2 * STEP_BITS - RESULT_FRACTION_BITS
_SEGMENTS = {
    function: np.array([[s.constant, s.linear, s.quadratic] for s in segments], np.int64)
    for function, segments in TABLES.items()
}
_EXPONENTIAL2 = _SEGMENTS[Function.EXPONENTIAL2]
_RECIPROCAL = _SEGMENTS[Function.RECIPROCAL]
_ROOT = _SEGMENTS[Function.RECIPROCAL_SQUARE_ROOT]
_IDENTITY = Function.IDENTITY.value
_IS_EXPONENTIAL2, _IS_RECIPROCAL = Function.EXPONENTIAL2.value, Function.RECIPROCAL.value
_IS_ROOT = Function.RECIPROCAL_SQUARE_ROOT.value


@compiled
def canonical(u: Floats, n: Whole) -> None:
    """Subnormals to zero, infinities and NaNs to the largest number, of their sign."""
    bits = u.view(np.int32)
    for i in range(n):
        magnitude = bits[i] & _MAGNITUDE
        sign = bits[i] & ~_MAGNITUDE
        magnitude = np.int32(0) if magnitude < _SMALLEST_BITS else magnitude
        magnitude = _LARGEST_BITS if magnitude > _LARGEST_BITS else magnitude
        bits[i] = sign | magnitude


@compiled
def rounded(exact: Real) -> np.float32:
    """Flushed by its magnitude before rounding, saturated, rounded to nearest even."""
    # Zero times a finite number is zero of its sign.
    exact = exact if abs(exact) >= _SMALLEST else exact * 0.0
    exact = _LARGEST if exact > _LARGEST else exact
    exact = -_LARGEST if exact < -_LARGEST else exact
    return np.float32(exact)


@compiled
def multiply(u: Floats, t: Floats, n: Whole) -> None:
    """u *= t."""
    for i in range(n):
        u[i] = rounded(np.float64(u[i]) * np.float64(t[i]))


@compiled
def add(u: Floats, t: Floats, n: Whole) -> None:
    """u += t."""
    for i in range(n):
        u[i] = rounded(np.float64(u[i]) + np.float64(t[i]))


@compiled
def _significand(table: npt.NDArray[np.int64], position: Whole) -> Whole:
    """Significand less its hidden bit, at a segment index and step."""
    segment, step = position >> STEP_BITS, position & _STEP_MASK
    total = table[segment, 0] << (2 * STEP_BITS)
    total += (table[segment, 1] * step) << STEP_BITS
    total += table[segment, 2] * step * step
    return (total >> _SHIFT) - (1 << _FRACTION)


@compiled
def _exponential2(u: Floats, n: Whole) -> None:
    bits = u.view(np.int32)
    for i in range(n):
        x = np.float64(u[i])
        if x < 1 - _BIAS:
            u[i] = np.float32(0.0)
        elif x >= _BIAS + 1:
            bits[i] = _LARGEST_BITS
        else:
            fixed = np.int64(np.rint(x * (1 << _FRACTION)))
            exponent = (fixed >> _FRACTION) + _BIAS
            bits[i] = (exponent << _FRACTION) + _significand(_EXPONENTIAL2, fixed & _FRACTION_MASK)


@compiled
def _reciprocal(u: Floats, n: Whole) -> None:
    bits = u.view(np.int32)
    for i in range(n):
        sign, magnitude = bits[i] & ~_MAGNITUDE, np.int64(bits[i] & _MAGNITUDE)
        exponent = magnitude >> _FRACTION
        if exponent == 0:
            result = np.int64(_LARGEST_BITS)
        else:
            result = (2 * _BIAS - 1 - exponent) << _FRACTION
            result += _significand(_RECIPROCAL, magnitude & _FRACTION_MASK)
            if result < _SMALLEST_BITS:
                result = np.int64(0)
        bits[i] = np.int32(result) | sign


@compiled
def _reciprocal_square_root(u: Floats, n: Whole) -> None:
    bits = u.view(np.int32)
    for i in range(n):
        x = np.int64(bits[i])
        if x < _SMALLEST_BITS:
            bits[i] = _LARGEST_BITS
            continue
        # Two tables of segments: for even and for odd powers of two.
        power = (x >> _FRACTION) - _BIAS
        position = (power & 1) << _FRACTION | (x & _FRACTION_MASK)
        half = power >> 1
        bits[i] = ((_BIAS - 1 - half) << _FRACTION) + _significand(_ROOT, position)


@compiled
def apply(function: Whole, u: Floats, n: Whole) -> None:
    """u = function(u)."""
    if function == _IDENTITY:
        return
    if function == _IS_EXPONENTIAL2:
        _exponential2(u, n)
    elif function == _IS_RECIPROCAL:
        _reciprocal(u, n)
    elif function == _IS_ROOT:
        _reciprocal_square_root(u, n)
    else:
        for i in range(n):
            u[i] = u[i] if u[i] > 0 else np.float32(0.0)


@compiled
def to_integer(x: np.float32, limit: float, factor: float) -> Real:
    """Nearest integer to x times a power of two, ties to even, saturated; as a double."""
    scaled = np.rint(np.float64(x) * factor)
    scaled = limit if scaled > limit else scaled
    return -limit if scaled < -limit else scaled
