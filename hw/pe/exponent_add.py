"""MixPE's element for FP16 activations taken literally: a shift is an addition to the exponent."""

from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Value

from hw.floating_values import named, normalise, shift_right_sticky
from hw.pe.float_element import FloatElement, RawProduct, decode_operand
from hw.pe.shift_add_float import weight_magnitude

__all__ = ["ExponentAddElement"]

WINDOW_BITS = 15
"""An 11-bit significand, three places up to eight times it, and one that is never reached: no sum of
terms loses a bit in the alignment."""


@dataclass(frozen=True)
class _Term:
    """``significand * 2**(exponent - 14)`` in units of the smallest subnormal; zero has exponent 0."""

    exponent: Value
    significand: Value


def _add_terms(m: Module, name: str, a: _Term, b: _Term) -> _Term:
    """Sum of two terms, as a floating-point adder makes it: compare, align, add, normalise."""
    b_larger = named(m, f"{name}_larger", b.exponent > a.exponent)
    large = named(m, f"{name}_large", Mux(b_larger, b.significand, a.significand))
    small = named(m, f"{name}_small", Mux(b_larger, a.significand, b.significand))
    exponent = named(m, f"{name}_exponent", Mux(b_larger, b.exponent, a.exponent))
    other = Mux(b_larger, a.exponent, b.exponent)
    distance = named(m, f"{name}_distance", (exponent - other)[: len(exponent)])
    aligned = shift_right_sticky(m, f"{name}_aligned", small, distance)
    total = named(m, f"{name}_total", large + aligned)
    normalised, leading_zeros = normalise(m, f"{name}_normal", total)
    # The lowest bit is free: a sum that carries had room for it.
    up = (exponent + 1 - leading_zeros)[: len(exponent)]
    nonzero = normalised[-1]
    return _Term(named(m, f"{name}_up", up & nonzero.replicate(len(exponent))), normalised[1:])


class ExponentAddElement(FloatElement):
    """Weight -8..7 times FP16: for each bit of the weight's magnitude the activation with that bit's
    place added to its exponent; three floating-point adders sum them; FP32 sum.

    Exact, as the terms of one activation need 14 bits. Subnormals are normalised first, since adding
    to an exponent is multiplying only in normal numbers; the paper does not speak of them. Infinities
    and NaNs as in IEEE 754.
    """

    LOWEST = 127 - 24
    LARGEST_EXPONENT = 29
    MAGNITUDE_BITS = 14

    def multiply(self, m: Module) -> RawProduct:
        activation = decode_operand(m, "activation_", self.activation, 10)
        sign, magnitude = weight_magnitude(m, self.weight)
        significand, leading_zeros = normalise(m, "activation_normal", activation.significand)
        # Of the leading bit, in units of the smallest subnormal, plus one so that only zero has 0.
        exponent = named(m, "leading", (activation.exponent + 11 - leading_zeros)[:6])
        window = Cat(Const(0, WINDOW_BITS - 11), significand)
        terms = []
        for place, bit in enumerate(magnitude):
            present = named(m, f"present_{place}", bit & significand[-1])
            raised = named(m, f"raised_{place}", (exponent + place)[:6])
            terms.append(_Term(raised & present.replicate(6), window & bit.replicate(WINDOW_BITS)))
        low = _add_terms(m, "low", terms[0], terms[1])
        high = _add_terms(m, "high", terms[2], terms[3])
        total = _add_terms(m, "all", low, high)
        # Back to units of the smallest product: the leading bit is bit 13 of the magnitude.
        return RawProduct(
            sign=activation.sign ^ sign,
            exponent=total.exponent,
            magnitude=total.significand[-14:],
            is_infinite=activation.is_infinite,
            is_nan=activation.is_nan | (activation.is_infinite & ~self.weight.any()),
        )

    def product(self, m: Module, weight: Value, activation: Value) -> Value:
        # The adders have normalised already; their exponents count from one.
        raw = self.multiply(m)
        return self.packed(raw, raw.magnitude, raw.exponent - 1)
