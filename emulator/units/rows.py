"""Rows of buffers whose addresses wrap at the depth, as arrays."""

from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]

__all__ = ["taken", "write_rows"]


def taken(buffer: npt.NDArray[Any], first: int, count: int) -> npt.NDArray[Any]:
    """`count` items of a buffer from `first` on, wrapping; contiguous, a view where that is possible."""
    depth = len(buffer)
    first %= depth
    if first + count <= depth:
        return buffer[first : first + count]
    return buffer[np.arange(first, first + count) % depth]


def write_rows(buffer: npt.NDArray[Any], rows: Rows, values: npt.NDArray[Any]) -> None:
    """Write `values[i]` to row `rows[i]` modulo the depth, one after another: the last write of a row stays."""
    places = rows.reshape(-1) % len(buffer)
    _, last = np.unique(places[::-1], return_index=True)
    kept = len(places) - 1 - last
    buffer[places[kept]] = values.reshape(len(places), *buffer.shape[1:])[kept]
