"""Read safetensors files one tensor at a time, trusting nothing that their headers say.

A file is an 8-byte little-endian length, that many bytes of JSON, and a buffer. The JSON gives each
tensor a type, a shape and a range of the buffer. Everything in it is checked before a byte of weights
is read, so a hostile or damaged file costs one clear message. Bytes are read here and not through the
`safetensors` package because NumPy has no bfloat16, which most published checkpoints use.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hw.spec.errors import InputError
from mapping.frontend.files import (
    JSON_LIMIT,
    parse_json_object,
    read_json_object,
    resolve_inside,
    shown,
)

Shape = tuple[int, ...]

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
"""Bytes of one element of each type whose size is known; ranges of these are checked."""

READABLE_TYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""The types that weights may have, and how NumPy reads their bytes."""

INTEGER_TYPES = {"U8": "u1", "I8": "i1", "I32": "<i4"}
"""The types that packed weights may have."""

_LENGTH_BYTES = 8


@dataclass(frozen=True)
class TensorEntry:
    """What the header of one file says of one tensor; `begin` and `end` count from the file's start."""

    name: str
    path: Path
    dtype: str
    shape: Shape
    begin: int
    end: int

    @property
    def label(self) -> str:
        """File and tensor, as every message names them."""
        return f"{self.path}: tensor {shown(self.name)}"


def read_header(path: Path) -> dict[str, TensorEntry]:
    """Return the tensors of one file by name, after checking the whole header.

    Raises
    ------
    InputError
        If the header is truncated, longer than the file or 100 MB, not JSON of the right form, or if
        ranges lie outside the buffer, overlap, leave gaps or do not fit their shapes.
    """
    text, buffer_begin, size = _header_text(path)
    header = parse_json_object(text, f"{path}: header")
    header.pop("__metadata__", None)
    entries = {
        name: _parse_entry(path, name, fields, buffer_begin, size)
        for name, fields in header.items()
    }
    _check_cover(path, list(entries.values()), buffer_begin, size)
    return entries


def _header_text(path: Path) -> tuple[bytes, int, int]:
    """Return the header's JSON text, where the buffer begins, and the size of the file."""
    if not path.is_file():
        raise InputError(f"{path}: expected a safetensors file, found none")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(_LENGTH_BYTES)
            length = int.from_bytes(prefix, "little")
            if len(prefix) < _LENGTH_BYTES:
                raise InputError(
                    f"{path}: header: expected {_LENGTH_BYTES} bytes of length, "
                    f"found a file of {size} bytes"
                )
            if length > JSON_LIMIT:
                raise InputError(
                    f"{path}: header: expected at most {JSON_LIMIT} bytes, found a length of {length}"
                )
            text = file.read(length)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if len(text) < length:
        raise InputError(
            f"{path}: header: expected {length} bytes, found {len(text)}: the file is truncated"
        )
    return text, _LENGTH_BYTES + length, size


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _parse_entry(path: Path, name: str, fields: Any, base: int, size: int) -> TensorEntry:
    """Check one entry of a header on its own."""
    label = f"{path}: tensor {shown(name)}"
    if not isinstance(fields, dict) or set(fields) != {"dtype", "shape", "data_offsets"}:
        raise InputError(f"{label}: expected dtype, shape and data_offsets, found {shown(fields)}")
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str):
        raise InputError(f"{label}: dtype: expected a name, found {shown(dtype)}")
    if not isinstance(shape, list) or not all(_is_count(extent) for extent in shape):
        raise InputError(f"{label}: shape: expected whole numbers, found {shown(shape)}")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_count, offsets)):
        raise InputError(f"{label}: data_offsets: expected two offsets, found {shown(offsets)}")
    begin, end = offsets
    if not begin <= end <= size - base:
        raise InputError(
            f"{label}: data_offsets: expected a range within the {size - base} bytes of the buffer, "
            f"found {shown(offsets)}"
        )
    if dtype in ITEM_BYTES and end - begin != math.prod(shape) * ITEM_BYTES[dtype]:
        raise InputError(
            f"{label}: data_offsets: expected the {shown(math.prod(shape) * ITEM_BYTES[dtype])} "
            f"bytes of {dtype} {shown(shape)}, found {end - begin}"
        )
    return TensorEntry(name, path, dtype, tuple(shape), base + begin, base + end)


def _check_cover(path: Path, entries: list[TensorEntry], begin: int, size: int) -> None:
    """Check that the ranges cover the buffer exactly once, as the format demands."""
    reached = begin
    for entry in sorted(entries, key=lambda entry: (entry.begin, entry.end)):
        if entry.begin != reached:
            problem = "one that overlaps another" if entry.begin < reached else "a gap before it"
            raise InputError(
                f"{entry.label}: data_offsets: expected a range that follows the one before, "
                f"found {problem}"
            )
        reached = entry.end
    if reached != size:
        raise InputError(f"{path}: expected {reached} bytes as the header says, found {size}")


