"""The function unit: exponential, reciprocal and reciprocal square root from one table memory."""

from amaranth.hdl import Cat, Const, MemoryData, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from hw.floating_conversion import align_integer
from hw.floating_values import DecodedFloat, decode, delay, named, register, round_integer
from hw.spec.floating import FP32
from hw.spec.functions import (
    COEFFICIENT_FRACTION_BITS,
    CONSTANT_BITS,
    LINEAR_BITS,
    QUADRATIC_BITS,
    RESULT_FRACTION_BITS,
    STEP_BITS,
    TABLE_DEPTH,
    TABLE_START,
    TABLES,
    Function,
)

__all__ = ["FloatFunction"]

#: Integer and fraction bits, with sign, of the exponential's operand in fixed point.
FIXED_BITS = FP32.exponent_bits + FP32.fraction_bits

TRUNCATED_BITS = COEFFICIENT_FRACTION_BITS + 2 * STEP_BITS - RESULT_FRACTION_BITS

#: Exponent field of 128.0, from where on the exponential saturates, and is zero if negative.
EXPONENTIAL2_END = FP32.bias + FP32.exponent_bits - 1


def _table_memory() -> memory.Memory:
    """All tables in one read-only memory, at the addresses of `TABLE_START`."""
    layout = data.StructLayout({
        "constant": unsigned(CONSTANT_BITS),
        "linear": signed(LINEAR_BITS),
        "quadratic": unsigned(QUADRATIC_BITS),
    })
    rows: list[data.Const] = []
    for function, start in TABLE_START.items():
        if len(rows) != start:
            raise ValueError(f"table of {function.name} must start at {len(rows)}, not {start}")
        for segment in TABLES[function]:
            row: dict[int | str, int] = {
                "constant": segment.constant,
                "linear": segment.linear,
                "quadratic": segment.quadratic,
            }
            rows.append(layout.const(row))
    content = MemoryData(shape=layout, depth=TABLE_DEPTH, init=rows)
    return memory.Memory(content)


