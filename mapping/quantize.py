"""Weights to integers and scales: symmetric, a scale a group of inputs, scales exact in FP16.

Sparse formats first lose the least important weights of every 16 (`mapping.pruning`).
"""

from dataclasses import dataclass

import numpy as np

from hw.spec.layout import FP4_VALUES
from mapping.formats import WeightFormat
from mapping.pruning import prune
from mapping.quantize_search import search_scales

_WEIGHTS_AT_ONCE = 1 << 20
_CANDIDATES = np.linspace(0.70, 1.0, 13)
"""Fractions of the largest weight of a group that a scale is tried at."""
_COARSE_CANDIDATES = np.linspace(0.30, 1.0, 15)
"""The same for formats of few levels, whose best scale may cut off more."""


@dataclass(frozen=True)
class QuantizedMatrix:
    """A weight matrix as integers.

    Attributes
    ----------
    values : int8 [outputs, inputs]
        As the matrix engine multiplies them (FP4: twice their value). Inputs are padded with zeros to a multiple of the group.
    scales : float32 [outputs, groups]
        Exact in FP16; a weight is value * scale of its group.
    format : WeightFormat
    inputs : int
        Inputs of the matrix, before padding.
    """

    values: np.ndarray
    scales: np.ndarray
    format: WeightFormat
    inputs: int

    def dequantize(self) -> np.ndarray:
        """The matrix that the integers stand for: float32 [outputs, inputs]."""
        outputs, groups = self.scales.shape
        grouped = self.values.reshape(outputs, groups, -1) * self.scales[:, :, None]
        return grouped.reshape(outputs, -1)[:, : self.inputs].astype(np.float32)


def quantize_matrix(
    matrix: np.ndarray, format: WeightFormat, norms: np.ndarray | None = None
) -> QuantizedMatrix:
    """Quantize float32 [outputs, inputs], rounding to nearest even.

    INT8 scales put the largest weight of a group at 127, and MXFP4 scales are the power of two of its specification.
    The others are searched: of several scales, for integers with either sign (the lowest code has no counterpart),
    the one of least squared error is kept.

    Parameters
    ----------
    norms : float [inputs], optional
        Root mean square of each input. Weights are then pruned, and errors weighted, by what they do to the outputs.
    """
    inputs = matrix.shape[1]
    group = format.group or inputs
    width = -(-inputs // group) * group
    importance = None
    if norms is not None:
        importance = np.zeros(width, np.float32)
        importance[:inputs] = np.square(norms)
        importance = importance.reshape(-1, group)
    values = np.empty((len(matrix), width), np.int8)
    scales = np.empty((len(matrix), width // group), np.float32)
    # Rows have nothing to do with each other; a few at a time need little memory beside the result.
    rows_at_once = max(1, _WEIGHTS_AT_ONCE // width)
    for first in range(0, len(matrix), rows_at_once):
        rows = slice(first, first + rows_at_once)
        part = matrix[rows]
        padded = np.zeros((len(part), width), np.float32)
        padded[:, :inputs] = prune(part, format.kept, norms) if format.kept else part
        grouped = padded.reshape(len(part), -1, group)
        scales[rows] = _scales(grouped, format, importance)
        values[rows] = _round(grouped, scales[rows], format).reshape(len(part), width)
    return QuantizedMatrix(values, scales, format, inputs)


def _scales(grouped: np.ndarray, format: WeightFormat, importance: np.ndarray | None) -> np.ndarray:
    if format.kind == "mxfp4":
        # Weights stand in as twice their value, so that scales are halved; 6 = 1.5 * 2**2 is the largest.
        amax = np.abs(grouped).max(axis=2)
        _, exponent = np.frexp(amax)
        return np.ldexp(np.float32(1), np.clip(exponent - 4, -24, 15))
    if format.kind == "fp4":
        extreme = np.abs(grouped).max(axis=2)
        tries = [np.float32(fraction / FP4_VALUES[-1]) for fraction in _COARSE_CANDIDATES]
        return _search_fp4(grouped, extreme, tries, importance)
    if format.bits == 8:
        return _half(np.abs(grouped).max(axis=2) / 127)
    low, high = grouped.min(axis=2), grouped.max(axis=2)
    # The lowest code goes to the larger side: a negative scale if that is the positive one.
    extreme = np.where(high > -low, high, low)
    lowest = float(-(1 << format.bits - 1))
    fractions = _CANDIDATES if format.bits > 3 else _COARSE_CANDIDATES
    divisors = (lowest, lowest + 0.5, -lowest - 1)
    tries = [np.float32(fraction / divisor) for divisor in divisors for fraction in fractions]
    return search_scales(grouped, extreme, np.array(tries), format.bits, importance)


def _search_fp4(
    grouped: np.ndarray,
    extreme: np.ndarray,
    tries: list[np.float32],
    importance: np.ndarray | None,
) -> np.ndarray:
    """The scale of least error of each group: float32 [outputs, groups], of `extreme` times each of `tries`."""
    best = _half(extreme * tries[-1])
    least = np.full(best.shape, np.inf, np.float32)
    for factor in tries:
        scales = _half(extreme * factor)
        values = _round_fp4(grouped / scales[:, :, None])
        error = np.square(values * scales[:, :, None] - grouped)
        if importance is not None:
            error *= importance
        error = error.sum(axis=2)
        better = error < least
        best, least = np.where(better, scales, best), np.where(better, error, least)
    return best.astype(np.float32)


def _half(scales: np.ndarray) -> np.ndarray:
    """Nearest FP16, away from zero where it would vanish; as float32."""
    smallest = np.float32(2.0**-24)
    rounded = np.clip(scales, -65504, 65504).astype(np.float16).astype(np.float32)
    return np.where(rounded == 0, np.copysign(smallest, scales), rounded).astype(np.float32)


def _round(grouped: np.ndarray, scales: np.ndarray, format: WeightFormat) -> np.ndarray:
    if format.kind != "integer":
        return _round_fp4(grouped / scales[:, :, None])
    lowest = -127 if format.bits == 8 else -(1 << format.bits - 1)
    highest = (1 << format.bits - 1) - 1
    return np.clip(np.rint(grouped / scales[:, :, None]), lowest, highest).astype(np.int8)


def _round_fp4(values: np.ndarray) -> np.ndarray:
    """Nearest of twice the E2M1 numbers, ties to the one whose code is even; int8."""
    table = np.array(FP4_VALUES, np.float32)
    middles = (table[1:] + table[:-1]) / 2
    magnitude = np.abs(values)
    code = np.searchsorted(middles, magnitude.ravel(), side="left").reshape(values.shape)
    # On a tie `left` gives the lower code; the higher one is even if the lower is odd.
    tie = (code < len(middles)) & (middles[np.minimum(code, len(middles) - 1)] == magnitude)
    code += tie & (code % 2 == 1)
    return np.copysign(table[code], values).astype(np.int8)
