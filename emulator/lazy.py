"""Arrays of zeros as large as a target's memory: only what is written takes memory of this computer."""

import math
import mmap
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["zeros"]

_LARGE = 1 << 28
_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)
"""Linux, before Python named it: take no account of pages before they are written."""


def zeros(shape: tuple[int, ...], kind: npt.DTypeLike = np.uint8) -> npt.NDArray[Any]:
    """Like `np.zeros`; on Linux also where the whole is more than the computer has.

    Raises
    ------
    MemoryError
        If the system refuses.
    """
    size = math.prod(shape) * np.dtype(kind).itemsize
    if size < _LARGE or not sys.platform.startswith("linux"):
        return np.zeros(shape, kind)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE
    try:
        pages = mmap.mmap(-1, size, flags=flags)
    except OSError as error:
        raise MemoryError(f"{size} bytes: {error.strerror}") from None
    return np.frombuffer(pages, kind).reshape(shape)