class FloatFunction(wiring.Component):
    """A function of an FP32 number, chosen for each number.

    No flow control; latency `FUNCTION_LATENCY`, one number a cycle. `hw.spec.functions` states
    the functions; IDENTITY passes the canonical form of the operand, RELU that of a positive one. One 256-entry table memory;
    the quadratic is nested, exact, and truncated once.

    Members
    -------
    i : In(unsigned(32))
        Operand, any bit pattern.
    operation : In(Function)
        What to compute of the operand presented in the same cycle.
    o : Out(unsigned(32))
        Result, canonical.
    """

    i: Value
    operation: Value
    o: Value

    def __init__(self) -> None:
        super().__init__({
            "i": In(unsigned(FP32.width)),
            "operation": In(Function),
            "o": Out(unsigned(FP32.width)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.table = table = _table_memory()
        segment = table.read_port()

        # Stage 1: exceptional operands, and alignment of the exponential's operand.
        function = named(m, "function_0", Value.cast(self.operation))
        operand = decode(m, "operand", self.i, FP32)
        override, override_value = self._override(m, operand, function)
        window, window_fraction_bits, _ = align_integer(
            m, "fixed", operand, FP32, FIXED_BITS, FP32.fraction_bits
        )
        window_1 = register(m, "window_1", window)
        fraction_1 = register(m, "fraction_1", operand.significand[:-1])
        exponent_1 = register(m, "exponent_1", operand.exponent)
        sign_1 = register(m, "sign_1", operand.sign)
        function_1 = register(m, "function_1", function)

        # Stage 2: reduced operand and exponent of the result; the table is read at its end.
        fixed = round_integer(m, "rounded", window_1, window_fraction_bits, sign_1, Const(0, 1))
        exponential = named(m, "exponential", function_1 == Function.EXPONENTIAL2.value)
        reciprocal = named(m, "reciprocal", function_1 == Function.RECIPROCAL.value)
        reduced = named(m, "reduced", Mux(exponential, fixed[: FP32.fraction_bits], fraction_1))
        index = reduced[STEP_BITS:]
        # The bias is odd, so an even exponent field is an odd power of two.
        odd_power = ~exponent_1[0]
        m.d.comb += segment.addr.eq(
            Mux(
                exponential | reciprocal,
                Cat(index, reciprocal, Const(0, 1)),
                Cat(index, odd_power, Const(1, 1)),
            )
        )
        result_exponent = self._exponent(fixed, exponent_1, exponential, reciprocal)
        step_2 = register(m, "step_2", reduced[:STEP_BITS])

        # Stage 3: the inner polynomial.
        inner = segment.data.quadratic * step_2 + (segment.data.linear << STEP_BITS)
        inner_3 = register(m, "inner_3", inner)
        constant_3 = register(m, "constant_3", segment.data.constant)
        step_3 = register(m, "step_3", step_2)

        # Stage 4: the outer polynomial; its integer part is the significand, from 1 to 2.
        total = named(m, "total", inner_3 * step_3 + (constant_3 << (2 * STEP_BITS)))
        significand_bits = RESULT_FRACTION_BITS + 2
        significand_4 = register(
            m, "significand_4", total[TRUNCATED_BITS : TRUNCATED_BITS + significand_bits]
        )

        # Stage 5: encode. A significand of 2 has no fraction and one more in the exponent.
        exponent_4 = delay(m, "exponent_since_1", result_exponent, 3)
        sign_4 = delay(m, "sign_since_1", sign_1 & reciprocal, 3)
        override_4 = delay(m, "override", override, 4)
        value_4 = delay(m, "value", override_value, 4)
        exponent = named(m, "exponent", exponent_4 + significand_4[-1])
        magnitude = Cat(significand_4[:RESULT_FRACTION_BITS], exponent[: FP32.exponent_bits])
        flushed = Mux(exponent <= 0, 0, magnitude)
        packed = Mux(override_4, value_4, Cat(flushed, sign_4))
        m.d.comb += self.o.eq(register(m, "packed_5", packed))
        return m

    @staticmethod
    def _override(m: Module, operand: DecodedFloat, function: Value) -> tuple[Value, Value]:
        """Whether the result needs no table, and what it is then."""
        override = Signal()
        value = Signal(FP32.width)
        m.d.comb += value.eq(FP32.largest)
        with m.Switch(function):
            with m.Case(Function.IDENTITY.value):
                m.d.comb += [override.eq(1), value.eq(Cat(operand.magnitude, operand.sign))]
            with m.Case(Function.RELU.value):
                positive = Mux(operand.sign, 0, operand.magnitude)
                m.d.comb += [override.eq(1), value.eq(positive)]
            with m.Case(Function.EXPONENTIAL2.value):
                # From -128 to -126 the exponent of the result is too small, which flushes it.
                m.d.comb += [
                    override.eq(operand.exponent >= EXPONENTIAL2_END),
                    value.eq(Mux(operand.sign, 0, FP32.largest)),
                ]
            with m.Case(Function.RECIPROCAL.value):
                m.d.comb += [override.eq(operand.is_zero), value[-1].eq(operand.sign)]
            with m.Default():
                m.d.comb += [
                    override.eq(operand.is_zero | operand.sign),
                    value.eq(FP32.largest),
                ]
        return override, value

    @staticmethod
    def _exponent(fixed: Value, exponent: Value, exponential: Value, reciprocal: Value) -> Value:
        """Biased exponent of the result, signed, for a significand in [1, 2)."""
        bias = FP32.bias
        return Mux(
            exponential,
            fixed[FP32.fraction_bits :].as_signed() + bias,
            Mux(
                reciprocal,
                (2 * bias - 1) - exponent,
                # bias - 1 - floor((exponent - bias) / 2), with the odd bias made even first.
                (bias - 1 + (bias + 1) // 2) - ((exponent + 1) >> 1),
            ),
        )