class TensorFolder:
    """The tensors of a folder with one safetensors file or several and an index.

    Opening reads headers only. Tensors are read when asked for and not kept.

    Parameters
    ----------
    folder : Path
        Holds ``model.safetensors``, or the shards that ``model.safetensors.index.json`` names.

    Members
    -------
    entries : dict[str, TensorEntry]
        Every tensor, by its name in the files.

    Raises
    ------
    InputError
        If a header or the index is malformed, a shard is missing or lies outside the folder, or a
        shard lacks a tensor that the index says it has.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries: dict[str, TensorEntry]
        if (folder / SINGLE_FILE).exists() or not (folder / INDEX_FILE).exists():
            self.entries = read_header(resolve_inside(folder, SINGLE_FILE, "weights"))
        else:
            self.entries = _read_shards(folder)

    def check(
        self, name: str, shape: Shape, types: Collection[str] = tuple(READABLE_TYPES)
    ) -> TensorEntry:
        """Return the entry of a tensor that must exist with this shape and one of these types.

        Raises
        ------
        InputError
            If it does not.
        """
        entry = self.entries.get(name)
        if entry is None:
            raise InputError(
                f"{self.folder}: tensor {shown(name)}: expected in the weights, not found"
            )
        if entry.dtype not in types:
            raise InputError(
                f"{entry.label}: dtype: expected one of {', '.join(types)}, "
                f"found {shown(entry.dtype)}"
            )
        if entry.shape != shape:
            raise InputError(
                f"{entry.label}: shape: expected {list(shape)}, found {shown(list(entry.shape))}"
            )
        return entry

    def load(self, name: str, shape: Shape) -> npt.NDArray[np.float32]:
        """Return a tensor as float32, row-major; every stored type converts exactly.

        Raises
        ------
        InputError
            If `check` refuses it, the file has become shorter, or a weight is NaN or infinite.
        """
        entry = self.check(name, shape)
        stored = self._stored(entry, READABLE_TYPES[entry.dtype])
        if entry.dtype == "BF16":
            # The upper half of a float32: shifting the bits into place is exact.
            values = (stored.astype(np.uint32) << 16).view(np.float32)
        else:
            values = stored.astype(np.float32, copy=False)
        values = values.reshape(shape)
        finite = np.isfinite(values)
        if not finite.all():
            place = [int(index) for index in np.argwhere(~finite)[0]]
            raise InputError(
                f"{entry.label}: expected finite weights, found {values[tuple(place)]} at {place}"
            )
        return values

    def load_integers(self, name: str, shape: Shape, *types: str) -> npt.NDArray[Any]:
        """Return a tensor of integers in the type it is stored in, one of `types`.

        Raises
        ------
        InputError
            As `load_bytes`.
        """
        entry = self.check(name, shape, types)
        return self._stored(entry, INTEGER_TYPES[entry.dtype]).reshape(shape)

    def load_bytes(self, name: str, shape: Shape) -> npt.NDArray[np.uint8]:
        """Return a tensor of bytes, such as packed codes.

        Raises
        ------
        InputError
            If it is missing, has another shape or type, or the file has become shorter.
        """
        return self.load_integers(name, shape, "U8")

    @staticmethod
    def _stored(entry: TensorEntry, dtype: str) -> npt.NDArray[Any]:
        count = math.prod(entry.shape)
        try:
            stored = np.fromfile(entry.path, dtype, count=count, offset=entry.begin)
        except OSError as error:
            raise InputError(f"{entry.label}: cannot be read: {error.strerror}") from error
        if stored.size != count:
            raise InputError(f"{entry.label}: expected {count} values, found {stored.size}")
        return stored


def _read_shards(folder: Path) -> dict[str, TensorEntry]:
    """Return the tensors that the index of a sharded folder names."""
    index = folder / INDEX_FILE
    weight_map = read_json_object(resolve_inside(folder, INDEX_FILE, "weights")).get("weight_map")
    if not isinstance(weight_map, Mapping) or not all(
        isinstance(shard, str) for shard in weight_map.values()
    ):
        raise InputError(f"{index}: weight_map: expected a file name for each tensor")
    shards = {
        shard: read_header(resolve_inside(folder, shard, f"{INDEX_FILE}: weight_map"))
        for shard in sorted(set(weight_map.values()))
    }
    for name, shard in weight_map.items():
        if name not in shards[shard]:
            raise InputError(
                f"{folder / shard}: tensor {shown(name)}: expected because {INDEX_FILE} places it "
                "here, not found"
            )
    return {name: shards[shard][name] for name, shard in weight_map.items()}
