"""Common sums of two terms in the rows of a matrix, found greedily.

The search repeats one step: of all pairs of terms, the one that occurs most often in the rows becomes a node,
and replaces the pair wherever it occurs. This is the elimination of common subexpressions of multiplierless
filters (Hartley 1996; Paar 1997 for XORs), on sums over all inputs of a matrix as da4ml does it.
"""

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from hw.hardwired.digits import signed_digits

__all__ = ["SharedSums", "SumNode", "Term", "share_sums"]

Key = tuple[int, int]
"""Node and shift of a term."""
Row = dict[Key, int]
"""Sign of each term of a row."""
Pattern = tuple[int, int, int, int]
"""first, second, shift, sign: ``first + sign * (second << shift)``, the first with the smaller shift."""

TILE_INPUTS = 64
"""Inputs searched together: the pairs grow with their square."""
TILE_OUTPUTS = 256
"""Rows searched together."""


@dataclass(frozen=True)
class Term:
    """``sign * (node << shift)``; nodes below the number of inputs are inputs."""

    node: int
    shift: int
    sign: int


@dataclass(frozen=True)
class SumNode:
    """``first + sign * (second << shift)``."""

    first: int
    second: int
    shift: int
    sign: int


@dataclass(frozen=True)
class SharedSums:
    """Rows as sums of terms of shared nodes.

    Parameters
    ----------
    inputs : int
        Nodes 0 to `inputs` - 1 are the inputs; node ``inputs + k`` is ``nodes[k]``.
    nodes : tuple of SumNode
        Each refers to nodes before it only.
    rows : tuple of tuple of Term
        What is left to add up for each output.
    """

    inputs: int
    nodes: tuple[SumNode, ...]
    rows: tuple[tuple[Term, ...], ...]

    @property
    def adders(self) -> int:
        """Additions in all."""
        return len(self.nodes) + sum(max(0, len(row) - 1) for row in self.rows)


def share_sums(
    weights: Sequence[Sequence[int]],
    tile_inputs: int = TILE_INPUTS,
    tile_outputs: int = TILE_OUTPUTS,
) -> SharedSums:
    """Find shared sums in a matrix; deterministic.

    Parameters
    ----------
    weights : integers [outputs][inputs]
    tile_inputs, tile_outputs : int
        The search looks at a part of the matrix of this size at a time.
    """
    inputs = len(weights[0])
    nodes: list[SumNode] = []
    rows: list[list[Term]] = [[] for _ in weights]
    for top in range(0, len(weights), tile_outputs):
        for left in range(0, inputs, tile_inputs):
            part = _rows_of(weights[top : top + tile_outputs], left, left + tile_inputs)
            search = _Search(part, inputs + len(nodes))
            nodes += search.run()
            for row, terms in enumerate(search.rows):
                rows[top + row] += [
                    Term(node, shift, sign) for (node, shift), sign in terms.items()
                ]
    return SharedSums(inputs, tuple(nodes), tuple(map(tuple, rows)))


def _rows_of(weights: Sequence[Sequence[int]], left: int, right: int) -> list[Row]:
    return [
        {
            (left + column, shift): sign
            for column, weight in enumerate(row[left:right])
            for shift, sign in signed_digits(weight)
        }
        for row in weights
    ]


class _Search:
    """The greedy search on the rows of one tile, which it rewrites."""

    def __init__(self, rows: list[Row], next_node: int):
        self.rows = rows
        self._next = next_node
        self._count: Counter[Pattern] = Counter()
        for row in rows:
            terms = list(row.items())
            for index, (key, sign) in enumerate(terms):
                for other, other_sign in terms[:index]:
                    self._count[_pattern(key, sign, other, other_sign)] += 1
        self._heap = [(-count, pattern) for pattern, count in self._count.items() if count > 1]
        heapq.heapify(self._heap)

    def run(self) -> list[SumNode]:
        """The nodes, in the order of their numbers."""
        nodes: list[SumNode] = []
        while self._heap:
            count, pattern = heapq.heappop(self._heap)
            if self._count[pattern] != -count:
                # Its count has changed since it was put there; a later entry tells how, if it still matters.
                continue
            if self._replace(pattern):
                nodes.append(SumNode(*pattern))
                self._next += 1
        return nodes

    def _replace(self, pattern: Pattern) -> bool:
        """Put a node in place of all occurrences, unless there turn out to be fewer than two."""
        found = [(row, key) for row in self.rows for key in _occurrences(row, pattern)]
        # Fewer than counted, where occurrences of a node with itself share a term.
        if len(found) < 2:
            return False
        touched: set[Pattern] = set()
        for row, key in found:
            self._replace_one(row, key, pattern, touched)
        del self._count[pattern]
        for changed in touched:
            count = self._count[changed]
            if count > 1:
                heapq.heappush(self._heap, (-count, changed))
        return True

    def _replace_one(self, row: Row, key: Key, pattern: Pattern, touched: set[Pattern]) -> None:
        _, second, distance, _ = pattern
        shift = key[1]
        count = self._count
        kept = row[key]
        for old in (key, (second, shift + distance)):
            sign = row.pop(old)
            for other, other_sign in row.items():
                lost = _pattern(old, sign, other, other_sign)
                count[lost] -= 1
                touched.add(lost)
        new = (self._next, shift)
        for other, other_sign in row.items():
            gained = _pattern(new, kept, other, other_sign)
            count[gained] += 1
            touched.add(gained)
        row[new] = kept


def _pattern(key: Key, sign: int, other: Key, other_sign: int) -> Pattern:
    distance = other[1] - key[1]
    if distance > 0 or (distance == 0 and other[0] > key[0]):
        return key[0], other[0], distance, sign * other_sign
    return other[0], key[0], -distance, sign * other_sign


def _occurrences(row: Row, pattern: Pattern) -> list[Key]:
    """First terms of occurrences that share no term."""
    first, second, distance, sign = pattern
    found: list[Key] = []
    used: set[Key] = set()
    for shift in range(MAXIMUM_SHIFT):
        key, other = (first, shift), (second, shift + distance)
        if key in row and other in row and row[key] * row[other] == sign:
            if key not in used and other not in used:
                found.append(key)
                used |= {key, other}
    return found


MAXIMUM_SHIFT = 16
"""Shifts of terms are below this: weights are small."""
