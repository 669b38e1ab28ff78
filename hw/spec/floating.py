"""Floating-point formats of OpenLPU, and the latencies of the units that compute in them.

The arithmetic is *finite only, flush to zero*, rounded to nearest, ties to even:

* An operand whose exponent field is 0 reads as zero of its sign; one whose exponent field is all
  ones reads as the largest finite number of its sign. There are no subnormals, infinities or NaNs.
* A result whose exact magnitude, before rounding, is below the smallest normal number becomes zero
  of its sign; a result that would overflow becomes the largest finite number of its sign.
* An exact zero sum is +0, or -0 if both operands are -0. Comparisons take -0 and +0 as equal.

A latency counts output registers: an input presented in cycle ``t`` has its result readable in
cycle ``t + latency``. Every unit takes one operand set a cycle and has no flow control.
"""

from dataclasses import dataclass

__all__ = [
    "FLOAT_ADD_LATENCY",
    "FLOAT_MULTIPLY_LATENCY",
    "FP32",
    "FROM_INTEGER_LATENCY",
    "FUNCTION_LATENCY",
    "TO_INTEGER_LATENCY",
    "FloatFormat",
]

FLOAT_MULTIPLY_LATENCY = 3
FLOAT_ADD_LATENCY = 4
FUNCTION_LATENCY = 5
TO_INTEGER_LATENCY = 2
FROM_INTEGER_LATENCY = 3


@dataclass(frozen=True)
class FloatFormat:
    """A binary floating-point format: sign, biased exponent, fraction, from the top bit down.

    Parameters
    ----------
    exponent_bits : int
        Width of the exponent field, at least 2.
    fraction_bits : int
        Width of the stored fraction, at least 1; the significand has one hidden bit more.

    Raises
    ------
    ValueError
        If a field is too narrow to hold a normal number.
    """

    exponent_bits: int
    fraction_bits: int

    def __post_init__(self) -> None:
        if self.exponent_bits < 2:
            raise ValueError(f"exponent_bits must be at least 2, not {self.exponent_bits!r}")
        if self.fraction_bits < 1:
            raise ValueError(f"fraction_bits must be at least 1, not {self.fraction_bits!r}")

    @property
    def width(self) -> int:
        """Bits of one number."""
        return 1 + self.exponent_bits + self.fraction_bits

    @property
    def significand_bits(self) -> int:
        """Bits of the significand with its hidden bit."""
        return self.fraction_bits + 1

    @property
    def bias(self) -> int:
        """Exponent field of 1.0."""
        return (1 << (self.exponent_bits - 1)) - 1

    @property
    def exponent_reserved(self) -> int:
        """The exponent field of all ones, which no result has."""
        return (1 << self.exponent_bits) - 1

    @property
    def smallest_exponent(self) -> int:
        """Power of two of the smallest normal number (-126 for FP32)."""
        return 1 - self.bias

    @property
    def largest_exponent(self) -> int:
        """Power of two of the leading bit of the largest finite number (127 for FP32)."""
        return self.bias

    @property
    def sign_mask(self) -> int:
        """Bit pattern of -0."""
        return 1 << (self.width - 1)

    @property
    def smallest(self) -> int:
        """Bit pattern of the smallest positive normal number."""
        return 1 << self.fraction_bits

    @property
    def largest(self) -> int:
        """Bit pattern of the largest finite number."""
        return (self.exponent_reserved << self.fraction_bits) - 1

    @property
    def one(self) -> int:
        """Bit pattern of 1.0."""
        return self.bias << self.fraction_bits


FP32 = FloatFormat(exponent_bits=8, fraction_bits=23)
