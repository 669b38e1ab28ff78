"""QServe (QoQ) checkpoints W4A8 with groups: two levels of scales (Lin et al., arXiv 2405.04532).

weight = s1[output] * v, v = code * s2[output, group] + bias[output, group], an 8-bit integer; bias = -zero * s2.

========== ==================================
tensor     layout
========== ==================================
qweight    int8 [outputs, inputs / 2], in tiles of 32 x 32
s1_scales  float16 [outputs]
s2_scales  int8 [groups, outputs], bytes read as unsigned
s2_zeros   int8 [groups, outputs]: the bias
========== ==================================

A byte holds the codes of two outputs 16 apart, the lower one in the low nibble. Byte b of a tile belongs to inputs
16 * (b / 8 mod 2) + 4 * (b / 16 mod 4) + b mod 4 and to outputs b / 64 + 8 * (b / 4 mod 2) and 16 more (divisions
rounded down). Of each 32 outputs the second-level tensors have the order 0, 8, 16, 24, 1, 9, ...
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hw.spec.errors import InputError
from mapping.frontend.safetensors_file import READABLE_TYPES, Shape, TensorFolder
from mapping.frontend.stored import (
    Codes,
    Scales,
    StoredMatrix,
    Tensors,
    check_divides,
    check_shapes,
    count_groups,
)

TILE = 32
"""Outputs and inputs of a tile of packed codes."""

LARGEST_STEP = 17
"""Second-level scale up to which a code times it is a byte."""


@dataclass(frozen=True)
class ProgressiveMatrix:
    """A matrix of two levels.

    Members
    -------
    codes : uint8 [outputs, inputs]
        0 to 15.
    zeros : uint8 [outputs, groups]
        0 to 15.
    steps : uint8 [outputs, groups]
        Second-level scales, 1 to 17.
    scales : float32 [outputs]
        First-level scales.
    """

    codes: Codes
    zeros: Codes
    steps: Codes
    scales: Scales

    def stored(self) -> StoredMatrix:
        """The first-level matrix: 8-bit integers with one scale an output.

        Raises
        ------
        ValueError
            If an integer needs more than 8 bits.
        """
        outputs, inputs = self.codes.shape
        group = -(-inputs // self.zeros.shape[1])
        which = np.arange(inputs) // group
        difference = self.codes.astype(np.int32) - self.zeros.astype(np.int32)[:, which]
        values = difference * self.steps.astype(np.int32)[:, which]
        if values.min() < -128 or values.max() > 127:
            raise ValueError(f"integers must be -128 to 127, not {values.min()} to {values.max()}")
        return StoredMatrix(
            values.astype(np.int8), self.scales.reshape(outputs, 1), np.zeros(inputs, np.int32)
        )


def check_qserve(files: TensorFolder, base: str, shape: Shape, group: int | None) -> Shape:
    """Check headers only; returns the shape.

    Raises
    ------
    InputError
        If tensors are missing, or have other shapes or types.
    """
    outputs, inputs = shape
    check_divides(files, base, "outputs", outputs, TILE)
    check_divides(files, base, "inputs", inputs, TILE)
    check_divides(files, base, "inputs", inputs, group or 1)
    groups = count_groups(inputs, group)
    expected: dict[str, tuple[Shape, tuple[str, ...]]] = {
        "qweight": ((outputs, inputs // 2), ("I8", "U8")),
        "s1_scales": ((outputs,), tuple(READABLE_TYPES)),
        "s2_scales": ((groups, outputs), ("I8", "U8")),
        "s2_zeros": ((groups, outputs), ("I8", "U8")),
    }
    check_shapes(files, base, expected)
    return shape


def read_qserve(
    files: TensorFolder, base: str, shape: Shape, group: int | None
) -> ProgressiveMatrix:
    """Read one matrix.

    Raises
    ------
    InputError
        If tensors are missing or have other shapes or types, a first-level scale is not finite, a zero point is no
        whole number of 0 to 15, or an integer needs more than 8 bits.
    """
    outputs, inputs = check_qserve(files, base, shape, group)
    groups = count_groups(inputs, group)

    def load(end: str, shape: Shape) -> npt.NDArray[np.uint8]:
        return files.load_integers(f"{base}.{end}", shape, "I8", "U8").view(np.uint8)

    packed = load("qweight", (outputs, inputs // 2))
    steps = _plain_order(load("s2_scales", (groups, outputs)))
    biases = _plain_order(load("s2_zeros", (groups, outputs))).view(np.int8).astype(np.int32)
    label = f"{files.folder}: tensor '{base}.s2_zeros'"
    wrong = steps[(steps < 1) | (steps > LARGEST_STEP)]
    if wrong.size:
        raise InputError(
            f"{files.folder}: tensor '{base}.s2_scales': expected scales of 1 to {LARGEST_STEP}, found {wrong[0]}"
        )
    # The bias is a byte: -zero * step modulo 256.
    candidates = -np.arange(16)[:, None, None] * steps.astype(np.int32)
    matches = (candidates - biases) % 256 == 0
    if not matches.any(axis=0).all():
        output, place = np.argwhere(~matches.any(axis=0))[0]
        raise InputError(
            f"{label}: expected -z * s2 with a zero point z of 0 to 15, found "
            f"{biases[output, place]} with s2 {steps[output, place]} for output {output}, group {place}"
        )
    zeros = matches.argmax(axis=0).astype(np.uint8)
    scales = files.load(f"{base}.s1_scales", (outputs,))
    matrix = ProgressiveMatrix(_unpack_tiles(packed), zeros, steps, scales)
    try:
        matrix.stored()
    except ValueError as error:
        raise InputError(f"{files.folder}: tensor '{base}.qweight': {error}") from None
    return matrix


def write_qserve(matrix: ProgressiveMatrix) -> Tensors:
    """The tensors of a matrix."""
    biases = -(matrix.zeros.astype(np.int32) * matrix.steps)
    return {
        "qweight": _pack_tiles(matrix.codes).view(np.int8),
        "s1_scales": matrix.scales.astype(np.float16),
        "s2_scales": _kernel_order(matrix.steps).view(np.int8),
        "s2_zeros": _kernel_order((biases & 255).astype(np.uint8)).view(np.int8),
    }


def _kernel_order(table: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """[outputs, groups] to [groups, outputs], of each 32 outputs in the order 0, 8, 16, 24, 1, ..."""
    outputs, groups = table.shape
    tiles = table.T.reshape(groups, outputs // TILE, 4, 8).swapaxes(2, 3)
    return np.ascontiguousarray(tiles.reshape(groups, outputs))


def _plain_order(table: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Inverse of `_kernel_order`."""
    groups, outputs = table.shape
    tiles = table.reshape(groups, outputs // TILE, 8, 4).swapaxes(2, 3)
    return np.ascontiguousarray(tiles.reshape(groups, outputs).T)


_TO_BYTES = (0, 4, 3, 6, 5, 2, 7, 1)
"""Axes of a byte's place, and behind them that of its nibble, by axes of the split matrix."""


def _pack_tiles(codes: Codes) -> npt.NDArray[np.uint8]:
    """Codes [outputs, inputs] to bytes [outputs, inputs / 2]."""
    outputs, inputs = codes.shape
    # Outputs split as (tile, 16, 8, 1), inputs as (tile, 16, 4, 1).
    split = codes.reshape(outputs // TILE, 2, 2, 8, inputs // TILE, 2, 4, 4)
    pairs = split.transpose(_TO_BYTES)
    return (pairs[..., 0] | pairs[..., 1] << 4).reshape(outputs, inputs // 2).astype(np.uint8)


def _unpack_tiles(packed: npt.NDArray[np.uint8]) -> Codes:
    """Inverse of `_pack_tiles`."""
    outputs, inputs = packed.shape[0], 2 * packed.shape[1]
    pairs = np.stack([packed & 15, packed >> 4], axis=-1)
    places = pairs.reshape(outputs // TILE, inputs // TILE, 8, 4, 2, 2, 4, 2)
    split = places.transpose(np.argsort(_TO_BYTES))
    return np.ascontiguousarray(split.reshape(outputs, inputs)).astype(np.uint8, copy=False)
