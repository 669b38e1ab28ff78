"""Runs the bench of the FP32 units, all of them in one netlist, and checks that it can fail."""

import pytest
from amaranth.hdl import Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.floating import (
    FloatAdd,
    FloatFunction,
    FloatMultiply,
    FloatToInteger,
    IntegerToFloat,
    float_canonical,
    float_greater,
)
from hw.spec.floating import FP32
from hw.spec.functions import Function
from sim_tests.bench import run_bench

BENCH = "sim_tests.bench_floating"

TO_INTEGER = [(8, 0), (48, 30)]
FROM_INTEGER = [24, 30]


class FloatUnits(wiring.Component):
    """Every FP32 unit side by side.

    Members
    -------
    a, b : In(unsigned(32))
        Operands.
    operation : In(Function)
        Function of `a`.
    i : In(signed(64))
        Integer to convert.
    product, total, larger, value : Out(unsigned(32))
        Results of two operands, the larger one after one cycle; function of `a`.
    integer_<bits>_<shift> : Out(signed(bits))
        `a` in fixed point.
    from_<shift> : Out(unsigned(32))
        `i` from fixed point.
    """

    a: Value
    b: Value
    operation: Value
    i: Value
    product: Value
    total: Value
    larger: Value
    value: Value

    def __init__(self) -> None:
        word = unsigned(FP32.width)
        super().__init__({
            "a": In(word),
            "b": In(word),
            "operation": In(Function),
            "i": In(signed(64)),
            "product": Out(word),
            "total": Out(word),
            "larger": Out(word),
            "value": Out(word),
            **{f"integer_{bits}_{shift}": Out(signed(bits)) for bits, shift in TO_INTEGER},
            **{f"from_{shift}": Out(word) for shift in FROM_INTEGER},
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.multiply = multiply = FloatMultiply()
        m.submodules.add = add = FloatAdd()
        m.submodules.function = function = FloatFunction()
        for unit, output in ((multiply, self.product), (add, self.total)):
            m.d.comb += [unit.a.eq(self.a), unit.b.eq(self.b), output.eq(unit.o)]
        m.d.comb += [
            function.i.eq(self.a),
            function.operation.eq(self.operation),
            self.value.eq(function.o),
        ]
        for bits, shift in TO_INTEGER:
            name = f"integer_{bits}_{shift}"
            m.submodules[name] = to_integer = FloatToInteger(bits, shift)
            m.d.comb += [to_integer.i.eq(self.a), getattr(self, name).eq(to_integer.o)]
        for shift in FROM_INTEGER:
            name = f"from_{shift}"
            m.submodules[name] = from_integer = IntegerToFloat(64, shift)
            m.d.comb += [from_integer.i.eq(self.i), getattr(self, name).eq(from_integer.o)]
        larger = Signal(FP32.width)
        m.d.comb += larger.eq(Mux(float_greater(m, "b_greater", self.b, self.a), self.b, self.a))
        m.d.sync += self.larger.eq(float_canonical(m, "larger", larger))
        return m


class LateProduct(FloatUnits):
    """FloatUnits with a product one cycle later than its spec says."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.inner = inner = FloatUnits()
        late = Signal(FP32.width)
        m.d.sync += late.eq(inner.product)
        for name, member in self.signature.members.items():
            outside, inside = getattr(self, name), getattr(inner, name)
            if member.flow == In:
                m.d.comb += inside.eq(outside)
            else:
                m.d.comb += outside.eq(late if name == "product" else inside)
        return m


def test_floating() -> None:
    assert run_bench("floating", FloatUnits, BENCH).tests == 4


def test_a_wrong_latency_is_found() -> None:
    with pytest.raises(AssertionError, match="the emulator says"):
        run_bench("floating_late", LateProduct, BENCH, only="two_operands")
