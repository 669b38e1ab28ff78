"""Golden results of the sparse DSP chain: as dense products with zeros where nothing was kept."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hw.spec.chain import CANDIDATES, IndexFormat

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ChainBeat:
    """What enters a chain of n cells in one beat.

    Parameters
    ----------
    kept : int
        N of N:16.
    two_weights : bool
        Two weights for an activation, not one for two.
    weights, other_weights, indices : integers [n]
    activations, other_activations : integers [16]
    """

    kept: int
    two_weights: bool
    weights: Integers
    other_weights: Integers
    indices: Integers
    activations: Integers
    other_activations: Integers


def chain_sums(beat: ChainBeat) -> tuple[Integers, Integers]:
    """Low and high sums of the n/N outputs of a beat, in the order of the outputs; empty for N = 0."""
    if beat.kept == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    dense = scattered(beat.kept, beat.indices, beat.weights)
    if beat.two_weights:
        other = scattered(beat.kept, beat.indices, beat.other_weights)
        return dense @ beat.activations, other @ beat.activations
    return dense @ beat.activations, dense @ beat.other_activations


def scattered(kept: int, indices: Integers, weights: Integers) -> Integers:
    """Weights at their places among 16 neighbours, [outputs, 16]; those at the same place are added."""
    outputs = len(weights) // kept
    dense = np.zeros((outputs, CANDIDATES), np.int64)
    np.add.at(dense, (np.arange(len(weights)) // kept, indices), weights)
    return dense


def decoded_indices(index_format: IndexFormat, kept: int, metadata: int) -> list[int]:
    """Index of each of 16 cells, from a beat's index information; see `IndexFormat`.

    An index that a bitmap lacks is zero, and one beyond N is not looked at.
    """
    if index_format is IndexFormat.DENSE:
        return list(range(CANDIDATES))
    text = f"{metadata:064b}"[::-1]
    if index_format is IndexFormat.INDEX:
        return [int(text[4 * cell : 4 * cell + 4][::-1], 2) for cell in range(CANDIDATES)]
    if index_format is IndexFormat.TWO_OF_FOUR:
        fours = [0, 0, 4, 4, 8, 8, 12, 12] * 2
        return [start + int(text[2 * c : 2 * c + 2][::-1], 2) for c, start in enumerate(fours)]
    indices: list[int] = []
    for output in range(CANDIDATES // kept):
        bitmap = text[CANDIDATES * output : CANDIDATES * (output + 1)]
        places = [place for place, bit in enumerate(bitmap) if bit == "1"]
        indices += (places + [0] * kept)[:kept]
    return indices


def packed_indices(index_format: IndexFormat, kept: int, indices: list[int]) -> int:
    """A beat's index information: the inverse of `decoded_indices`.

    Raises
    ------
    ValueError
        If the format cannot express these indices.
    """
    metadata = 0
    if index_format is IndexFormat.INDEX:
        metadata = sum(index << 4 * cell for cell, index in enumerate(indices))
    elif index_format is IndexFormat.TWO_OF_FOUR:
        metadata = sum((index & 3) << 2 * cell for cell, index in enumerate(indices))
    elif index_format is IndexFormat.BITMAP:
        metadata = sum(1 << 16 * (cell // kept) + index for cell, index in enumerate(indices))
    if metadata >> 64 or decoded_indices(index_format, kept, metadata) != list(indices):
        raise ValueError(f"{index_format.name} cannot express {indices} for N = {kept}")
    return metadata
