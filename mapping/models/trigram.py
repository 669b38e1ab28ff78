"""The baseline: an interpolated absolute-discount n-gram model over tokens.

P(w | h) = max(c(h, w) - d, 0) / c(h)  +  d * kinds(h) / c(h) * P(w | shorter h)

where ``kinds(h)`` counts the different tokens seen after ``h``.  The recursion
ends in the uniform distribution, so every token has a probability.
"""

import math
from collections import Counter
from collections.abc import Sequence

History = tuple[int, ...]


class NGramModel:
    """Interpolated n-gram counts of one order and all the orders below it."""

    def __init__(self, tokens: Sequence[int], order: int, vocabulary: int) -> None:
        """Count ``tokens``; ``order`` 3 is a trigram model, 1 a unigram model."""
        self.order = order
        self.vocabulary = vocabulary
        self.counts: list[Counter[History]] = []
        self.totals: list[Counter[History]] = []
        self.kinds: list[Counter[History]] = []
        self.discounts: list[float] = []
        for size in range(1, order + 1):
            counts = Counter(zip(*(tokens[start:] for start in range(size)), strict=False))
            totals: Counter[History] = Counter()
            for gram, count in counts.items():
                totals[gram[:-1]] += count
            self.counts.append(counts)
            self.totals.append(totals)
            self.kinds.append(Counter(gram[:-1] for gram in counts))
            self.discounts.append(discount(counts))

    def probability(self, history: History, token: int) -> float:
        """Return P(token | history), using as much of the history as was ever seen."""
        result = 1.0 / self.vocabulary
        for size in range(1, self.order + 1):
            if size - 1 > len(history):
                break
            context = history[len(history) - size + 1 :]
            total = self.totals[size - 1][context]
            if total == 0:
                break
            d = self.discounts[size - 1]
            count = self.counts[size - 1][context + (token,)]
            backed_off = d * self.kinds[size - 1][context] * result
            result = (max(count - d, 0.0) + backed_off) / total
        return result

    def loss(self, tokens: Sequence[int]) -> float:
        """Return the mean loss in nats over every token but the first."""
        total = 0.0
        for position in range(1, len(tokens)):
            history = tuple(tokens[max(0, position - self.order + 1) : position])
            total -= math.log(self.probability(history, tokens[position]))
        return total / (len(tokens) - 1)


def discount(counts: Counter[History]) -> float:
    """Return the usual estimate n1 / (n1 + 2 n2) of the absolute discount."""
    once = sum(count == 1 for count in counts.values())
    twice = sum(count == 2 for count in counts.values())
    return once / (once + 2 * twice) if once else 0.5
