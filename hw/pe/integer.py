"""Integer elements whose multiplier is the `*` of the synthesis tool."""

from amaranth.hdl import Module, Value

from hw.pe.element import ProcessingElement
from hw.spec.processing_element import Operand

__all__ = ["IntegerElement", "as_integer"]


def as_integer(value: Value, operand: Operand) -> Value:
    """The bits of a port as the integer that they are."""
    return value if operand is Operand.UINT4 else value.as_signed()


class IntegerElement(ProcessingElement):
    """Product of two integers by `*`; the sum wraps.

    The baseline of the family: Yosys turns `*` into an array of partial products.
    """

    def product(self, m: Module, weight: Value, activation: Value) -> Value:
        return as_integer(weight, self.spec.weight) * as_integer(activation, self.spec.activation)
