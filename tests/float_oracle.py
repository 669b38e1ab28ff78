"""The floating-point rules of `hw.spec.floating` on exact fractions, for any format.

Written for tests only, from the rules, and sharing nothing with the hardware or the emulator but
the format constants: operands become fractions, results are rounded with Python's `round`, which
takes ties to even.
"""

from fractions import Fraction

from hw.spec.floating import FloatFormat
from hw.spec.functions import (
    COEFFICIENT_FRACTION_BITS,
    INDEX_BITS,
    RESULT_FRACTION_BITS,
    STEP_BITS,
    TABLES,
    Function,
)


def two_to(power: int) -> Fraction:
    """2**power."""
    return Fraction(1 << power) if power >= 0 else Fraction(1, 1 << -power)


def limits(format: FloatFormat) -> tuple[Fraction, Fraction]:
    """Smallest normal and largest finite number."""
    largest = (2 - two_to(-format.fraction_bits)) * two_to(format.largest_exponent)
    return two_to(format.smallest_exponent), largest


def sign_of(bits: int, format: FloatFormat) -> int:
    """0 or 1."""
    return bits >> (format.width - 1)


def value(bits: int, format: FloatFormat) -> Fraction:
    """The number an operand reads as."""
    fraction = bits & ((1 << format.fraction_bits) - 1)
    exponent = (bits >> format.fraction_bits) & ((1 << format.exponent_bits) - 1)
    if exponent == 0:
        magnitude = Fraction(0)
    elif exponent == (1 << format.exponent_bits) - 1:
        magnitude = limits(format)[1]
    else:
        magnitude = (1 + fraction * two_to(-format.fraction_bits)) * two_to(exponent - format.bias)
    return -magnitude if sign_of(bits, format) else magnitude


def encode(exact: Fraction, zero_sign: int, format: FloatFormat) -> int:
    """Round, flush and saturate; ``zero_sign`` is the sign of an exact zero."""
    smallest, largest = limits(format)
    sign = (1 if exact < 0 else 0) if exact else zero_sign
    magnitude = abs(exact)
    top = sign << (format.width - 1)
    if magnitude < smallest:
        return top
    power = format.smallest_exponent
    while magnitude >= two_to(power + 1):
        power += 1
    rounded = round(magnitude / two_to(power - format.fraction_bits)) * two_to(
        power - format.fraction_bits
    )
    if rounded >= two_to(power + 1):
        power += 1
    if rounded > largest:
        rounded, power = largest, format.largest_exponent
    fraction = (rounded / two_to(power) - 1) * two_to(format.fraction_bits)
    assert fraction.denominator == 1
    return top | ((power + format.bias) << format.fraction_bits) | int(fraction)


def canonical(bits: int, format: FloatFormat) -> int:
    """The bits every operand is taken for."""
    return encode(value(bits, format), sign_of(bits, format), format)


def multiply(a: int, b: int, format: FloatFormat) -> int:
    """Product."""
    sign = sign_of(a, format) ^ sign_of(b, format)
    return encode(value(a, format) * value(b, format), sign, format)


def add(a: int, b: int, format: FloatFormat) -> int:
    """Sum."""
    x, y = value(a, format), value(b, format)
    both_negative_zero = x == y == 0 and sign_of(a, format) and sign_of(b, format)
    return encode(x + y, int(bool(both_negative_zero)), format)


def greater(a: int, b: int, format: FloatFormat) -> bool:
    """Whether ``a > b``."""
    return value(a, format) > value(b, format)


def maximum(a: int, b: int, format: FloatFormat) -> int:
    """``b`` if greater, else ``a``."""
    return canonical(b if greater(b, a, format) else a, format)


def to_integer(x: int, bits: int, shift: int, format: FloatFormat) -> int:
    """Nearest integer to ``x * 2**shift``, saturated."""
    limit = (1 << (bits - 1)) - 1
    return max(-limit, min(limit, round(value(x, format) * two_to(shift))))


def from_integer(i: int, shift: int, format: FloatFormat) -> int:
    """Number nearest to ``i * 2**-shift``."""
    return encode(i * two_to(-shift), 0, format)


def polynomial(function: Function, segment: int, step: Fraction) -> Fraction:
    """Significand in [1, 2] at a position ``step`` in [0, 1) of a segment, truncated once."""
    entry = TABLES[function][segment]
    total = entry.constant + entry.linear * step + entry.quadratic * step * step
    scaled = total * two_to(RESULT_FRACTION_BITS - COEFFICIENT_FRACTION_BITS)
    return (scaled // 1) * two_to(-RESULT_FRACTION_BITS)


def function_bits(function: Function, bits: int, format: FloatFormat) -> int:
    """The function unit on one FP32 number, from the text of `hw.spec.functions`."""
    x = value(bits, format)
    sign = sign_of(bits, format)
    smallest, largest = limits(format)
    segments = 1 << INDEX_BITS
    if function is Function.IDENTITY:
        return canonical(bits, format)
    if function is Function.RELU:
        return canonical(bits, format) if x > 0 else 0
    if function is Function.EXPONENTIAL2:
        if x < format.smallest_exponent:
            return 0
        if x >= format.largest_exponent + 1:
            return format.largest
        fixed = round(x * two_to(format.fraction_bits)) * two_to(-format.fraction_bits)
        whole = fixed // 1
        position = (fixed - whole) * segments
        significand = polynomial(function, int(position), position % 1)
        return encode(significand * two_to(int(whole)), 0, format)
    if function is Function.RECIPROCAL:
        if x == 0:
            return encode(-largest if sign else largest, 0, format)
        power = exponent_of(abs(x))
        position = (abs(x) / two_to(power) - 1) * segments
        result = polynomial(function, int(position), position % 1) * two_to(-power - 1)
        return (
            encode(-result if sign else result, sign, format)
            if result >= smallest
            else (sign << (format.width - 1))
        )
    if x <= 0:
        return format.largest
    power = exponent_of(x)
    half, odd = power // 2, power % 2
    position = (x / two_to(power) - 1) * segments
    significand = polynomial(function, odd * segments + int(position), position % 1)
    return encode(significand * two_to(-half - 1), 0, format)


def exponent_of(magnitude: Fraction) -> int:
    """Power of two of the leading bit of a positive number."""
    power = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    return power if magnitude >= two_to(power) else power - 1


assert STEP_BITS + INDEX_BITS == RESULT_FRACTION_BITS
