"""Elements that dequantize each weight themselves: what MixPE moves out of the element."""

from amaranth.hdl import Cat, Module, Mux, Value

from hw.floating_values import named
from hw.pe.element import ProcessingElement
from hw.pe.float_element import FloatElement, FloatOperand, RawProduct, decode_operand
from hw.pe.float_multiply import multiply_operands

__all__ = ["DequantizingFloatElement", "DequantizingInt8Element"]


class DequantizingInt8Element(ProcessingElement):
    """INT4 to INT8 as in QServe, ``q * s2 + s2_zeros`` in 8 bits, then INT8 x INT8; the sum wraps.

    `control` is s2, unsigned, in bits 7..0 and s2_zeros, signed, in bits 15..8.
    """

    GATED = "activation"

    def product(self, m: Module, weight: Value, activation: Value) -> Value:
        scale, offset = self.control[:8], self.control[8:]
        dequantized = named(m, "weight_8", (weight * scale + offset)[:8])
        return dequantized.as_signed() * activation.as_signed()


class DequantizingFloatElement(FloatElement):
    """INT4 to FP16, ``scale * (q - z)`` rounded to nearest even, then FP16 x FP16; FP32 sum.

    `control` is the scale, FP16, in bits 15..0 and z in bits 19..16. IEEE 754 in both steps.
    """

    LOWEST = 127 - 48
    LARGEST_EXPONENT = 58
    MAGNITUDE_BITS = 22

    def multiply(self, m: Module) -> RawProduct:
        weight = self._dequantize(m)
        return multiply_operands(m, weight, decode_operand(m, "activation_", self.activation, 10))

    def _dequantize(self, m: Module) -> FloatOperand:
        scale = decode_operand(m, "scale_", self.control[:16], 10)
        difference = named(m, "difference", self.weight - self.control[16:])
        negative = difference[-1]
        size = named(m, "size", ((difference ^ negative.replicate(5)) + negative)[:4])
        exact = named(m, "exact", scale.significand * size)
        # 15 bits, of which 11 are kept from the leading one down; with 11 or fewer nothing is lost.
        significand: Value = exact[:11]
        exponent: Value = scale.exponent
        for drop in range(1, 5):
            kept, guard = exact[drop : drop + 11], exact[drop - 1]
            sticky = exact[: drop - 1].any() if drop > 1 else 0
            rounded = named(m, f"rounded_{drop}", kept + (guard & (sticky | kept[0])))
            # Rounding up to 2048 leaves zeros below, and is 1024 with the next exponent.
            carried = Cat(rounded[:10], rounded[10] | rounded[11])
            here = exact[10 + drop :].any()
            significand = Mux(here, carried, significand)
            exponent = Mux(here, scale.exponent + drop + rounded[11], exponent)
        exponent = named(m, "weight_exponent", exponent)
        infinite = scale.is_infinite | (~scale.is_nan & (exponent >= 30))
        zero = ~size.any()
        return FloatOperand(
            sign=scale.sign ^ negative,
            exponent=exponent[:5],
            significand=named(m, "weight_significand", significand),
            is_infinite=infinite & ~zero,
            is_nan=scale.is_nan | (scale.is_infinite & zero),
        )
