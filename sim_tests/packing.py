"""Words of stream payloads: fields and lanes to one integer and back.

Amaranth turns a structured payload into ONE packed port, `i__payload`, with its first field in the lowest
bits. A layout here is the list of its fields from the lowest bit up, in plain data that JSON can hold:
`(name, width)` or `(name, width, signed)`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Field = tuple[str, int] | tuple[str, int, bool]
Layout = Sequence[Field]


def pack(layout: Layout, values: Mapping[str, int]) -> int:
    """One word from a value for each field.

    Raises
    ------
    ValueError
        If a field lacks a value, a value has no field, or a value does not fit its field.
    """
    if values.keys() != {field[0] for field in layout}:
        raise ValueError(f"expected values for {[f[0] for f in layout]}, found {list(values)}")
    word = offset = 0
    for name, width, *signed in layout:
        value = int(values[name])
        low, high = (-(1 << width - 1), 1 << width - 1) if any(signed) else (0, 1 << width)
        if not low <= value < high:
            raise ValueError(f"{name}: {value} is outside [{low}, {high})")
        word |= (value & (1 << width) - 1) << offset
        offset += width
    return word


def unpack(layout: Layout, word: int) -> dict[str, int]:
    """Value of each field of a word."""
    values = {}
    for name, width, *signed in layout:
        values[name] = (
            _extend(word & (1 << width) - 1, width) if any(signed) else word & (1 << width) - 1
        )
        word >>= width
    return values


def layout_width(layout: Layout) -> int:
    """Bits of a word of this layout."""
    return sum(field[1] for field in layout)


def pack_lanes(values: Sequence[int] | np.ndarray[Any, Any], width: int) -> int:
    """One word of equally wide lanes, the first in the lowest bits; negative values in two's complement."""
    if width in {8, 16, 32} or (width == 64 and isinstance(values, np.ndarray)):
        lanes = np.asarray(values) if len(values) else np.zeros(0, np.int64)
        if lanes.dtype.kind not in "iu":
            raise ValueError(f"lanes must be integers of at most 64 bits, not {lanes.dtype}")
        low, high = lanes.min(initial=0), lanes.max(initial=0)
        if low < -(1 << width - 1) or int(high) >> width:
            raise ValueError(f"lane values from {low} to {high} do not fit {width} bits")
        return int.from_bytes(lanes.astype(f"<u{width // 8}").tobytes(), "little")
    word = 0
    for value in reversed([int(value) for value in values]):
        if not -(1 << width - 1) <= value < 1 << width:
            raise ValueError(f"lane value {value} does not fit {width} bits")
        word = word << width | value & (1 << width) - 1
    return word


def unpack_lanes(word: int, width: int, count: int, *, signed: bool = False) -> list[int]:
    """The `count` lanes of a word, the lowest bits first."""
    mask = (1 << width) - 1
    lanes = [word >> width * lane & mask for lane in range(count)]
    return [_extend(lane, width) for lane in lanes] if signed else lanes


def _extend(value: int, width: int) -> int:
    return value - (1 << width) if value >> (width - 1) else value
