"""Products and sums of the matrix engine in lookup tables."""

from amaranth.hdl import Mux, Value

__all__ = ["balanced_sum", "shift_add"]


def shift_add(weight: Value, activation: Value) -> Value:
    """Product of two signed values as a sum of shifted activations, one for each bit of the weight."""
    terms: list[Value] = []
    for bit in range(len(weight)):
        term = Mux(weight[bit], activation << bit, 0)
        terms.append(-term if bit == len(weight) - 1 else term)
    return balanced_sum(terms)


def balanced_sum(terms: list[Value]) -> Value:
    """Sum of signed values, as a tree."""
    while len(terms) > 1:
        odd = terms[len(terms) // 2 * 2 :]
        terms = [a + b for a, b in zip(terms[::2], terms[1::2], strict=False)] + odd
    return terms[0]
