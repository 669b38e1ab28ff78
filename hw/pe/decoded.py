"""ANT and OliVe: a 4-bit integer and a shift for each operand, as decoders at the edge give them."""

from amaranth.hdl import Module, Value

from hw.floating_values import named
from hw.pe.element import ProcessingElement

__all__ = ["DecodedElement"]


class DecodedElement(ProcessingElement):
    """``(a * b) << (shift_a + shift_b)``: 4-bit multiplier, exponent adder, shifter; the sum wraps.

    Product bits above `spec.product_bits` are dropped; operands that a decoder gives never have any.
    These formats have no infinities or NaNs. ANT: Guo et al., MICRO 2022. OliVe: Guo et al., ISCA 2023.
    """

    def product(self, m: Module, weight: Value, activation: Value) -> Value:
        product = named(m, "integer", weight[:4].as_signed() * activation[:4].as_signed())
        shift = named(m, "shift", weight[4:] + activation[4:])
        width = self.spec.product_bits
        value: Value = product
        for level, bit in enumerate(shift):
            moved = (value << (1 << level))[:width].as_signed()
            value = named(m, f"shifted_{level}", self._choose(bit, moved, value, width))
        return value

    def _choose(self, bit: Value, moved: Value, value: Value, width: int) -> Value:
        chosen = (moved & bit.replicate(width).as_signed()) | (
            value & (~bit).replicate(width).as_signed()
        )
        return chosen[:width].as_signed()
