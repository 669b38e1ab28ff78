"""Order of weights and scales in the streams of the matrix engine.

A stream is [block, step, row]: a block is `matrix_rows` outputs, and in each of its steps every row owns
the same number of bits, its weights one behind the other. Sparse steps have metadata in front.
Scales are [block, group, row], FP16, a word for the rows of one group.
"""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from hw.spec.machine import MachineSpec
from hw.spec.weight_format import BLOCK_ELEMENTS, StepFormat, WeightFormat

__all__ = [
    "FP4_VALUES",
    "choose_kept",
    "pack_scales",
    "pack_weights",
    "unpack_scales",
    "unpack_weights",
]

Words = npt.NDArray[np.uint8]
Item = TypeVar("Item", bound=np.generic)

FP4_VALUES = (0, 1, 2, 3, 4, 6, 8, 12)
"""Twice the magnitude of an E2M1 number, by its low three bits."""


def pack_weights(matrix: npt.NDArray[np.int8], step: StepFormat, spec: MachineSpec) -> Words:
    """Stream words of a weight matrix.

    Parameters
    ----------
    matrix : int8 [outputs, inputs]
        Weights as the matrix engine multiplies them (FP4: twice their value). Padded with zeros to whole blocks
        and whole steps. Sparse: at most `step.kept` nonzero ones in each 16 inputs.
    step : StepFormat
        Format and sparsity.
    spec : MachineSpec
        The machine.

    Returns
    -------
    uint8 [blocks * step.block_words(steps), word_bytes]

    Raises
    ------
    ValueError
        If the matrix is not of int8 and two dimensions, or holds what the format cannot.
    """
    if matrix.dtype != np.int8 or matrix.ndim != 2:
        raise ValueError(
            f"matrix must be int8 of two dimensions, not {matrix.dtype} {matrix.shape}"
        )
    padded = _pad(matrix, spec.matrix_rows, step.alignment)
    columns = choose_kept(padded, step.kept) if step.kept else None
    if columns is not None:
        padded = np.take_along_axis(padded, columns, axis=1)
    codes = _by_step(_encode(padded, step.weight), step, spec)
    if columns is None:
        rows = _packed(codes.reshape(len(codes), -1), step.weight.bits)
        return _words(rows, step.block_words(codes.shape[1]), spec)
    if step.bitmap:
        kept = np.zeros((len(padded), matrix.shape[1] + -matrix.shape[1] % BLOCK_ELEMENTS), bool)
        np.put_along_axis(kept, columns, True, axis=1)
        metadata = kept.reshape(-1, spec.matrix_rows, kept.shape[1] // 16, 16).swapaxes(1, 2)
        metadata, each = metadata.astype(np.uint8), 1
    else:
        indices = (columns % BLOCK_ELEMENTS).astype(np.uint8)
        metadata, each = _by_step(indices, step, spec), 4
    blocks, steps = codes.shape[:2]
    front = _packed(metadata.reshape(blocks * steps, -1), each)
    front = _words(front, step.metadata_words, spec)
    back = _packed(codes.reshape(blocks * steps, -1), step.weight.bits)
    back = _words(back, -(-step.weight_quarters // 4), spec)
    parts = [part.reshape(blocks * steps, -1, spec.word_bytes) for part in (front, back)]
    return np.concatenate(parts, axis=1).reshape(-1, spec.word_bytes)


def unpack_weights(
    words: Words, rows: int, columns: int, step: StepFormat, spec: MachineSpec
) -> npt.NDArray[np.int8]:
    """Inverse of `pack_weights`: int8 [rows, columns], the shape of the matrix without padding.

    Raises
    ------
    ValueError
        If the number of words is not that of the shape.
    """
    blocks = -(-rows // spec.matrix_rows)
    wide = columns + -columns % step.alignment
    steps = wide // step.span
    expected = (blocks * step.block_words(steps), spec.word_bytes)
    if words.shape != expected:
        raise ValueError(f"words must have shape {expected}, not {words.shape}")
    bits, each = step.weight.bits, step.weight.step_weights
    if not step.kept:
        stream = np.unpackbits(words.reshape(blocks, -1), axis=1, bitorder="little")
        codes = _from_bits(stream[:, : steps * spec.matrix_rows * each * bits], bits)
        values = _decode(codes, step.weight).reshape(blocks, steps, spec.matrix_rows, each)
        return values.swapaxes(1, 2).reshape(-1, wide)[:rows, :columns]
    parts = words.reshape(blocks * steps, -1, spec.word_bytes)
    front = parts[:, : step.metadata_words].reshape(blocks * steps, -1)
    back = parts[:, step.metadata_words :].reshape(blocks * steps, -1)
    weights = np.unpackbits(back, axis=1, bitorder="little")
    codes = _from_bits(weights[:, : spec.matrix_rows * each * bits], bits)
    values = _decode(codes, step.weight).reshape(blocks, steps, spec.matrix_rows, each)
    values = values.swapaxes(1, 2).reshape(blocks * spec.matrix_rows, -1)
    metadata = np.unpackbits(front, axis=1, bitorder="little")
    if step.bitmap:
        kept = metadata.reshape(blocks, steps, spec.matrix_rows, BLOCK_ELEMENTS).swapaxes(1, 2)
        indices = np.argsort(~kept.astype(bool), axis=3, kind="stable")[..., :each]
    else:
        indices = _from_bits(metadata, 4).reshape(blocks, steps, spec.matrix_rows, each)
        indices = indices.swapaxes(1, 2)
    slots = np.arange(values.shape[1]) // step.kept * BLOCK_ELEMENTS
    matrix = np.zeros((len(values), wide), np.int8)
    np.put_along_axis(matrix, indices.reshape(len(values), -1) + slots, values, axis=1)
    return matrix[:rows, :columns]


def choose_kept(matrix: npt.NDArray[np.int8], kept: int) -> npt.NDArray[np.intp]:
    """Columns of the elements that a sparse matrix keeps, in ascending order: [rows, inputs * kept / 16].

    Nonzero elements, and of the zeros of a block the first ones.

    Raises
    ------
    ValueError
        If a block of 16 has more than `kept` nonzero elements.
    """
    blocks = matrix.reshape(len(matrix), -1, BLOCK_ELEMENTS)
    zero = blocks == 0
    if (~zero).sum(axis=2).max(initial=0) > kept:
        raise ValueError(f"more than {kept} weights of {BLOCK_ELEMENTS} are not zero")
    chosen = np.sort(np.argsort(zero, axis=2, kind="stable")[..., :kept], axis=2)
    chosen += np.arange(blocks.shape[1])[:, None] * BLOCK_ELEMENTS
    return chosen.reshape(len(matrix), -1)


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
    expected = (blocks * groups, spec.word_bytes)
    if words.shape != expected:
        raise ValueError(f"words must have shape {expected}, not {words.shape}")
    items = np.ascontiguousarray(words).view(np.uint16).reshape(blocks, groups, spec.matrix_rows)
    codes = items.transpose(0, 2, 1).copy().reshape(blocks * spec.matrix_rows, groups)
    return codes[:rows].view(np.float16)


def _encode(matrix: npt.NDArray[np.int8], weight: WeightFormat) -> npt.NDArray[np.uint8]:
    """Codes of weights, in the low bits of bytes."""
    if weight is WeightFormat.FP4:
        code = np.full(256, 255, np.uint8)
        for index, value in enumerate(FP4_VALUES):
            code[value], code[-value & 255] = index, index | (8 if value else 0)
        codes = code[matrix.view(np.uint8)]
        if codes.size and codes.max() == 255:
            raise ValueError("weights must be twice an E2M1 number")
        return codes
    if weight is WeightFormat.INT8:
        return matrix.view(np.uint8)
    limit = weight.largest
    if matrix.size and (matrix.min() < -limit or matrix.max() >= limit):
        raise ValueError(
            f"weights must be {-limit} to {limit - 1}, not {matrix.min()} to {matrix.max()}"
        )
    return matrix.view(np.uint8) & np.uint8(2 * limit - 1)


def _decode(codes: npt.NDArray[np.uint8], weight: WeightFormat) -> npt.NDArray[np.int8]:
    if weight is WeightFormat.FP4:
        return np.array([*FP4_VALUES, *(-value for value in FP4_VALUES)], np.int8)[codes]
    unused = 8 - weight.bits
    return ((codes << unused).view(np.int8) >> unused).astype(np.int8)


def _by_step(
    matrix: npt.NDArray[np.uint8], step: StepFormat, spec: MachineSpec
) -> npt.NDArray[np.uint8]:
    """[rows, weights] to [block, step, row, weight of the step]."""
    shape = (-1, spec.matrix_rows, matrix.shape[1] // step.weight.step_weights)
    return matrix.reshape(*shape, step.weight.step_weights).swapaxes(1, 2)


def _packed(codes: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """Codes of each row, `bits` bits each, one behind the other from the lowest bit on: whole bytes."""
    if bits == 8:
        return codes
    size = -(-codes.shape[1] * bits // 8)
    # Eight codes are `bits` bytes: neighbours move together, first bytes, then pairs, then fours.
    packed = _pad(codes, 1, 8).reshape(-1).view("<u8")
    for field in (8, 16, 32):
        low = sum(((1 << field) - 1) << place for place in range(0, 64, 2 * field))
        gap = np.uint64((8 - bits) * field // 8)
        packed = (packed & np.uint64(low)) | ((packed & ~np.uint64(low)) >> gap)
    data = packed.astype("<u8", copy=False).view(np.uint8).reshape(-1, 8)[:, :bits]
    return data.reshape(len(codes), -1)[:, :size]


def _from_bits(bits: npt.NDArray[np.uint8], each: int) -> npt.NDArray[np.uint8]:
    """Codes of `each` bits, lowest first, along the last axis."""
    items = bits.reshape(*bits.shape[:-1], -1, each)
    codes = np.zeros(items.shape[:-1], np.uint8)
    for bit in range(each):
        codes |= items[..., bit] << np.uint8(bit)
    return codes


def _words(data: npt.NDArray[np.uint8], words: int, spec: MachineSpec) -> Words:
    """Rows of bytes, each padded with zeros to `words` words."""
    result = np.zeros((len(data), words * spec.word_bytes), np.uint8)
    result[:, : data.shape[1]] = data
    return result.reshape(-1, spec.word_bytes)


def _pad(matrix: npt.NDArray[Item], rows: int, columns: int) -> npt.NDArray[Item]:
    """The matrix with zeros added up to multiples of `rows` and `columns`; contiguous."""
    more = (-matrix.shape[0] % rows, -matrix.shape[1] % columns)
    if any(more):
        return np.pad(matrix, ((0, more[0]), (0, more[1])))
    return np.ascontiguousarray(matrix)
