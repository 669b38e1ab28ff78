"""Derive the coefficients of the tabulated functions, in exact integer arithmetic.

Run ``python -m hw.spec.derive_tables`` to rewrite ``function_tables.json``; a test derives the
tables again and compares. No floating-point number and no mathematical library is involved, so
the tables are the same everywhere.

Each function is reduced to a smooth ``f`` with values in [1, 2], cut into segments. On a segment,
with ``t`` in [0, 1), ``f`` is replaced by the quadratic through its two ends and its middle. Of all
quadratics that are exact at both ends this one has the smallest largest error; being exact there
makes neighbouring segments meet, so that the approximation is monotone over the whole range and
powers of two come out exact.
"""

import json
from collections.abc import Callable
from fractions import Fraction
from math import isqrt
from pathlib import Path

__all__ = ["derive_tables", "main"]

INDEX_BITS = 6
STEP_BITS = 17
COEFFICIENT_FRACTION_BITS = 26
RESULT_FRACTION_BITS = 23

# Working precision of the function values: 2**-64, far below a coefficient's last place.
WORKING_BITS = 64


def _exponential2(x: Fraction) -> Fraction:
    """2**x for a multiple of 1/128 in [0, 1], rounded down to the working precision."""
    power = x * 128
    if power.denominator != 1:
        raise ValueError(f"x must be a multiple of 1/128, not {x}")
    # The floor of a square root of a floor is the floor of the fourth root, and so on: seven
    # integer square roots give the floor of the 128th root.
    root = 1 << (int(power) + 128 * WORKING_BITS)
    for _ in range(7):
        root = isqrt(root)
    return Fraction(root, 1 << WORKING_BITS)


def _twice_reciprocal(m: Fraction) -> Fraction:
    """2 / m, exact."""
    return 2 / m


def _twice_reciprocal_square_root(v: Fraction) -> Fraction:
    """2 / sqrt(v), rounded down to the working precision."""
    square = (4 << (2 * WORKING_BITS)) * v.denominator // v.numerator
    return Fraction(isqrt(square), 1 << WORKING_BITS)


def _nearest(value: Fraction) -> int:
    """Nearest integer, ties up (no tie occurs except at exact values)."""
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)


def _segments(function: Callable[[Fraction], Fraction], start: int, length: int) -> list[list[int]]:
    """Coefficients of ``2**INDEX_BITS`` equal segments that cover [start, start + length)."""
    count = 1 << INDEX_BITS
    scale = 1 << COEFFICIENT_FRACTION_BITS
    # The units truncate; half a unit in the last place of the result rides in c0.
    half = 1 << (COEFFICIENT_FRACTION_BITS - RESULT_FRACTION_BITS - 1)
    segments = []
    for index in range(count):
        left, middle, right = (
            function(start + Fraction(length * (2 * index + part), 2 * count)) * scale
            for part in range(3)
        )
        c0 = _nearest(left)
        c2 = _nearest(2 * left + 2 * right - 4 * middle)
        # Not rounded from its own formula, so that the segment ends exactly where the next starts.
        c1 = _nearest(right) - c0 - c2
        segments.append([c0 + half, c1, c2])
    return segments


def derive_tables() -> dict[str, object]:
    """Derive the content of ``function_tables.json``.

    Returns
    -------
    dict
        Widths, and for each function a list of ``[c0, c1, c2]``, in units of
        ``2**-coefficient_fraction_bits``, by segment.
    """
    return {
        "index_bits": INDEX_BITS,
        "step_bits": STEP_BITS,
        "coefficient_fraction_bits": COEFFICIENT_FRACTION_BITS,
        "result_fraction_bits": RESULT_FRACTION_BITS,
        "exponential2": _segments(_exponential2, 0, 1),
        "reciprocal": _segments(_twice_reciprocal, 1, 1),
        "reciprocal_square_root": _segments(_twice_reciprocal_square_root, 1, 1)
        + _segments(_twice_reciprocal_square_root, 2, 2),
    }


def main() -> None:
    """Rewrite ``function_tables.json`` beside this file."""
    text = json.dumps(derive_tables(), separators=(", ", ": ")).replace("]], ", "]],\n")
    text = text.replace("], [", "],\n[")
    Path(__file__).with_name("function_tables.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
