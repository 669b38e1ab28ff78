"""Functions computed by table: exponential to base 2, reciprocal, reciprocal square root.

Each is a quadratic over a table of segments, exact in integers, truncated once::

    significand = (c0 * 2**(2 * k) + c1 * d * 2**k + c2 * d * d) >> (f + 2 * k - 23)

with ``k = STEP_BITS``, ``f = COEFFICIENT_FRACTION_BITS``, ``d`` the ``k`` bits below the segment
index, and ``c0`` holding half a unit of the result, which makes the truncation a rounding. Nothing
is lost before that, so any order of evaluation gives the same bits. The significand lies in
[2**23, 2**24]; 2**24 stands for a fraction of zero and one more in the exponent.

The reductions of a nonzero FP32 operand ``x = (-1)**s * 2**e * m``, ``m`` in [1, 2):

EXPONENTIAL2
    +0 if x < -126; the largest finite number if x >= 128. Else ``x`` is rounded to nearest even at
    23 fraction bits; ``n`` is its floor, the fraction gives 6 bits of index and 17 of ``d``;
    result ``2**n * significand``. Zero gives exactly 1.
RECIPROCAL
    The 23 fraction bits of ``m`` give index and ``d``; result ``(-1)**s * 2**(-e - 1) *
    significand``, zero of that sign if its exponent is then below -126. Zero gives the largest
    finite number of its sign. Powers of two are exact.
RECIPROCAL_SQUARE_ROOT
    Zero and negative operands give the largest finite number. Else the segment index has the low
    bit of ``e`` above the 6 bits of ``m``; result ``2**(-floor(e / 2) - 1) * significand``. Powers
    of four are exact.
"""

import enum
import json
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "COEFFICIENT_FRACTION_BITS",
    "CONSTANT_BITS",
    "INDEX_BITS",
    "LINEAR_BITS",
    "QUADRATIC_BITS",
    "RESULT_FRACTION_BITS",
    "STEP_BITS",
    "TABLES",
    "TABLE_DEPTH",
    "TABLE_START",
    "Function",
    "Segment",
]


class Function(enum.Enum):
    """What a function unit does to an element; the values are the hardware's codes."""

    #: The operand itself, in canonical form.
    IDENTITY = 0
    #: Two to the power of the operand.
    EXPONENTIAL2 = 1
    #: One over the operand.
    RECIPROCAL = 2
    #: One over the square root of the operand.
    RECIPROCAL_SQUARE_ROOT = 3
    #: The operand if it is above zero, otherwise +0.
    RELU = 4


@dataclass(frozen=True)
class Segment:
    """Coefficients of one segment, integers in units of ``2**-COEFFICIENT_FRACTION_BITS``.

    Parameters
    ----------
    constant, linear, quadratic : int
        ``c0`` (with half a unit of the result), ``c1`` (signed), ``c2``.
    """

    constant: int
    linear: int
    quadratic: int


_stored = json.loads(Path(__file__).with_name("function_tables.json").read_text(encoding="utf-8"))

INDEX_BITS: int = _stored["index_bits"]
STEP_BITS: int = _stored["step_bits"]
COEFFICIENT_FRACTION_BITS: int = _stored["coefficient_fraction_bits"]
RESULT_FRACTION_BITS: int = _stored["result_fraction_bits"]

TABLES: dict[Function, tuple[Segment, ...]] = {
    function: tuple(Segment(*coefficients) for coefficients in _stored[function.name.lower()])
    for function in (
        Function.EXPONENTIAL2,
        Function.RECIPROCAL,
        Function.RECIPROCAL_SQUARE_ROOT,
    )
}

#: Address of each function's first segment when all tables share one memory.
TABLE_START: dict[Function, int] = {
    Function.EXPONENTIAL2: 0,
    Function.RECIPROCAL: 1 << INDEX_BITS,
    Function.RECIPROCAL_SQUARE_ROOT: 2 << INDEX_BITS,
}
TABLE_DEPTH: int = 4 << INDEX_BITS

_segments = [segment for table in TABLES.values() for segment in table]

#: Widths that hold every coefficient: ``c0`` and ``c2`` unsigned, ``c1`` with its sign.
CONSTANT_BITS: int = max(segment.constant for segment in _segments).bit_length()
LINEAR_BITS: int = 1 + max(abs(segment.linear) for segment in _segments).bit_length()
QUADRATIC_BITS: int = max(segment.quadratic for segment in _segments).bit_length()

if min(segment.quadratic for segment in _segments) < 0:
    raise ValueError("function_tables.json: quadratic coefficients must not be negative")
