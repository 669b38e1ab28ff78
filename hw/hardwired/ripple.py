"""Two's complement numbers of as many bits as their range needs, and ripple-carry adders between them."""

from dataclasses import dataclass

from hw.hardwired.compressor import sum_bits
from hw.hardwired.netlist import ONE, ZERO, Netlist

__all__ = ["Number", "add", "negate", "shift_left", "sign_extend", "subtract"]


@dataclass(frozen=True)
class Number:
    """A number in a network.

    Parameters
    ----------
    bits : tuple of int
        Nets, lowest bit first; the last is the sign, or ZERO where the number is never negative.
    low, high : int
        The range, which decides how many bits there are.
    """

    bits: tuple[int, ...]
    low: int
    high: int


def sign_extend(bits: tuple[int, ...], width: int) -> list[int]:
    """The bits of a number, the sign repeated, or cut off where the range permits."""
    return [bits[min(k, len(bits) - 1)] for k in range(width)]


def shift_left(number: Number, distance: int) -> Number:
    """``number << distance``; no cells."""
    bits = (ZERO,) * distance + number.bits
    return Number(bits, number.low << distance, number.high << distance)


def add(netlist: Netlist, a: Number, b: Number) -> Number:
    """``a + b``, a full adder for each bit in which both have one."""
    return _chain(netlist, a.bits, b.bits, ZERO, a.low + b.low, a.high + b.high)


def subtract(netlist: Netlist, a: Number, b: Number) -> Number:
    """``a - b``: adds the inverse with a carry-in of one."""
    inverse = tuple(netlist.invert(net) for net in b.bits)
    return _chain(netlist, a.bits, inverse, ONE, a.low - b.high, a.high - b.low)


def negate(netlist: Netlist, a: Number) -> Number:
    """``-a``."""
    return subtract(netlist, Number((ZERO,), 0, 0), a)


def _chain(
    netlist: Netlist, a: tuple[int, ...], b: tuple[int, ...], carry: int, low: int, high: int
) -> Number:
    width = sum_bits(low, high)
    bits: list[int] = []
    for x, y in zip(sign_extend(a, width), sign_extend(b, width), strict=True):
        total, carry = netlist.full_adder(x, y, carry)
        bits.append(total)
    return Number(tuple(bits), low, high)
