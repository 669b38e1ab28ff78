"""AWQ checkpoints, as the AutoAWQ library writes them for its GEMM and its GEMV kernels.

========= ================================ =======================================
tensor    gemm                             gemv
========= ================================ =======================================
qweight   int32 [inputs, outputs / 8]      int32 [outputs, inputs / 8]
qzeros    int32 [groups, outputs / 8]      int32 [outputs, padded groups / 8]
scales    float16 [groups, outputs]        float16 [outputs, padded groups]
========= ================================ =======================================

Nibbles of ``gemm`` are interleaved (`mapping.frontend.nibbles`), those of ``gemv`` in natural order. The groups of
``gemv`` are padded to a multiple of 8, of 16 (groups of 64 inputs) or of 32 (groups of 32 inputs).
"""

import numpy as np

from hw.spec.errors import InputError
from mapping.frontend.nibbles import INTERLEAVED, pack_words, unpack_words
from mapping.frontend.safetensors_file import READABLE_TYPES, Shape, TensorFolder
from mapping.frontend.stored import (
    Codes,
    Tensors,
    ZeroPointMatrix,
    check_divides,
    check_shapes,
    consecutive_groups,
    count_groups,
)

_TYPES = tuple(READABLE_TYPES)


def padded_groups(inputs: int, group: int | None) -> int:
    """Groups of a row as the GEMV layout stores them.

    Raises
    ------
    InputError
        If the layout has no such groups.
    """
    length = group or inputs
    if length < 128 and length not in (32, 64):
        raise InputError(
            f"group_size: expected 32, 64, or at least 128 with the AWQ GEMV layout, found {length}"
        )
    words = -(-count_groups(inputs, group) // 8)
    unit = max(1, 128 // length)
    return -(-words // unit) * unit * 8


def read_gemm(files: TensorFolder, base: str, shape: Shape, group: int | None) -> ZeroPointMatrix:
    """Read one matrix in the GEMM layout.

    Raises
    ------
    InputError
        If tensors are missing, or have other shapes or types, or a scale is not finite.
    """
    outputs, inputs = check_gemm(files, base, shape, group)
    groups = count_groups(inputs, group)
    qweight = files.load_integers(f"{base}.qweight", (inputs, outputs // 8), "I32")
    scales = files.load(f"{base}.scales", (groups, outputs))
    return ZeroPointMatrix(
        np.ascontiguousarray(unpack_words(qweight, INTERLEAVED).T),
        gemm_zeros(files, base, shape, group),
        np.ascontiguousarray(scales.T),
        consecutive_groups(inputs, group),
    )


def gemm_zeros(files: TensorFolder, base: str, shape: Shape, group: int | None) -> Codes:
    """Zero points of a matrix in the GEMM layout, uint8 [outputs, groups]."""
    words = (count_groups(shape[1], group), shape[0] // 8)
    qzeros = files.load_integers(f"{base}.qzeros", words, "I32")
    return np.ascontiguousarray(unpack_words(qzeros, INTERLEAVED).T)


def check_gemm(files: TensorFolder, base: str, shape: Shape, group: int | None) -> Shape:
    """Check headers only; returns the shape."""
    outputs, inputs = shape
    check_divides(files, base, "outputs", outputs, 8)
    check_divides(files, base, "inputs", inputs, group or 1)
    groups = count_groups(inputs, group)
    check_shapes(
        files,
        base,
        {
            "qweight": ((inputs, outputs // 8), ("I32",)),
            "qzeros": ((groups, outputs // 8), ("I32",)),
            "scales": ((groups, outputs), _TYPES),
        },
    )
    return shape


def write_gemm(matrix: ZeroPointMatrix) -> Tensors:
    """The tensors of a matrix in the GEMM layout."""
    return {
        "qweight": pack_words(np.ascontiguousarray(matrix.codes.T), INTERLEAVED),
        "qzeros": pack_words(np.ascontiguousarray(matrix.zeros.T), INTERLEAVED),
        "scales": np.ascontiguousarray(matrix.scales.T).astype(np.float16),
    }


def read_gemv(files: TensorFolder, base: str, shape: Shape, group: int | None) -> ZeroPointMatrix:
    """Read one matrix in the GEMV layout; raises as `read_gemm`."""
    outputs, inputs = check_gemv(files, base, shape, group)
    groups, padded = count_groups(inputs, group), padded_groups(inputs, group)
    qweight = files.load_integers(f"{base}.qweight", (outputs, inputs // 8), "I32")
    scales = files.load(f"{base}.scales", (outputs, padded))
    return ZeroPointMatrix(
        unpack_words(qweight),
        gemv_zeros(files, base, shape, group),
        scales[:, :groups],
        consecutive_groups(inputs, group),
    )


def gemv_zeros(files: TensorFolder, base: str, shape: Shape, group: int | None) -> Codes:
    """Zero points of a matrix in the GEMV layout, uint8 [outputs, groups]."""
    words = (shape[0], padded_groups(shape[1], group) // 8)
    qzeros = files.load_integers(f"{base}.qzeros", words, "I32")
    return unpack_words(qzeros)[:, : count_groups(shape[1], group)]


def check_gemv(files: TensorFolder, base: str, shape: Shape, group: int | None) -> Shape:
    """Check headers only; returns the shape."""
    outputs, inputs = shape
    check_divides(files, base, "inputs", inputs, 8)
    check_divides(files, base, "inputs", inputs, group or 1)
    padded = padded_groups(inputs, group)
    check_shapes(
        files,
        base,
        {
            "qweight": ((outputs, inputs // 8), ("I32",)),
            "qzeros": ((outputs, padded // 8), ("I32",)),
            "scales": ((outputs, padded), _TYPES),
        },
    )
    return shape


def write_gemv(matrix: ZeroPointMatrix) -> Tensors:
    """The tensors of a matrix in the GEMV layout."""
    outputs, inputs = matrix.codes.shape
    groups = matrix.zeros.shape[1]
    padded = padded_groups(inputs, None if groups == 1 else inputs // groups)
    zeros = np.zeros((outputs, padded), np.uint8)
    zeros[:, :groups] = matrix.zeros
    scales = np.zeros((outputs, padded), np.float16)
    scales[:, :groups] = matrix.scales
    return {"qweight": pack_words(matrix.codes), "qzeros": pack_words(zeros), "scales": scales}
