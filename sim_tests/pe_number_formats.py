"""Matrices rounded to common number formats: bit patterns, and the numbers that they stand for."""

import numpy as np
import numpy.typing as npt

__all__ = [
    "GROUP",
    "Codes",
    "Matrix",
    "bit_patterns",
    "in_blocks",
    "float16",
    "int4_weights",
    "round_symmetric",
    "round_to_table",
    "zero_point_weights",
]

Matrix = npt.NDArray[np.float64]
Codes = npt.NDArray[np.uint64]

GROUP = 128
"""Weights that share a scale."""


def bit_patterns(values: npt.ArrayLike, width: int) -> Codes:
    return (np.asarray(values).astype(np.int64) & ((1 << width) - 1)).astype(np.uint64)


def in_blocks(values: Matrix, block: int) -> Matrix:
    """[rows, blocks, block]."""
    return values.reshape(len(values), -1, block)


def round_symmetric(values: Matrix, block: int, largest: int) -> tuple[Matrix, Matrix]:
    """Symmetric integers and what they stand for, a scale a block."""
    parts = in_blocks(values, block)
    scale = np.abs(parts).max(-1, keepdims=True) / largest
    scale = np.where(scale == 0, 1, scale)
    integers = np.clip(np.rint(parts / scale), -largest, largest)
    return integers.reshape(values.shape), (integers * scale).reshape(values.shape)


def round_to_table(
    values: Matrix, block: int, grid: npt.NDArray[np.float64], power_of_two: bool = False
) -> tuple[npt.NDArray[np.int64], Matrix]:
    """Index of the nearest entry of a table of numbers, and the number times its block's scale."""
    parts = in_blocks(values, block)
    largest = np.abs(parts).max(-1, keepdims=True)
    scale = np.where(largest == 0, 1, largest / np.nanmax(np.abs(grid)))
    if power_of_two:
        # The rule of the OCP specification: elements above the largest number saturate.
        exponent = np.floor(np.log2(np.where(largest == 0, 1, largest)))
        scale = np.exp2(exponent - np.floor(np.log2(np.nanmax(grid))))
    order = np.argsort(grid)
    ascending = grid[order]
    edges = (ascending[1:] + ascending[:-1]) / 2
    index = order[np.searchsorted(edges, parts / scale)]
    return index.reshape(values.shape), (grid[index] * scale).reshape(values.shape)


def int4_weights(weight: Matrix) -> tuple[Matrix, Matrix]:
    from mapping.quantize import quantize_matrix
    from mapping.recipe import WeightFormat

    matrix = quantize_matrix(weight.astype(np.float32), WeightFormat(bits=4, group=GROUP))
    return matrix.values.astype(np.float64), matrix.dequantize().astype(np.float64)


def zero_point_weights(weight: Matrix) -> tuple[Matrix, Matrix, Matrix, Matrix]:
    """Codes 0..15, zero points and scales for each weight, and numbers."""
    parts = in_blocks(weight, GROUP)
    low, high = parts.min(-1, keepdims=True), parts.max(-1, keepdims=True)
    scale = (np.maximum(high - low, 1e-5) / 15).astype(np.float16).astype(np.float64)
    zero = np.clip(np.rint(-low / scale), 0, 15)
    codes = np.clip(np.rint(parts / scale) + zero, 0, 15)
    numbers = (codes - zero) * scale
    zeros, scales = np.broadcast_to(zero, parts.shape), np.broadcast_to(scale, parts.shape)
    return tuple(x.reshape(weight.shape) for x in (codes, zeros, scales, numbers))  # type: ignore[return-value] - four of them


def float16(values: Matrix) -> tuple[Codes, Matrix]:
    half = values.astype(np.float16)
    return half.view(np.uint16).astype(np.uint64), half.astype(np.float64)
