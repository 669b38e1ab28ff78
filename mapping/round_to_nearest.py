"""Weights to the numbers of common checkpoints, rounding to nearest: no data, no calibration.

Scales are rounded to FP16 before weights are divided by them, so that what is stored is what was rounded for.
"""

import numpy as np
import numpy.typing as npt

from mapping.frontend.gpt_oss import MXFP4_BLOCK
from mapping.frontend.gpt_oss_weights import Mxfp4
from mapping.frontend.qserve import ProgressiveMatrix
from mapping.frontend.stored import ZeroPointMatrix, consecutive_groups

Matrix = npt.NDArray[np.float32]

_SYMMETRIC_ZERO = 8
_PROTECTED = 119
"""Largest first-level integer of QServe: second-level rounding by up to 8 leaves it within 127."""
_MIDDLES = (0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0)
"""Between neighbours of the E2M1 magnitudes 0, 0.5, 1, 1.5, 2, 3, 4, 6."""


def zero_point_matrix(
    matrix: Matrix, group: int | None, *, symmetric: bool = False, least_zero: int = 0
) -> ZeroPointMatrix:
    """Codes of 0 to 15 with a scale and a zero point a group.

    Parameters
    ----------
    matrix : float32 [outputs, inputs]
        A last group may be shorter than the others.
    group : int or None
        Inputs of a group; None: all of a row.
    symmetric : bool
        All zero points are 8.
    least_zero : int
        Least zero point that the layout can hold.
    """
    grouped, outputs, inputs = _grouped(matrix, group)
    low = np.minimum(grouped.min(axis=2), 0)
    high = np.maximum(grouped.max(axis=2), 0)
    if symmetric:
        scales = _half(np.maximum(-low / 8, high / 7))
        zeros = np.full(scales.shape, _SYMMETRIC_ZERO, np.float32)
    else:
        scales = _half((high - low) / 15)
        zeros = np.clip(np.rint(-low / scales), least_zero, 15)
    codes = np.clip(np.rint(grouped / scales[:, :, None]) + zeros[:, :, None], 0, 15)
    return ZeroPointMatrix(
        codes.reshape(outputs, -1)[:, :inputs].astype(np.uint8),
        zeros.astype(np.uint8),
        scales,
        consecutive_groups(inputs, group),
    )


def progressive_matrix(matrix: Matrix, group: int) -> ProgressiveMatrix:
    """QServe's two levels: INT8 with a scale an output, and of these codes of 0 to 15 with a whole scale a group."""
    scales = _half(np.abs(matrix).max(axis=1) / _PROTECTED)
    first = np.clip(np.rint(matrix / scales[:, None]), -_PROTECTED, _PROTECTED).astype(np.float32)
    grouped, outputs, inputs = _grouped(first, group)
    low = np.minimum(grouped.min(axis=2), 0)
    high = np.maximum(grouped.max(axis=2), 0)
    steps = np.maximum(np.rint((high - low) / 15), 1)
    zeros = np.clip(np.rint(-low / steps), 0, 15)
    codes = np.clip(np.rint(grouped / steps[:, :, None]) + zeros[:, :, None], 0, 15)
    return ProgressiveMatrix(
        codes.reshape(outputs, -1)[:, :inputs].astype(np.uint8),
        zeros.astype(np.uint8),
        steps.astype(np.uint8),
        scales,
    )


def mxfp4_matrix(matrix: Matrix) -> Mxfp4:
    """E2M1 codes in blocks of 32 inputs; the power of two puts the largest weight of a block at 4 to 8, 6 saturates.

    Ties go to the even code (OCP Microscaling formats 1.0, 6.3).
    """
    grouped, outputs, inputs = _grouped(matrix, MXFP4_BLOCK)
    largest = np.abs(grouped).max(axis=2)
    _, exponents = np.frexp(largest)
    exponents = np.clip(np.where(largest > 0, exponents - 3, 0), -127, 127).astype(np.int16)
    scaled = np.ldexp(np.abs(grouped), -exponents[:, :, None].astype(np.int32))
    codes = np.zeros(grouped.shape, np.uint8)
    for lower, middle in enumerate(_MIDDLES):
        codes += (scaled >= middle) if lower % 2 else (scaled > middle)
    codes |= np.signbit(grouped).astype(np.uint8) << 3
    return Mxfp4(codes.reshape(outputs, inputs), exponents)


def _grouped(matrix: Matrix, group: int | None) -> tuple[Matrix, int, int]:
    """[outputs, groups, group] with zeros at the end, and the shape before."""
    outputs, inputs = matrix.shape
    length = group or inputs
    padded = np.pad(matrix, ((0, 0), (0, -inputs % length)))
    return padded.reshape(outputs, -1, length), outputs, inputs


def _half(scales: Matrix) -> Matrix:
    """Nearest FP16 as float32; what would vanish becomes the smallest one."""
    rounded = np.minimum(scales, 65504).astype(np.float16).astype(np.float32)
    return np.maximum(rounded, np.float32(2.0**-24))
