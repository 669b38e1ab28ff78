"""Combinational pieces of floating-point units: functions from values to values.

Each takes the module it adds its intermediate signals to, so that an expression used twice is
computed once, and returns a value. `hw.spec.floating` states the arithmetic.
"""

from dataclasses import dataclass

from amaranth.hdl import Cat, Module, Mux, Shape, Signal, Value, signed
from amaranth.utils import ceil_log2

from hw.spec.floating import FP32, FloatFormat

__all__ = [
    "DecodedFloat",
    "decode",
    "delay",
    "float_canonical",
    "float_greater",
    "float_magnitude",
    "named",
    "normalise",
    "pack",
    "register",
    "round_integer",
    "shift_right_sticky",
]


def named(m: Module, name: str, value: Value) -> Signal:
    """A signal of the value's own shape, so that later uses share it."""
    signal = Signal(Shape.cast(value.shape()), name=name)
    m.d.comb += signal.eq(value)
    return signal


def register(m: Module, name: str, value: Value) -> Signal:
    """The value one cycle later, in a register without reset."""
    signal = Signal(Shape.cast(value.shape()), name=name, reset_less=True)
    m.d.sync += signal.eq(value)
    return signal


def delay(m: Module, name: str, value: Value, cycles: int) -> Value:
    """The value some cycles later, in registers without reset."""
    for cycle in range(1, cycles + 1):
        value = register(m, f"{name}_{cycle}", value)
    return value


@dataclass(frozen=True)
class DecodedFloat:
    """The fields of an operand after the rules for reserved exponents.

    Parameters
    ----------
    sign : Value
        One bit.
    exponent : Value
        Biased exponent, 0 for zero, never all ones.
    significand : Value
        Fraction under its hidden bit; 0 for zero.
    """

    sign: Value
    exponent: Value
    significand: Value

    @property
    def magnitude(self) -> Value:
        """Canonical bit pattern without the sign; orders magnitudes as unsigned integers."""
        return Cat(self.significand[:-1], self.exponent)

    @property
    def is_zero(self) -> Value:
        """Whether the operand is zero of either sign."""
        return ~self.significand[-1]


def decode(m: Module, name: str, value: Value, format: FloatFormat) -> DecodedFloat:
    """Split an operand: exponent field 0 is zero, all ones is the largest finite number."""
    fraction = value[: format.fraction_bits]
    exponent = value[format.fraction_bits : -1]
    reserved = named(m, f"{name}_reserved", exponent.all())
    hidden = named(m, f"{name}_hidden", exponent.any())
    finite_fraction = (fraction | reserved.replicate(format.fraction_bits)) & hidden.replicate(
        format.fraction_bits
    )
    return DecodedFloat(
        sign=value[-1],
        # All ones less one only clears the lowest bit.
        exponent=named(m, f"{name}_exponent", Cat(exponent[0] & ~reserved, exponent[1:])),
        significand=named(m, f"{name}_significand", Cat(finite_fraction, hidden)),
    )


def float_canonical(m: Module, name: str, value: Value, format: FloatFormat = FP32) -> Signal:
    """The value every unit takes these bits for: no subnormals, infinities or NaNs."""
    decoded = decode(m, name, value, format)
    return named(m, f"{name}_canonical", Cat(decoded.magnitude, decoded.sign))


def float_magnitude(m: Module, name: str, value: Value, format: FloatFormat = FP32) -> Signal:
    """Canonical magnitude, without the sign bit; compare magnitudes as unsigned integers."""
    return named(m, f"{name}_magnitude", decode(m, name, value, format).magnitude)


def float_greater(m: Module, name: str, a: Value, b: Value, format: FloatFormat = FP32) -> Signal:
    """Whether ``a > b`` by value; -0 equals +0. ``Mux(greater(b, a), b, a)`` is the maximum."""
    a_magnitude = float_magnitude(m, f"{name}_a", a, format)
    b_magnitude = float_magnitude(m, f"{name}_b", b, format)
    same_sign = Mux(a[-1], b_magnitude > a_magnitude, a_magnitude > b_magnitude)
    any_nonzero = a_magnitude.any() | b_magnitude.any()
    return named(m, name, Mux(a[-1] ^ b[-1], ~a[-1] & any_nonzero, same_sign))


