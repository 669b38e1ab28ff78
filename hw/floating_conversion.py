"""Conversions between floating point and fixed point, pipelined, without flow control."""

from amaranth.hdl import Cat, Const, Module, Value, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.floating_values import (
    DecodedFloat,
    decode,
    named,
    normalise,
    pack,
    register,
    round_integer,
    shift_right_sticky,
)
from hw.spec.floating import FP32, FloatFormat

__all__ = ["FloatToInteger", "IntegerToFloat", "align_integer"]

#: A rounding needs a guard and a sticky bit below the integer.
LEAST_FRACTION_BITS = 2


def align_integer(
    m: Module, name: str, operand: DecodedFloat, format: FloatFormat, bits: int, shift: int
) -> tuple[Value, int, Value]:
    """Place a magnitude times ``2**shift`` in a fixed-point window, ready for `round_integer`.

    Parameters
    ----------
    operand : DecodedFloat
        The number.
    bits : int
        Width of the integer wanted, with its sign.
    shift : int
        Power of two to multiply by.

    Returns
    -------
    tuple of (Value, int, Value)
        The window, its fraction bits, and whether the magnitude is too large for it.
    """
    whole_bits = bits - 1
    fraction_bits = max(format.significand_bits - whole_bits, LEAST_FRACTION_BITS)
    # The largest magnitude has its leading bit at the top of the window; all others move right.
    top = whole_bits - 1 - shift + format.bias
    distance = named(m, f"{name}_distance", top - operand.exponent)
    too_large = named(m, f"{name}_too_large", (distance < 0) & ~operand.is_zero)
    below = Const(0, whole_bits + fraction_bits - format.significand_bits)
    placed = named(m, f"{name}_placed", Cat(below, operand.significand))
    window = shift_right_sticky(m, f"{name}_window", placed, distance.as_unsigned()[:-1])
    return window, fraction_bits, too_large


class FloatToInteger(wiring.Component):
    """``x * 2**shift`` to the nearest integer, ties to even, saturated symmetrically.

    No flow control; latency `TO_INTEGER_LATENCY`, one number a cycle.

    Parameters
    ----------
    bits : int
        Width of the integer, at least 3; its range is ``+-(2**(bits - 1) - 1)``.
    shift : int
        Fraction bits of the integer.
    format : FloatFormat
        Format of the operand.

    Members
    -------
    i : In(unsigned(format.width))
        Operand, any bit pattern.
    o : Out(signed(bits))
        Integer.
    """

    i: Value
    o: Value

    def __init__(self, bits: int, shift: int = 0, format: FloatFormat = FP32) -> None:
        if bits < 3:
            raise ValueError(f"bits must be at least 3, not {bits!r}")
        self.bits = bits
        self.shift = shift
        self.format = format
        super().__init__({"i": In(unsigned(format.width)), "o": Out(signed(bits))})

    def elaborate(self, platform: object) -> Module:
        m = Module()

        # Stage 1: align.
        operand = decode(m, "operand", self.i, self.format)
        window, fraction_bits, too_large = align_integer(
            m, "aligned", operand, self.format, self.bits, self.shift
        )
        window_1 = register(m, "window_1", window)
        too_large_1 = register(m, "too_large_1", too_large)
        sign_1 = register(m, "sign_1", operand.sign)

        # Stage 2: round and negate.
        rounded = round_integer(m, "rounded", window_1, fraction_bits, sign_1, too_large_1)
        m.d.comb += self.o.eq(register(m, "rounded_2", rounded))
        return m


class IntegerToFloat(wiring.Component):
    """The number nearest to ``i * 2**-shift``, ties to even; zero gives +0.

    No flow control; latency `FROM_INTEGER_LATENCY`, one integer a cycle.

    Parameters
    ----------
    width : int
        Width of the integer, with its sign.
    shift : int
        Fraction bits of the integer.
    format : FloatFormat
        Format of the result.

    Members
    -------
    i : In(signed(width))
        Integer, the whole two's complement range.
    o : Out(unsigned(format.width))
        Number, canonical.
    """

    i: Value
    o: Value

    def __init__(self, width: int, shift: int = 0, format: FloatFormat = FP32) -> None:
        if width < 2:
            raise ValueError(f"width must be at least 2, not {width!r}")
        self.width = width
        self.shift = shift
        self.format = format
        super().__init__({"i": In(signed(width)), "o": Out(unsigned(format.width))})

    def elaborate(self, platform: object) -> Module:
        m = Module()

        # Stage 1: magnitude; that of the lowest integer fits because it is unsigned.
        sign = self.i[-1]
        magnitude = (self.i ^ sign.replicate(self.width)).as_unsigned() + sign
        magnitude_1 = register(m, "magnitude_1", magnitude[: self.width])
        sign_1 = register(m, "sign_1", sign)

        # Stage 2: normalise.
        normalised, leading_zeros = normalise(m, "normalised", magnitude_1)
        top = self.format.bias + self.width - 1 - self.shift
        normalised_2 = register(m, "normalised_2", normalised)
        exponent_2 = register(m, "exponent_2", top - leading_zeros)
        sign_2 = register(m, "sign_2", sign_1)

        # Stage 3: round. A narrow integer is padded, so that guard and sticky bits exist.
        padding = max(self.format.significand_bits + LEAST_FRACTION_BITS - self.width, 0)
        packed = pack(
            m,
            self.format,
            sign=sign_2,
            exponent=exponent_2,
            significand=Cat(Const(0, padding), normalised_2),
            is_zero=~normalised_2[-1],
        )
        m.d.comb += self.o.eq(register(m, "packed_3", packed))
        return m
