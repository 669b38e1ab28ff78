"""FP16 and FP8 elements: exact product of two small floats, summed in FP32."""

from amaranth.hdl import Module

from hw.floating_values import named
from hw.pe.element import ProcessingElement
from hw.pe.float_element import FloatElement, FloatOperand, RawProduct, decode_operand
from hw.spec.processing_element import Operand, ProcessingElementSpec

__all__ = ["FloatMultiplyElement", "multiply_operands"]

#: Fraction bits, exponent of the smallest subnormal, largest exponent above that, has infinities.
_FORMATS = {
    Operand.FP16: (10, -24, 29, True),
    Operand.E4M3: (3, -9, 14, False),
    Operand.E5M2: (2, -16, 29, True),
}


def multiply_operands(
    m: Module, a: FloatOperand, b: FloatOperand, has_infinity: bool = True
) -> RawProduct:
    """Exact product of two decoded operands, with the special cases of IEEE 754."""
    infinite = named(m, "infinite", a.is_infinite | b.is_infinite)
    zero = a.is_zero | b.is_zero
    nan = named(m, "nan", a.is_nan | b.is_nan | (infinite & zero if has_infinity else 0))
    return RawProduct(
        sign=a.sign ^ b.sign,
        exponent=a.exponent + b.exponent,
        magnitude=named(m, "magnitude", a.significand * b.significand),
        is_infinite=infinite if has_infinity else None,
        is_nan=nan,
    )


class FloatMultiplyElement(FloatElement):
    """Product of two floats of one format, subnormals, infinities and NaNs included; FP32 sum.

    E4M3 and E5M2 are those of the OCP 8-bit floating point specification. Where others of the family
    leave parts of IEEE 754 out, this one leaves out none.
    """

    def __init__(self, spec: ProcessingElementSpec) -> None:
        ProcessingElement.__init__(self, spec)
        self.fraction_bits, smallest, largest, self.HAS_INFINITY = _FORMATS[spec.weight]
        self.LOWEST = 127 + 2 * smallest
        self.LARGEST_EXPONENT = 2 * largest
        self.MAGNITUDE_BITS = 2 * (self.fraction_bits + 1)

    def multiply(self, m: Module) -> RawProduct:
        operands = [
            decode_operand(m, name, value, self.fraction_bits, self.HAS_INFINITY)
            for name, value in (("weight_", self.weight), ("activation_", self.activation))
        ]
        return multiply_operands(m, *operands, has_infinity=self.HAS_INFINITY)
