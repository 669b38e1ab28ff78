"""Eight 4-bit codes in a 32-bit word, in the orders that checkpoints have."""

import numpy as np
import numpy.typing as npt

NATURAL = (0, 1, 2, 3, 4, 5, 6, 7)
"""Nibble i (bits 4i to 4i+3) holds element i: GPTQ, and AWQ for its GEMV kernel."""

INTERLEAVED = (0, 2, 4, 6, 1, 3, 5, 7)
"""Nibble i holds element INTERLEAVED[i]: AWQ for its GEMM kernel."""

Order = tuple[int, ...]


def unpack_words(words: npt.NDArray[np.int32], order: Order = NATURAL) -> npt.NDArray[np.uint8]:
    """Codes in words [..., n] along the last axis: uint8 [..., 8 n]."""
    nibbles = words.view(np.uint32)[..., None] >> np.arange(0, 32, 4, dtype=np.uint32) & 15
    codes = np.empty(nibbles.shape, np.uint8)
    codes[..., list(order)] = nibbles
    return codes.reshape(*words.shape[:-1], -1)


def pack_words(codes: npt.NDArray[np.uint8], order: Order = NATURAL) -> npt.NDArray[np.int32]:
    """Inverse of `unpack_words`; the last axis is a multiple of 8 long.

    Raises
    ------
    ValueError
        If a code is above 15.
    """
    if codes.size and codes.max() > 15:
        raise ValueError(f"codes must be 0 to 15, not {codes.max()}")
    nibbles = codes.reshape(*codes.shape[:-1], -1, 8)[..., list(order)].astype(np.uint32)
    words = nibbles << np.arange(0, 32, 4, dtype=np.uint32)
    return np.bitwise_or.reduce(words, axis=-1).view(np.int32)
