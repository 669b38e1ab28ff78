"""The search for the scale of least error of each group of integer weights, compiled."""

import functools

import numpy as np

from emulator.compiled import compiled


def search_scales(
    grouped: np.ndarray,
    extreme: np.ndarray,
    tries: np.ndarray,
    bits: int,
    importance: np.ndarray | None = None,
) -> np.ndarray:
    """Of the scales `extreme * tries`, rounded to FP16, the one of least squared error of each group; the first on a tie.

    Parameters
    ----------
    grouped : float32 [outputs, groups, weights of a group]
    extreme : float32 [outputs, groups]
    tries : float32 [scales to try]
    bits : int
        Of the integers, in two's complement.
    importance : float32 [groups, weights of a group], optional
        Factor of each squared error.

    Returns
    -------
    float32 [outputs, groups]
        Exact in FP16, nearest to what was tried, away from zero where that would vanish, of finite size.
    """
    outputs, groups, size = grouped.shape
    weights = np.ones((groups, size), np.float32) if importance is None else importance
    best = np.empty((outputs, groups), np.float32)
    lowest, highest = np.float32(-1 << bits - 1), np.float32((1 << bits - 1) - 1)
    grouped, extreme, tries = (np.ascontiguousarray(a) for a in (grouped, extreme, tries))
    _search(grouped, extreme, tries, np.ascontiguousarray(weights), lowest, highest, best)
    return best


@functools.partial(compiled, nogil=True)
def _half(value: np.float32) -> np.float32:
    magnitude = abs(value)
    if magnitude < np.float32(2.0**-14):
        steps = np.rint(magnitude * np.float32(2.0**24))
        rounded = max(steps, np.float32(1)) * np.float32(2.0**-24)
    else:
        # Veltkamp: the upper 11 bits of the significand, to nearest even.
        magnitude = min(magnitude, np.float32(65504.0))
        split = magnitude * np.float32(8193.0)
        rounded = split - (split - magnitude)
    return np.float32(np.copysign(rounded, value))


@functools.partial(compiled, nogil=True)
def _search(
    grouped: np.ndarray,
    extreme: np.ndarray,
    tries: np.ndarray,
    importance: np.ndarray,
    lowest: np.float32,
    highest: np.float32,
    best: np.ndarray,
) -> None:
    outputs, groups, size = grouped.shape
    count = len(tries)
    scales, inverses = np.empty(count, np.float32), np.empty(count, np.float32)
    errors = np.empty(count, np.float32)
    for output in range(outputs):
        for group in range(groups):
            for i in range(count):
                scales[i] = _half(extreme[output, group] * tries[i])
                inverses[i] = np.float32(1) / scales[i]
                errors[i] = 0
            for place in range(size):
                weight, factor = grouped[output, group, place], importance[group, place]
                # Innermost, so that scales run side by side in vector registers.
                for i in range(count):
                    value = min(max(np.rint(weight * inverses[i]), lowest), highest)
                    missed = value * scales[i] - weight
                    errors[i] += missed * missed * factor
            best[output, group] = scales[np.argmin(errors)]
