"""Weights to integers and scales: symmetric, a scale a group of inputs, scales exact in FP16."""

from dataclasses import dataclass

import numpy as np

from mapping.recipe import WeightFormat

_CANDIDATES = np.linspace(0.70, 1.0, 13)
"""Fractions of the largest weight of a group that an INT4 scale is tried at."""


@dataclass(frozen=True)
class QuantizedMatrix:
    """A weight matrix as integers.

    Attributes
    ----------
    values : int8 [outputs, inputs]
        Inputs are padded with zeros to a multiple of the group.
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


def quantize_matrix(matrix: np.ndarray, format: WeightFormat) -> QuantizedMatrix:
    """Quantize float32 [outputs, inputs], rounding to nearest even.

    INT8 scales put the largest weight of a group at 127. INT4 scales are searched: of several scales, with either sign
    (the code -8 has no counterpart), the one of least squared error is kept.
    """
    outputs, inputs = matrix.shape
    group = format.group or inputs
    padded = np.zeros((outputs, -(-inputs // group) * group), np.float32)
    padded[:, :inputs] = matrix
    grouped = padded.reshape(outputs, -1, group)
    scales = _scales_int8(grouped) if format.bits == 8 else _scales_int4(grouped)
    values = _round(grouped, scales, format.bits)
    return QuantizedMatrix(values.reshape(outputs, -1), scales, format, inputs)


def _half(scales: np.ndarray) -> np.ndarray:
    """Nearest FP16, away from zero where it would vanish; as float32."""
    smallest = np.float32(2.0**-24)
    rounded = np.clip(scales, -65504, 65504).astype(np.float16).astype(np.float32)
    return np.where(rounded == 0, np.copysign(smallest, scales), rounded).astype(np.float32)


def _round(grouped: np.ndarray, scales: np.ndarray, bits: int) -> np.ndarray:
    lowest = -127 if bits == 8 else -8
    return np.clip(np.rint(grouped / scales[:, :, None]), lowest, (1 << (bits - 1)) - 1).astype(
        np.int8
    )


def _scales_int8(grouped: np.ndarray) -> np.ndarray:
    return _half(np.abs(grouped).max(axis=2) / 127)


def _scales_int4(grouped: np.ndarray) -> np.ndarray:
    low, high = grouped.min(axis=2), grouped.max(axis=2)
    # The code -8 goes to the larger side: a negative scale if that is the positive one.
    extreme = np.where(high > -low, high, low)
    best = _half(extreme / -8)
    least = np.full(best.shape, np.inf, np.float32)
    for divisor in (-8.0, -7.5, 7.0):
        for fraction in _CANDIDATES:
            scales = _half(extreme * np.float32(fraction / divisor))
            error = np.square(_round(grouped, scales, 4) * scales[:, :, None] - grouped).sum(axis=2)
            better = error < least
            best, least = np.where(better, scales, best), np.where(better, error, least)
    return best.astype(np.float32)
