"""Weights that a user names: a NumPy array, a tensor of a safetensors file, or none and a shape."""

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emulator.hardwired.weights import (
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

BLOCKS, SCALES = "_blocks", "_scales"
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
    path: Path | None, tensor: str | None, shape: str | None, kind: str, seed: int
) -> SmallWeights:
    """The weights that options ask for.

    Raises
    ------
    InputError
        If options contradict each other, or a file cannot be used.
    """
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
        return _read_tensor(path, tensor)
    if tensor is not None:
        raise InputError(f"--tensor: expected --weights with a safetensors file, found {path}")
    return load_array(path)


def _read_tensor(path: Path, name: str) -> SmallWeights:
    entries = read_header(path)
    if name.endswith(BLOCKS):
        scales = name.removesuffix(BLOCKS) + SCALES
        blocks = _stored(_entry(path, entries, name))
        block_scales = _stored(_entry(path, entries, scales))
        # Experts are rows one below another.
        blocks = blocks.reshape(-1, *blocks.shape[-2:]) if blocks.ndim > 2 else blocks
        block_scales = block_scales.reshape(-1, block_scales.shape[-1])
        return decode_mxfp4(
            blocks.astype(np.uint8), block_scales.astype(np.uint8), f"{path}: {name}"
        )
    entry = _entry(path, entries, name)
    values = _stored(entry)
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


def _stored(entry: TensorEntry) -> npt.NDArray[np.generic]:
    types = INTEGER_TYPES | READABLE_TYPES
    if entry.dtype not in types:
        raise InputError(
            f"{entry.label}: dtype: expected one of {', '.join(types)}, found {entry.dtype}"
        )
    count = int(np.prod(entry.shape, dtype=np.int64))
    stored = np.fromfile(entry.path, types[entry.dtype], count=count, offset=entry.begin)
    if entry.dtype == "BF16":
        stored = (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.reshape(entry.shape)
