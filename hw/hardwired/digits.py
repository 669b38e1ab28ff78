"""Integers as sums of signed powers of two."""

from functools import cache

__all__ = ["binary_digits", "odd_part", "signed_digits"]


def binary_digits(value: int) -> list[tuple[int, int]]:
    """Shift and sign (+1 or -1) of each binary digit of |value|, all with the sign of `value`."""
    sign = -1 if value < 0 else 1
    return [(k, sign) for k in range(abs(value).bit_length()) if abs(value) >> k & 1]


@cache
def signed_digits(value: int) -> tuple[tuple[int, int], ...]:
    """Shift and sign of each digit of `value`, as few as there can be.

    The canonical form has no two neighbouring digits. Where plain binary is as short it is taken, because
    its digits all have one sign.
    """
    digits: list[tuple[int, int]] = []
    rest, shift = value, 0
    while rest:
        if rest & 1:
            # The remainder that leaves a multiple of four.
            digit = 2 - (rest & 3)
            digits.append((shift, digit))
            rest -= digit
        rest >>= 1
        shift += 1
    binary = binary_digits(value)
    return tuple(binary if len(binary) <= len(digits) else digits)


def odd_part(value: int) -> tuple[int, int]:
    """The odd number o and the shift k with ``value == o << k``; `value` is not 0."""
    shift = (value & -value).bit_length() - 1
    return value >> shift, shift
