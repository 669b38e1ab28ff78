"""Arithmetic of one lane of the vector unit: function(a * b + c), and its two integer forms."""

from amaranth.hdl import Module, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.floating import FloatAdd, FloatFunction, FloatMultiply, FloatToInteger
from hw.spec.floating import (
    FLOAT_ADD_LATENCY,
    FLOAT_MULTIPLY_LATENCY,
    FP32,
    FUNCTION_LATENCY,
    TO_INTEGER_LATENCY,
)
from hw.spec.functions import Function

__all__ = [
    "ELEMENT_LATENCY",
    "INTEGER_BITS",
    "INTEGER_LATENCY",
    "NO_ADDEND",
    "NO_FACTOR",
    "SUM_BITS",
    "SUM_FRACTION_BITS",
    "VectorLane",
]

#: Neutral operands: a product by 1 and a sum with -0 change no number, not even the sign of a zero.
NO_FACTOR = FP32.one
NO_ADDEND = FP32.sign_mask

INTEGER_BITS = 8
#: Elements of a SUM are integers of this width, in units of 2**-SUM_FRACTION_BITS.
SUM_BITS = 48
SUM_FRACTION_BITS = 30

#: Cycles from the operands A and B to the element, and to its integer forms.
ELEMENT_LATENCY = FLOAT_MULTIPLY_LATENCY + FLOAT_ADD_LATENCY + FUNCTION_LATENCY
INTEGER_LATENCY = ELEMENT_LATENCY + TO_INTEGER_LATENCY


class VectorLane(wiring.Component):
    """One element a cycle, no flow control.

    Members
    -------
    a, b : In(32)
        Factors, any bit pattern; `NO_FACTOR` for B skips the product.
    c : In(32)
        Addend, presented `FLOAT_MULTIPLY_LATENCY` cycles after A and B; `NO_ADDEND` skips the sum.
    operation : In(Function)
        The same throughout an instruction.
    element : Out(32)
        function(a * b + c), canonical, `ELEMENT_LATENCY` cycles after A and B.
    rounded : Out(signed(INTEGER_BITS))
        The element as an integer, `INTEGER_LATENCY` cycles after A and B.
    fixed : Out(signed(SUM_BITS))
        The element in fixed point for SUM, in the same cycle as `rounded`.
    """

    a: Value
    b: Value
    c: Value
    operation: Value
    element: Value
    rounded: Value
    fixed: Value

    def __init__(self) -> None:
        super().__init__({
            "a": In(32),
            "b": In(32),
            "c": In(32),
            "operation": In(Function),
            "element": Out(32),
            "rounded": Out(signed(INTEGER_BITS)),
            "fixed": Out(signed(SUM_BITS)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.multiply = multiply = FloatMultiply()
        m.submodules.add = add = FloatAdd()
        m.submodules.function = function = FloatFunction()
        m.submodules.to_integer = to_integer = FloatToInteger(INTEGER_BITS)
        m.submodules.to_fixed = to_fixed = FloatToInteger(SUM_BITS, SUM_FRACTION_BITS)
        m.d.comb += [
            multiply.a.eq(self.a),
            multiply.b.eq(self.b),
            add.a.eq(multiply.o),
            add.b.eq(self.c),
            function.i.eq(add.o),
            function.operation.eq(self.operation),
            self.element.eq(function.o),
            to_integer.i.eq(function.o),
            self.rounded.eq(to_integer.o),
            to_fixed.i.eq(function.o),
            self.fixed.eq(to_fixed.o),
        ]
        return m
