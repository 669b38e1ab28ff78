"""Weights that a user names: a NumPy array, a tensor of a safetensors file, or none and a shape."""

import math
import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emulator.hardwired.weights import (
    LARGEST_ARRAY,
    MX_BLOCK,
    SmallWeights,
    decode_mxfp4,
    load_array,
    quantize_mxfp4,
    synthetic,
)
from hw.spec.errors import InputError
from mapping.frontend.safetensors_file import READABLE_TYPES, TensorEntry, read_header

__all__ = ["parse_shape", "read_weights"]

PACKED_ENDS = {"_blocks": "_scales", ".blocks": ".scales"}
"""How the names of MXFP4 tensors end, in Hugging Face's folders and in the makers' own."""
INTEGER_TYPES = {"I8": "<i1", "U8": "<u1", "I16": "<i2", "I32": "<i4"}


def parse_shape(text: str) -> tuple[int, int]:
    """Inputs and outputs of ``1024x128``.

    Raises
    ------
    InputError
        If it is no such text.
    """
    found = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text)
    if found is None or "0" in (found[1].lstrip("0") or "0", found[2].lstrip("0") or "0"):
        raise InputError(f"--shape: expected INPUTSxOUTPUTS such as 1024x128, found {text!r}")
    return int(found[1]), int(found[2])


def read_weights(
    path: Path | None,
    tensor: str | None,
    shape: str | None,
    kind: str,
    seed: int,
    expert: int | None = None,
) -> SmallWeights:
    """The weights that options ask for; an MXFP4 tensor of experts gives one of them, or all as rows.

    Raises
    ------
    InputError
        If options contradict each other, or a file cannot be used.
    """
    if expert is not None and (tensor is None or not tensor.endswith(tuple(PACKED_ENDS))):
        raise InputError("--expert: expected --tensor with MXFP4 blocks of experts")
    if path is None:
        if tensor is not None:
            raise InputError("--tensor: expected --weights with a safetensors file, found none")
        inputs, outputs = parse_shape(shape or "1024x128")
        return synthetic(outputs, inputs, kind, seed)
    if shape is not None:
        raise InputError("--shape, --weights: expected one of them, found both")
    if path.suffix == ".safetensors":
        if tensor is None:
            raise InputError(f"--tensor: expected the name of a tensor of {path}")
        return _read_tensor(path, tensor, expert)
    if tensor is not None:
        raise InputError(f"--tensor: expected --weights with a safetensors file, found {path}")
    return load_array(path)


def _read_packed(
    path: Path, entries: dict[str, TensorEntry], name: str, expert: int | None
) -> SmallWeights:
    end = name[-len("_blocks") :]
    blocks = _entry(path, entries, name)
    scales = _entry(path, entries, name.removesuffix(end) + PACKED_ENDS[end])
    label = f"{path}: {name}"
    if expert is not None:
        label += f", expert {expert}"
        blocks, scales = _part(blocks, expert), _part(scales, expert)
    if math.prod(blocks.shape) > LARGEST_ARRAY // 2:
        raise InputError(
            f"{label}: expected at most {LARGEST_ARRAY} weights, found {2 * math.prod(blocks.shape)}: "
            "choose one of the experts with --expert"
        )
    codes, powers = _stored(blocks, ("U8",)), _stored(scales, ("U8",))
    # Experts are rows one below another.
    codes = codes.reshape(-1, *codes.shape[-2:]) if codes.ndim > 2 else codes
    powers = powers.reshape(-1, powers.shape[-1]) if powers.ndim > 1 else powers
    return decode_mxfp4(codes.astype(np.uint8), powers.astype(np.uint8), label)


def _part(entry: TensorEntry, index: int) -> TensorEntry:
    """One of the tensors that a tensor consists of."""
    if len(entry.shape) < 3 or not 0 <= index < entry.shape[0]:
        raise InputError(
            f"--expert: expected one of the experts of {entry.label}, {list(entry.shape)}, found {index}"
        )
    size = (entry.end - entry.begin) // entry.shape[0]
    begin = entry.begin + index * size
    return replace(entry, shape=entry.shape[1:], begin=begin, end=begin + size)


def _read_tensor(path: Path, name: str, expert: int | None) -> SmallWeights:
    entries = read_header(path)
    if name.endswith(tuple(PACKED_ENDS)):
        return _read_packed(path, entries, name, expert)
    entry = _entry(path, entries, name)
    values = _stored(entry, (*INTEGER_TYPES, *READABLE_TYPES))
    if values.ndim != 2 or not values.size:
        raise InputError(f"{entry.label}: expected [outputs, inputs], found {list(values.shape)}")
    if entry.dtype in INTEGER_TYPES:
        zero = np.zeros((len(values), 1), np.int64)
        return SmallWeights(values.astype(np.int64), zero, f"{path}: {name}")
    if not np.isfinite(values).all():
        raise InputError(f"{entry.label}: expected finite weights, found NaN or infinity")
    block = int(np.gcd(values.shape[1], MX_BLOCK))
    integers, exponents = quantize_mxfp4(values.astype(np.float64), block)
    return SmallWeights(integers, exponents, f"{path}: {name}, rounded to MXFP4")


def _entry(path: Path, entries: dict[str, TensorEntry], name: str) -> TensorEntry:
    if name not in entries:
        known = ", ".join(sorted(entries)[:4])
        raise InputError(f"{path}: tensor {name!r}: not found; the file has {known} ...")
    return entries[name]


def _stored(entry: TensorEntry, types: Collection[str]) -> npt.NDArray[np.generic]:
    if entry.dtype not in types:
        raise InputError(
            f"{entry.label}: dtype: expected one of {', '.join(types)}, found {entry.dtype}"
        )
    dtype = (INTEGER_TYPES | READABLE_TYPES)[entry.dtype]
    stored = np.fromfile(entry.path, dtype, count=math.prod(entry.shape), offset=entry.begin)
    if entry.dtype == "BF16":
        stored = (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.reshape(entry.shape)
