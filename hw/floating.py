"""Pipelined floating-point multiplier and adder, and the front of the other floating-point units.

All of them run freely: one operand set a cycle, no flow control, registers without reset, latency
from `hw.spec.floating`.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Value, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.floating_conversion import FloatToInteger, IntegerToFloat
from hw.floating_function import FloatFunction
from hw.floating_values import (
    decode,
    float_canonical,
    float_greater,
    float_magnitude,
    named,
    normalise,
    pack,
    register,
    shift_right_sticky,
)
from hw.spec.floating import FP32, FloatFormat

__all__ = [
    "FloatAdd",
    "FloatFunction",
    "FloatMultiply",
    "FloatToInteger",
    "IntegerToFloat",
    "float_canonical",
    "float_greater",
    "float_magnitude",
]


class FloatMultiply(wiring.Component):
    """Product of two numbers, flushed by its exact magnitude, rounded to nearest even, saturated.

    No flow control; latency `FLOAT_MULTIPLY_LATENCY`, one product a cycle.

    Parameters
    ----------
    format : FloatFormat
        Format of operands and product.

    Members
    -------
    a, b : In(unsigned(format.width))
        Operands, any bit patterns.
    o : Out(unsigned(format.width))
        Product, canonical.
    """

    a: Value
    b: Value
    o: Value

    def __init__(self, format: FloatFormat = FP32) -> None:
        self.format = format
        super().__init__({
            "a": In(unsigned(format.width)),
            "b": In(unsigned(format.width)),
            "o": Out(unsigned(format.width)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        a = decode(m, "a", self.a, self.format)
        b = decode(m, "b", self.b, self.format)

        # Stage 1: operands, where a multiplier block has its input registers.
        a_significand = register(m, "a_significand_1", a.significand)
        b_significand = register(m, "b_significand_1", b.significand)
        exponent_1 = register(m, "exponent_1", a.exponent + b.exponent - self.format.bias)
        sign_1 = register(m, "sign_1", a.sign ^ b.sign)
        zero_1 = register(m, "zero_1", a.is_zero | b.is_zero)

        # Stage 2: the whole product; nothing is lost before the rounding.
        product = register(m, "product_2", a_significand * b_significand)
        exponent_2 = register(m, "exponent_2", exponent_1)
        sign_2 = register(m, "sign_2", sign_1)
        zero_2 = register(m, "zero_2", zero_1)

        # Stage 3: the product of two numbers in [1, 2) needs at most one place of normalising.
        large = product[-1]
        normalised = named(m, "normalised", Mux(large, product, product << 1)[: len(product)])
        packed = pack(
            m,
            self.format,
            sign=sign_2,
            exponent=named(m, "exponent_normalised", exponent_2 + large),
            significand=normalised,
            is_zero=zero_2,
        )
        m.d.comb += self.o.eq(register(m, "packed_3", packed))
        return m


class FloatAdd(wiring.Component):
    """Sum of two numbers, rounded to nearest even, flushed, saturated.

    No flow control; latency `FLOAT_ADD_LATENCY`, one sum a cycle. An exact zero sum is -0 only if
    both operands are -0. For a difference, invert the top bit of an operand.

    Parameters
    ----------
    format : FloatFormat
        Format of operands and sum.

    Members
    -------
    a, b : In(unsigned(format.width))
        Operands, any bit patterns.
    o : Out(unsigned(format.width))
        Sum, canonical.
    """

    a: Value
    b: Value
    o: Value

    #: Guard, round and sticky: enough, since a sum that loses more than one leading bit has
    #: operands at most one place apart, and loses nothing in the alignment.
    EXTRA_BITS = 3

    def __init__(self, format: FloatFormat = FP32) -> None:
        self.format = format
        super().__init__({
            "a": In(unsigned(format.width)),
            "b": In(unsigned(format.width)),
            "o": Out(unsigned(format.width)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        a = decode(m, "a", self.a, self.format)
        b = decode(m, "b", self.b, self.format)

        # Stage 1: the operand of larger magnitude goes first, so that a difference is not negative.
        swap = named(m, "swap", b.magnitude > a.magnitude)
        differ = named(m, "differ", a.sign ^ b.sign)
        cancel = named(m, "cancel", differ & (a.magnitude == b.magnitude))
        large_1 = register(m, "large_1", Mux(swap, b.significand, a.significand))
        small_1 = register(m, "small_1", Mux(swap, a.significand, b.significand))
        exponent_1 = register(m, "exponent_1", Mux(swap, b.exponent, a.exponent))
        distance = Mux(swap, b.exponent - a.exponent, a.exponent - b.exponent)
        distance_1 = register(m, "distance_1", distance[: self.format.exponent_bits])
        subtract_1 = register(m, "subtract_1", differ)
        sign_1 = register(m, "sign_1", Mux(swap, b.sign, a.sign) & ~cancel)

        # Stage 2: align and add.
        extra = Const(0, self.EXTRA_BITS)
        small = named(m, "small", Cat(extra, small_1))
        aligned = shift_right_sticky(m, "aligned", small, distance_1)
        addend = named(m, "addend", aligned ^ subtract_1.replicate(len(aligned)))
        # A difference is not negative, so the bit above it is a borrow to be dropped.
        total = named(m, "total", (Cat(extra, large_1) + addend + subtract_1)[: len(aligned) + 1])
        carry = total[-1] & ~subtract_1
        total_2 = register(m, "total_2", Cat(total[:-1], carry))
        exponent_2 = register(m, "exponent_2", exponent_1)
        sign_2 = register(m, "sign_2", sign_1)

        # Stage 3: normalise.
        normalised, leading_zeros = normalise(m, "normalised", total_2)
        normalised_3 = register(m, "normalised_3", normalised)
        exponent_3 = register(m, "exponent_3", exponent_2 + 1 - leading_zeros)
        sign_3 = register(m, "sign_3", sign_2)

        # Stage 4: round.
        packed = pack(
            m,
            self.format,
            sign=sign_3,
            exponent=exponent_3,
            significand=normalised_3,
            is_zero=~normalised_3[-1],
        )
        m.d.comb += self.o.eq(register(m, "packed_4", packed))
        return m
