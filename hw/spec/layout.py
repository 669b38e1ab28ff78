"""Order of weights and scales in the streams of the matrix engine.

A stream is [block, step, row]: a block is `matrix_rows` outputs, and in each of its steps every row
owns 4 bytes of two words, 4 INT8 weights or 8 INT4 weights (the even one in the low nibble). Scales
are [block, group, row], FP16, a word for the rows of one group.
"""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from hw.spec.machine import MachineSpec

__all__ = ["pack_scales", "pack_weights", "unpack_scales", "unpack_weights"]

Words = npt.NDArray[np.uint8]
Item = TypeVar("Item", bound=np.generic)
ROW_BYTES = 4


def pack_weights(matrix: npt.NDArray[np.int8], bits: int, spec: MachineSpec) -> Words:
    """Stream words of a weight matrix.

    Parameters
    ----------
    matrix : int8 [outputs, inputs]
        Weights; for 4 bits in -8..7. Padded with zeros to whole blocks and whole steps.
    bits : int
        8 or 4.
    spec : MachineSpec
        The machine.

    Returns
    -------
    uint8 [2 * blocks * steps, word_bytes]

    Raises
    ------
    ValueError
        If the matrix is not of int8 and two dimensions, `bits` is neither 8 nor 4, or a weight
        needs more bits.
    """
    _check_bits(bits)
    if matrix.dtype != np.int8 or matrix.ndim != 2:
        raise ValueError(
            f"matrix must be int8 of two dimensions, not {matrix.dtype} {matrix.shape}"
        )
    if bits == 4 and matrix.size and (matrix.min() < -8 or matrix.max() > 7):
        raise ValueError(f"weights must be -8 to 7, not {matrix.min()} to {matrix.max()}")
    padded = _pad(matrix, spec.matrix_rows, spec.step_elements(bits)).view(np.uint8)
    if bits == 4:
        # Two neighbours as one 16-bit item, the even one in its low byte.
        pairs = padded.view("<u2")
        padded = (pairs & 0xF | pairs >> 4 & 0xF0).astype(np.uint8)
    rows = padded.view(np.uint32).reshape(-1, spec.matrix_rows, padded.shape[1] // ROW_BYTES)
    return rows.transpose(0, 2, 1).copy().view(np.uint8).reshape(-1, spec.word_bytes)


def unpack_weights(
    words: Words, rows: int, columns: int, bits: int, spec: MachineSpec
) -> npt.NDArray[np.int8]:
    """Inverse of `pack_weights`.

    Parameters
    ----------
    words : uint8 [n, word_bytes]
        All words of the matrix.
    rows, columns : int
        Shape of the matrix without padding.
    bits, spec
        As in `pack_weights`.

    Returns
    -------
    int8 [rows, columns]

    Raises
    ------
    ValueError
        If `bits` is neither 8 nor 4, or the number of words is not that of the shape.
    """
    _check_bits(bits)
    blocks = -(-rows // spec.matrix_rows)
    steps = -(-columns // spec.step_elements(bits))
    items = _items(words, np.dtype(np.uint32), (blocks, steps, spec.matrix_rows), spec)
    padded = items.transpose(0, 2, 1).copy().view(np.uint8).reshape(blocks * spec.matrix_rows, -1)
    if bits == 4:
        pairs = padded.astype("<u2")
        # The upper half of each byte shifted down again as int8 gives the weight its sign.
        padded = ((pairs << 4 & 0xF0) | (pairs << 8 & 0xF000)).view(np.uint8)
        return (padded[:rows, :columns].view(np.int8) >> 4).astype(np.int8)
    return padded[:rows, :columns].view(np.int8).copy()


def pack_scales(scales: npt.NDArray[np.floating], spec: MachineSpec) -> Words:
    """Scale ring words of the group scales of a weight matrix.

    Parameters
    ----------
    scales : float [outputs, groups]
        Scales that FP16 holds exactly. Padded with zeros to whole blocks.
    spec : MachineSpec
        The machine.

    Returns
    -------
    uint8 [blocks * groups, word_bytes]

    Raises
    ------
    ValueError
        If a scale is not a finite FP16 number.
    """
    # What FP16 cannot hold becomes infinite, silently, and is then refused.
    with np.errstate(over="ignore"):
        halves = scales.astype("<f2")
    if not (np.isfinite(halves) & (halves == scales)).all():
        raise ValueError("scales must be finite FP16 numbers")
    codes = _pad(halves.view(np.uint16), spec.matrix_rows, 1)
    groups = codes.reshape(-1, spec.matrix_rows, codes.shape[1])
    return groups.transpose(0, 2, 1).copy().view(np.uint8).reshape(-1, spec.word_bytes)


def unpack_scales(
    words: Words, rows: int, groups: int, spec: MachineSpec
) -> npt.NDArray[np.float16]:
    """Inverse of `pack_scales`: float16 [rows, groups].

    Raises
    ------
    ValueError
        If the number of words is not that of the shape.
    """
    blocks = -(-rows // spec.matrix_rows)
    items = _items(words, np.dtype(np.uint16), (blocks, groups, spec.matrix_rows), spec)
    codes = items.transpose(0, 2, 1).copy().reshape(blocks * spec.matrix_rows, groups)
    return codes[:rows].view(np.float16)


def _check_bits(bits: int) -> None:
    if bits not in (4, 8):
        raise ValueError(f"bits must be 8 or 4, not {bits!r}")


def _items(
    words: Words, kind: np.dtype[np.unsignedinteger], shape: tuple[int, int, int], spec: MachineSpec
) -> npt.NDArray[np.unsignedinteger]:
    """Words as an array of items of one row each."""
    expected = (int(np.prod(shape)) * kind.itemsize // spec.word_bytes, spec.word_bytes)
    if words.shape != expected:
        raise ValueError(f"words must have shape {expected}, not {words.shape}")
    return np.ascontiguousarray(words).view(kind).reshape(shape)


def _pad(matrix: npt.NDArray[Item], rows: int, columns: int) -> npt.NDArray[Item]:
    """The matrix with zeros added up to multiples of `rows` and `columns`; contiguous."""
    more = (-matrix.shape[0] % rows, -matrix.shape[1] % columns)
    if any(more):
        return np.pad(matrix, ((0, more[0]), (0, more[1])))
    return np.ascontiguousarray(matrix)
