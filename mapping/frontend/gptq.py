"""GPTQ checkpoints, versions 1 and 2, with and without activation order.

========= ==============================
tensor    layout
========= ==============================
qweight   int32 [inputs / 8, outputs]
qzeros    int32 [groups, outputs / 8]
scales    float16 [groups, outputs]
g_idx     int32 [inputs]: group of each input; may be missing without activation order
========= ==============================

Version 1 stores zero points less one, version 2 as they are. Version 1 cannot hold the zero point 0: it becomes 15,
and is read as 0, because no quantizer of 4-bit codes produces the 16 that 15 would stand for.
"""

import numpy as np
import numpy.typing as npt

from hw.spec.errors import InputError
from mapping.frontend.nibbles import pack_words, unpack_words
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

SYMMETRIC_ZERO = 8
"""The zero point of every group of a symmetric checkpoint."""


def check_gptq(files: TensorFolder, base: str, shape: Shape, group: int | None) -> Shape:
    """Check headers only; returns the shape.

    Raises
    ------
    InputError
        If tensors are missing, or have other shapes or types.
    """
    outputs, inputs = shape
    check_divides(files, base, "outputs", outputs, 8)
    check_divides(files, base, "inputs", inputs, 8)
    groups = count_groups(inputs, group)
    expected: dict[str, tuple[Shape, tuple[str, ...]]] = {
        "qweight": ((inputs // 8, outputs), ("I32",)),
        "qzeros": ((groups, outputs // 8), ("I32",)),
        "scales": ((groups, outputs), tuple(READABLE_TYPES)),
    }
    if f"{base}.g_idx" in files.entries:
        expected["g_idx"] = ((inputs,), ("I32",))
    check_shapes(files, base, expected)
    return shape


def read_zeros(files: TensorFolder, base: str, shape: Shape, group: int | None) -> Codes:
    """Zero points as stored, uint8 [outputs, groups]."""
    outputs, inputs = shape
    qzeros = files.load_integers(
        f"{base}.qzeros", (count_groups(inputs, group), outputs // 8), "I32"
    )
    return np.ascontiguousarray(unpack_words(qzeros).T)


def read_gptq(
    files: TensorFolder,
    base: str,
    shape: Shape,
    group: int | None,
    *,
    offset: int,
    act_order: bool,
) -> ZeroPointMatrix:
    """Read one matrix.

    Parameters
    ----------
    offset : int
        1: zero points are stored less one (version 1); 0: as they are.
    act_order : bool
        Whether the inputs of a group need not be neighbours.

    Raises
    ------
    InputError
        If tensors are missing or have other shapes or types, a scale is not finite, or the groups of the inputs are
        out of range or contradict the configuration.
    """
    outputs, inputs = check_gptq(files, base, shape, group)
    qweight = files.load_integers(f"{base}.qweight", (inputs // 8, outputs), "I32")
    zeros = read_zeros(files, base, shape, group)
    scales = files.load(f"{base}.scales", (zeros.shape[1], outputs))
    return ZeroPointMatrix(
        unpack_words(np.ascontiguousarray(qweight.T)),
        zeros + np.uint8(offset) & np.uint8(15),
        np.ascontiguousarray(scales.T),
        read_groups(files, base, inputs, group, act_order),
    )


def read_groups(
    files: TensorFolder, base: str, inputs: int, group: int | None, act_order: bool
) -> npt.NDArray[np.int32]:
    """The group of each input; raises as `read_gptq`."""
    name, groups = f"{base}.g_idx", count_groups(inputs, group)
    ascending = consecutive_groups(inputs, group)
    if name not in files.entries:
        if act_order:
            raise InputError(
                f"{files.folder}: tensor '{name}': expected because quantization_config says "
                "desc_act, not found"
            )
        return ascending
    found = files.load_integers(name, (inputs,), "I32")
    label = files.entries[name].label
    wrong = found[(found < 0) | (found >= groups)]
    if wrong.size:
        raise InputError(f"{label}: expected groups 0 to {groups - 1}, found {wrong[0]}")
    if not act_order and (found != ascending).any():
        place = int(np.argmax(found != ascending))
        raise InputError(
            f"{label}: expected group {ascending[place]} for input {place} because "
            f"quantization_config says no desc_act, found {found[place]}"
        )
    sizes, wanted = np.bincount(found, minlength=groups), np.bincount(ascending, minlength=groups)
    if (sizes != wanted).any():
        place = int(np.argmax(sizes != wanted))
        raise InputError(
            f"{label}: expected {wanted[place]} inputs in group {place}, found {sizes[place]}"
        )
    return found


def write_gptq(matrix: ZeroPointMatrix, *, offset: int) -> Tensors:
    """The tensors of a matrix; `offset` as in `read_gptq`.

    Raises
    ------
    ValueError
        If version 1 is asked to hold a zero point of 0.
    """
    if offset and (matrix.zeros == 0).any():
        raise ValueError("version 1 cannot hold the zero point 0")
    return {
        "qweight": np.ascontiguousarray(pack_words(matrix.codes).T),
        "qzeros": pack_words(np.ascontiguousarray(matrix.zeros.T) - np.uint8(offset)),
        "scales": np.ascontiguousarray(matrix.scales.T).astype(np.float16),
        "g_idx": matrix.groups.astype(np.int32),
    }
