"""A heap of positions of the pipeline by the time of what happens to them next; equal times: lower position first."""

import numba
import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@numba.njit(cache=True)
def _earlier(times: Ints, a: int, b: int) -> bool:
    return times[a] < times[b] or (times[a] == times[b] and a < b)


@numba.njit(cache=True)
def push(heap: Ints, size: int, times: Ints, slot: int) -> int:
    """Add `slot` to a heap of this size; returns the new size."""
    place = size
    while place > 0:
        parent = (place - 1) >> 1
        if not _earlier(times, slot, heap[parent]):
            break
        heap[place] = heap[parent]
        place = parent
    heap[place] = slot
    return size + 1


@numba.njit(cache=True)
def sink(heap: Ints, size: int, times: Ints, slot: int) -> None:
    """Put `slot` at the root of a heap of this size, and let it sink to its place."""
    place = 0
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and _earlier(times, heap[child + 1], heap[child]):
            child += 1
        if not _earlier(times, heap[child], slot):
            break
        heap[place] = heap[child]
        place = child
    heap[place] = slot
