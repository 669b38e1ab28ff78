"""MixPE's element for 4-bit weights and FP16 activations: shift-and-add of the mantissa."""

from amaranth.hdl import Module, Value

from hw.floating_values import named
from hw.pe.float_element import FloatElement, RawProduct, decode_operand
from hw.pe.shift_add import shift_add

__all__ = ["ShiftAddFloatElement", "weight_magnitude"]


def weight_magnitude(m: Module, weight: Value) -> tuple[Value, Value]:
    """Sign and magnitude, 0 to 8, of a signed 4-bit weight."""
    sign = weight[-1]
    return sign, named(m, "weight_magnitude", ((weight ^ sign.replicate(4)) + sign)[:4])


class ShiftAddFloatElement(FloatElement):
    """Weight -8..7 times FP16, exactly: the 11-bit significand is shifted and added; FP32 sum.

    Subnormals, infinities and NaNs as in IEEE 754, infinity times zero included. The paper adds to the
    exponent instead, which is `ExponentAddElement`; the products are the same.
    """

    LOWEST = 127 - 24
    LARGEST_EXPONENT = 29
    MAGNITUDE_BITS = 14

    def multiply(self, m: Module) -> RawProduct:
        activation = decode_operand(m, "activation_", self.activation, 10)
        sign, magnitude = weight_magnitude(m, self.weight)
        # At most 2047 * 8, below 2**14.
        product = shift_add(m, activation.significand, magnitude, signed=False)[:14]
        return RawProduct(
            sign=activation.sign ^ sign,
            exponent=activation.exponent,
            magnitude=named(m, "magnitude", product),
            is_infinite=activation.is_infinite,
            is_nan=activation.is_nan | (activation.is_infinite & ~self.weight.any()),
        )