def shift_right_sticky(m: Module, name: str, value: Value, amount: Value) -> Value:
    """Shift right; the lowest bit of the result also collects every bit shifted out.

    An amount above the width may give zero: what is left is then so far below the guard bit that
    rounding to nearest does not depend on it.

    Parameters
    ----------
    value, amount : Value
        Unsigned, of any widths.
    """
    width = len(value)
    levels = min(len(amount), ceil_log2(width))
    for level in range(levels):
        distance = 1 << level
        shifted = Cat(value[: distance + 1].any(), value[distance + 1 :])
        value = named(m, f"{name}_{distance}", Mux(amount[level], shifted, value)[:width])
    if len(amount) > levels:
        value = named(m, f"{name}_far", Mux(amount[levels:].any(), 0, value)[:width])
    return value


def normalise(m: Module, name: str, value: Value) -> tuple[Value, Value]:
    """Shift left until the top bit is set.

    Returns
    -------
    tuple of Value
        The shifted value and the number of leading zeros. Of zero: zero, and a number without
        meaning.
    """
    width = len(value)
    counts: list[Value] = []
    for level in reversed(range(ceil_log2(width))):
        distance = 1 << level
        empty = named(m, f"{name}_empty_{distance}", ~value[width - distance :].any())
        value = named(m, f"{name}_{distance}", Mux(empty, value << distance, value)[:width])
        counts.append(empty)
    return value, Cat(reversed(counts))


def pack(
    m: Module,
    format: FloatFormat,
    *,
    sign: Value,
    exponent: Value,
    significand: Value,
    is_zero: Value,
) -> Signal:
    """Round a normalised number to nearest even and encode it, flushed or saturated.

    Parameters
    ----------
    exponent : Value
        Signed; the biased exponent of the number before rounding.
    significand : Value
        Its top bit is set; has at least two bits more than the format's significand, the lowest
        of them sticky.
    is_zero : Value
        The number is zero, whatever exponent and significand say.
    """
    dropped = len(significand) - format.significand_bits
    fraction = significand[dropped:-1]
    guard = significand[dropped - 1]
    sticky = significand[: dropped - 1].any()
    round_up = named(m, "round_up", guard & (sticky | fraction[0]))
    # At least two bits wider than the field, whatever the range of the exponent given.
    wide = Signal(signed(max(len(exponent), format.exponent_bits) + 2), name="exponent_wide")
    m.d.comb += wide.eq(exponent)
    # A fraction of all ones rounded up carries into the exponent, which is what is wanted.
    rounded = named(m, "rounded", (Cat(fraction, wide[: format.exponent_bits]) + round_up)[:-1])
    # The flush is decided before rounding; overflow also counts a carry out of the fraction.
    flushed = named(m, "flushed", is_zero | (wide <= 0))
    overflow = named(
        m,
        "overflow",
        (wide >= format.exponent_reserved) | rounded[format.fraction_bits :].all(),
    )
    magnitude = Mux(flushed, 0, Mux(overflow, format.largest, rounded))
    return named(m, "packed", Cat(magnitude[: format.width - 1], sign))


def round_integer(
    m: Module, name: str, window: Value, fraction_bits: int, sign: Value, saturate: Value
) -> Signal:
    """Round a magnitude to nearest even, saturate it, and give it its sign.

    Parameters
    ----------
    window : Value
        Unsigned magnitude, its lowest bit sticky.
    fraction_bits : int
        Bits of the window below the integer, at least 2.
    saturate : Value
        The magnitude is too large for the window; the result is the largest of its sign.

    Returns
    -------
    Signal
        Signed, one bit wider than the integer part of the window; symmetric range.
    """
    whole = named(
        m,
        f"{name}_whole",
        window[fraction_bits:] | saturate.replicate(len(window) - fraction_bits),
    )
    guard = window[fraction_bits - 1]
    sticky = window[: fraction_bits - 1].any()
    # The largest magnitude is never rounded up: that is the saturation of the range.
    round_up = named(m, f"{name}_round_up", guard & (sticky | whole[0]) & ~whole.all())
    # -(whole + round_up) is ~whole + (1 - round_up): one adder rounds and negates.
    inverted = Cat(whole ^ sign.replicate(len(whole)), sign)
    return named(m, name, (inverted + (round_up ^ sign))[: len(inverted)].as_signed())
