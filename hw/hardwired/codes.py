"""Weights as codes in a memory: as few bits as the alphabet needs, and their decoding."""

from collections.abc import Sequence

from hw.hardwired.netlist import Netlist

__all__ = ["Alphabet"]


class Alphabet:
    """The values that weights have, and a code for each.

    Parameters
    ----------
    weights : integers [outputs][inputs]
        The values that are to have codes.

    Members
    -------
    values : tuple of int
        Value of each code, smallest first.
    bits : int
        Bits of a code.
    """

    def __init__(self, weights: Sequence[Sequence[int]]):
        self.values = tuple(sorted({weight for row in weights for weight in row}))
        self.bits = max(1, (len(self.values) - 1).bit_length())
        self._code = {value: code for code, value in enumerate(self.values)}

    def word(self, weights: Sequence[int]) -> int:
        """Codes of weights, the first lowest."""
        return sum(self._code[weight] << self.bits * i for i, weight in enumerate(weights))

    def decode(self, netlist: Netlist, code: Sequence[int], table: Sequence[int]) -> list[int]:
        """Nets of an entry of a table of constants, by code: multiplexers with constant inputs, folded.

        Parameters
        ----------
        table : sequence of int
            A number of no sign for each code.
        """
        width = max(table).bit_length()
        return [look_up(netlist, code, [entry >> k & 1 for entry in table]) for k in range(width)]


def look_up(netlist: Netlist, code: Sequence[int], nets: Sequence[int]) -> int:
    """The net that a code chooses; the last for codes beyond the end."""
    if len(nets) == 1 or not code:
        return nets[0]
    half = 1 << len(code) - 1
    low = look_up(netlist, code[:-1], nets[:half])
    if len(nets) <= half:
        return low
    return netlist.select(code[-1], low, look_up(netlist, code[:-1], nets[half:]))
