"""MXFP4 elements: E2M1 numbers are small integers when doubled, so products and sums are exact."""

from amaranth.hdl import Cat, Module, Mux, Value

from hw.floating_values import named
from hw.pe.element import ProcessingElement
from hw.spec.processing_element import Operand

__all__ = ["Mxfp4Element", "doubled"]


def doubled(m: Module, name: str, code: Value) -> Value:
    """Twice an E2M1 number: 0, 1, 2, 3, 4, 6, 8 or 12 and its sign, 5 bits."""
    fraction, exponent, sign = code[0], code[1:3], code[3]
    normal = exponent.any()
    # Subnormals and the lowest exponent are alike: the fraction below a hidden bit.
    significand = Cat(fraction, normal)
    magnitude = Mux(
        exponent == 3, significand << 2, Mux(exponent == 2, significand << 1, significand)
    )
    return named(m, name, Mux(sign, -magnitude, magnitude)[:5].as_signed())


class Mxfp4Element(ProcessingElement):
    """Weight E2M1 times E2M1 or INT8, as integers in units of 1/4 or 1/2; the sum of a block wraps.

    One scale a block is added to the exponent outside, where the sum of the block is taken. E2M1 has
    neither infinities nor NaNs; 14 bits hold any sum of 32 products.
    """

    def product(self, m: Module, weight: Value, activation: Value) -> Value:
        weight = doubled(m, "weight_doubled", weight)
        if self.spec.activation is Operand.INT8:
            product = weight * activation.as_signed()
        else:
            product = weight * doubled(m, "activation_doubled", activation)
        return product[: self.spec.product_bits].as_signed()
