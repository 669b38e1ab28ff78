"""MXFP4 checkpoints of plain matrices: E2M1 codes in blocks of 32 inputs with a power of two each.

========= ====================================================
tensor    layout
========= ====================================================
_blocks   uint8 [outputs, inputs / 32, 16], low nibble first
_scales   uint8 [outputs, inputs / 32]: E8M0, 2^(byte - 127)
========= ====================================================

Names end as those of gpt-oss do: ``weight_blocks`` and ``weight_scales``.
"""

import numpy as np

from hw.spec.layout import FP4_VALUES
from mapping.frontend.gpt_oss import MXFP4_BLOCK
from mapping.frontend.gpt_oss_weights import SCALE_BIAS, Mxfp4, unpack_mxfp4
from mapping.frontend.safetensors_file import Shape, TensorFolder
from mapping.frontend.stored import (
    StoredMatrix,
    Tensors,
    check_divides,
    check_shapes,
    consecutive_groups,
)

_TWICE = np.array([*FP4_VALUES, *(-value for value in FP4_VALUES)], np.int8)


def check_mxfp4(files: TensorFolder, base: str, shape: Shape) -> Shape:
    """Check headers only; returns the shape of the scales.

    Raises
    ------
    InputError
        If tensors are missing, or have other shapes or types.
    """
    outputs, inputs = shape
    check_divides(files, base, "inputs", inputs, MXFP4_BLOCK)
    scales = (outputs, inputs // MXFP4_BLOCK)
    check_shapes(
        files,
        base,
        {
            "weight_blocks": ((*scales, MXFP4_BLOCK // 2), ("U8",)),
            "weight_scales": (scales, ("U8",)),
        },
    )
    return scales


def read_mxfp4(files: TensorFolder, base: str, shape: Shape) -> StoredMatrix:
    """Read one matrix.

    Raises
    ------
    InputError
        If tensors are missing or have other shapes or types, or a scale is NaN.
    """
    scales = check_mxfp4(files, base, shape)
    return stored_mxfp4(
        unpack_mxfp4(
            files.load_bytes(f"{base}.weight_blocks", (*scales, MXFP4_BLOCK // 2)),
            files.load_bytes(f"{base}.weight_scales", scales),
            f"{files.folder}: tensor '{base}.weight_scales'",
        )
    )


def stored_mxfp4(matrix: Mxfp4) -> StoredMatrix:
    """The matrix as integers of twice the E2M1 numbers, with half the scales."""
    inputs = matrix.codes.shape[1]
    halves = np.ldexp(np.float32(1), matrix.exponents.astype(np.int32) - 1).astype(np.float32)
    return StoredMatrix(
        _TWICE[matrix.codes], halves, consecutive_groups(inputs, MXFP4_BLOCK), "fp4"
    )


def write_mxfp4(matrix: Mxfp4) -> Tensors:
    """The tensors of a matrix [outputs, inputs]."""
    outputs, blocks = matrix.exponents.shape
    pairs = matrix.codes.reshape(outputs, blocks, MXFP4_BLOCK // 2, 2)
    return {
        "weight_blocks": (pairs[..., 0] | pairs[..., 1] << 4).astype(np.uint8),
        "weight_scales": (matrix.exponents + SCALE_BIAS).astype(np.uint8),
    }
