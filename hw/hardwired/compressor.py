"""Sums of many bits of different weight: columns of a carry-save tree, reduced by adders."""

from collections import deque
from collections.abc import Sequence

from hw.hardwired.digits import signed_digits
from hw.hardwired.netlist import ONE, ZERO, Netlist

__all__ = ["Columns", "popcount_bits", "sum_bits"]


class Columns:
    """Bits that are to be added, by the power of two that each counts; the sum is modulo 2**width.

    Each column is reduced to one bit by full adders that take three bits and a last half adder, the bits
    that were there first before carries, so that the tree is shallow. Every full adder removes one bit,
    and nothing else does: no arrangement needs fewer.

    Parameters
    ----------
    netlist : Netlist
        Where the adders go.
    width : int
        Columns, and bits of the sum.

    Members
    -------
    constant : int
        Part of the sum that no bit contributes; it costs next to nothing.
    """

    def __init__(self, netlist: Netlist, width: int):
        self.netlist = netlist
        self.width = width
        self.constant = 0
        self._columns: list[list[int]] = [[] for _ in range(width)]

    def add_bit(self, net: int, shift: int) -> None:
        """Add ``net << shift``."""
        if shift < self.width and net != ZERO:
            if net == ONE:
                self.constant += 1 << shift
            else:
                self._columns[shift].append(net)

    def add_number(self, bits: Sequence[int], shift: int = 0) -> None:
        """Add an unsigned number, lowest bit first."""
        for place, net in enumerate(bits):
            self.add_bit(net, shift + place)

    def add_product(self, net: int, factor: int) -> None:
        """Add ``factor * net``: a bit for each signed digit of the factor, inverted where it is negative."""
        for shift, sign in signed_digits(factor):
            if sign > 0:
                self.add_bit(net, shift)
            else:
                # -b = (1 - b) - 1
                self.add_bit(self.netlist.invert(net), shift)
                self.constant -= 1 << shift

    def take_constant(self) -> int:
        """The constant, which is from now on somebody else's to add."""
        constant, self.constant = self.constant, 0
        return constant

    def reduce(self) -> list[int]:
        """Nets of the sum, lowest bit first."""
        netlist = self.netlist
        if not netlist.keep:
            return self._count()
        result: list[int] = []
        carries: list[int] = []
        for shift in range(self.width):
            column = deque(self._columns[shift])
            column.extend(carries)
            carries = []
            if self.constant >> shift & 1:
                if not column:
                    result.append(ONE)
                    continue
                other = column.popleft() if len(column) > 1 else ZERO
                total, carry = netlist.full_adder(ONE, column.popleft(), other)
                column.append(total)
                carries.append(carry)
            while len(column) > 2:
                a, b, c = column.popleft(), column.popleft(), column.popleft()
                total, carry = netlist.full_adder(a, b, c)
                column.append(total)
                carries.append(carry)
            if len(column) == 2:
                total, carry = netlist.half_adder(column[0], column[1])
                column = deque([total])
                carries.append(carry)
            result.append(column[0] if column else ZERO)
        return result

    def _count(self) -> list[int]:
        """As `reduce`, but the adders are counted from the heights of the columns."""
        netlist = self.netlist
        full_adders = half_adders = carried = 0
        result: list[int] = []
        alone: int | None = None  # the carry, where it is known which net that is
        for shift in range(self.width):
            height = len(self._columns[shift]) + carried
            carried, carry, alone = 0, alone, None
            only = None
            if height == 1:
                only = self._columns[shift][0] if self._columns[shift] else carry
            if self.constant >> shift & 1:
                if height == 0:
                    result.append(ONE)
                    continue
                if height == 1:
                    # The bit itself is the carry, its inverse the sum.
                    alone = netlist.fresh() if only is None else only
                    only = netlist.invert(alone)
                else:
                    half_adders += 1
                    height -= 1
                carried = 1
            if height == 0:
                result.append(ZERO)
                continue
            full_adders += (height - 1) // 2
            half_adders += (height - 1) % 2
            carried += height // 2
            result.append(netlist.fresh() if only is None else only)
        netlist.add_counted(full_adders, half_adders)
        return result


def sum_bits(low: int, high: int) -> int:
    """Bits of a two's complement number between `low` and `high`."""
    return (
        max((~low if low < 0 else low).bit_length(), (~high if high < 0 else high).bit_length()) + 1
    )


def popcount_bits(inputs: int, bits: int = 1) -> int:
    """Bits of the sum of that many unsigned numbers of `bits` bits."""
    return (inputs * ((1 << bits) - 1)).bit_length()
