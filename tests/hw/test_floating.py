"""Floating-point units against exact fractions: all operand pairs of small formats, and FP32."""

import gc
import random
from collections.abc import Callable, Mapping, Sequence

import pytest
from amaranth.hdl import Module, Mux, Value, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from hw.floating import (
    FloatAdd,
    FloatFunction,
    FloatMultiply,
    FloatToInteger,
    IntegerToFloat,
    float_canonical,
    float_greater,
    float_magnitude,
)
from hw.spec import floating as spec
from hw.spec.floating import FP32, FloatFormat
from hw.spec.functions import Function
from tests import float_oracle as oracle

SMALL_FORMATS = [
    pytest.param(FloatFormat(3, 3), id="e3f3"),
    pytest.param(FloatFormat(4, 2), id="e4f2"),
    pytest.param(FloatFormat(2, 4), id="e2f4"),
]

#: FP32 patterns at the limits of every rule.
EDGES = [
    sign | magnitude
    for sign in (0, FP32.sign_mask)
    for magnitude in (
        0,
        1,
        0x007FFFFF,
        0x00800000,
        0x00800001,
        0x00FFFFFF,
        0x01000000,
        0x34000000,
        0x3EFFFFFF,
        0x3F000000,
        0x3F7FFFFF,
        0x3F800000,
        0x3F800001,
        0x3FC00000,
        0x40000000,
        0x40800000,
        0x42FC0000,
        0x42FC0001,
        0x42FE0000,
        0x42FFFFFF,
        0x43000000,
        0x7E7FFFFF,
        0x7E800000,
        0x7E800001,
        0x7EFFFFFF,
        0x7F000000,
        0x7F7FFFFF,
        0x7F800000,
        0x7FC00000,
        0x7FFFFFFF,
    )
]


def stream(
    component: wiring.Component,
    latency: int,
    inputs: Mapping[str, Sequence[int]],
    output: str = "o",
) -> list[int]:
    """Feed one operand set a cycle and collect each output ``latency`` cycles later."""
    count = len(next(iter(inputs.values())))
    results: list[int] = []

    async def testbench(ctx) -> None:
        for cycle in range(count + latency):
            if cycle < count:
                for name, values in inputs.items():
                    ctx.set(getattr(component, name), values[cycle])
            if cycle >= latency:
                results.append(ctx.get(getattr(component, output)))
            await ctx.tick()

    simulator = Simulator(component)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    return results


def first_difference(
    found: Sequence[int], wanted: Sequence[int], inputs: Sequence[object]
) -> object | None:
    """The first operands whose result is wrong, for the message of an assertion."""
    assert len(found) == len(wanted) == len(inputs)
    return next(
        ((i, hex(f), hex(w)) for f, w, i in zip(found, wanted, inputs, strict=True) if f != w), None
    )


def check_pairs(
    component: wiring.Component,
    latency: int,
    format: FloatFormat,
    pairs: list[tuple[int, int]],
    golden: Callable[[int, int, FloatFormat], int],
) -> None:
    """Compare a two-operand unit with an oracle on the given pairs."""
    found = stream(component, latency, {"a": [a for a, _ in pairs], "b": [b for _, b in pairs]})
    wanted = [int(golden(a, b, format)) for a, b in pairs]
    assert first_difference(found, wanted, pairs) is None


def all_pairs(format: FloatFormat) -> list[tuple[int, int]]:
    """Every pair of bit patterns, in an order that changes both operands each cycle."""
    pairs = [(a, b) for a in range(1 << format.width) for b in range(1 << format.width)]
    random.Random(1).shuffle(pairs)
    return pairs


def full_width_pairs(seed: int, count: int) -> list[tuple[int, int]]:
    """FP32 pairs: edges against edges, and random patterns, half of them of close exponents."""
    generator = random.Random(seed)
    pairs = [(a, b) for a in EDGES for b in EDGES]
    for _ in range(count):
        a = generator.getrandbits(32)
        b = generator.getrandbits(32)
        if generator.random() < 0.5:
            exponent = ((a >> 23) + generator.randrange(-26, 27)) & 0xFF
            b = (b & 0x807FFFFF) | (exponent << 23)
        pairs.append((a, b))
    return pairs


class Compare(wiring.Component):
    """The combinational helpers, registered: maximum, and the parts it consists of."""

    a: Value
    b: Value
    greater: Value
    magnitude: Value
    o: Value

    def __init__(self, format: FloatFormat) -> None:
        self.format = format
        super().__init__({
            "a": In(unsigned(format.width)),
            "b": In(unsigned(format.width)),
            "greater": Out(1),
            "magnitude": Out(unsigned(format.width - 1)),
            "o": Out(unsigned(format.width)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        chosen = Mux(float_greater(m, "swap", self.b, self.a, self.format), self.b, self.a)
        m.d.sync += [
            self.greater.eq(float_greater(m, "exceeds", self.a, self.b, self.format)),
            self.magnitude.eq(float_magnitude(m, "size", self.a, self.format)),
            self.o.eq(float_canonical(m, "chosen", chosen, self.format)),
        ]
        return m


@pytest.mark.parametrize("format", SMALL_FORMATS)
def test_multiply_all_pairs(format: FloatFormat) -> None:
    check_pairs(
        FloatMultiply(format),
        spec.FLOAT_MULTIPLY_LATENCY,
        format,
        all_pairs(format),
        oracle.multiply,
    )


@pytest.mark.parametrize("format", SMALL_FORMATS)
def test_add_all_pairs(format: FloatFormat) -> None:
    check_pairs(FloatAdd(format), spec.FLOAT_ADD_LATENCY, format, all_pairs(format), oracle.add)


@pytest.mark.parametrize("output", ["o", "greater", "magnitude"])
def test_compare_all_pairs(output: str) -> None:
    format = FloatFormat(3, 2)
    pairs = all_pairs(format)
    inputs = {"a": [a for a, _ in pairs], "b": [b for _, b in pairs]}
    found = stream(Compare(format), 1, inputs, output)
    golden: dict[str, Callable[[int, int], int]] = {
        "o": lambda a, b: oracle.maximum(a, b, format),
        "greater": lambda a, b: int(oracle.greater(a, b, format)),
        "magnitude": lambda a, _: oracle.canonical(a, format) & (format.sign_mask - 1),
    }
    wanted = [golden[output](a, b) for a, b in pairs]
    assert first_difference(found, wanted, pairs) is None


@pytest.mark.parametrize(
    "bits,shift", [(3, 0), (4, 1), (5, -1), (8, 3), (12, 6), (4, 8), (4, 11), (6, -7)]
)
def test_to_integer_all(bits: int, shift: int) -> None:
    format = FloatFormat(4, 4)
    patterns = list(range(1 << format.width))
    random.Random(2).shuffle(patterns)
    found = stream(FloatToInteger(bits, shift, format), spec.TO_INTEGER_LATENCY, {"i": patterns})
    wanted = [oracle.to_integer(x, bits, shift, format) for x in patterns]
    assert first_difference(found, wanted, patterns) is None


@pytest.mark.parametrize("width,shift", [(2, 0), (3, 1), (8, 0), (9, 4), (9, 12), (9, -2), (7, 20)])
def test_from_integer_all(width: int, shift: int) -> None:
    format = FloatFormat(4, 3)
    integers = list(range(-(1 << (width - 1)), 1 << (width - 1)))
    random.Random(3).shuffle(integers)
    found = stream(IntegerToFloat(width, shift, format), spec.FROM_INTEGER_LATENCY, {"i": integers})
    wanted = [oracle.from_integer(i, shift, format) for i in integers]
    assert first_difference(found, wanted, integers) is None


def test_multiply_full_width() -> None:
    pairs = full_width_pairs(4, 2000)
    check_pairs(FloatMultiply(), spec.FLOAT_MULTIPLY_LATENCY, FP32, pairs, oracle.multiply)


def test_add_full_width() -> None:
    pairs = full_width_pairs(5, 3000)
    check_pairs(FloatAdd(), spec.FLOAT_ADD_LATENCY, FP32, pairs, oracle.add)


@pytest.mark.parametrize("bits,shift", [(8, 0), (48, 30)])
def test_to_integer_full_width(bits: int, shift: int) -> None:
    generator = random.Random(6)
    patterns = list(EDGES)
    for _ in range(1500):
        # Exponents around the range that is neither zero nor saturated.
        exponent = 127 - shift + generator.randrange(-3, bits + 2)
        patterns.append(generator.getrandbits(32) & 0x807FFFFF | exponent << 23)
    for whole in range(-129, 130):
        tie = abs(2 * whole + 1)
        patterns.append(oracle.encode(oracle.Fraction(tie, 2 << shift), 0, FP32))
    found = stream(FloatToInteger(bits, shift), spec.TO_INTEGER_LATENCY, {"i": patterns})
    wanted = [oracle.to_integer(x, bits, shift, FP32) for x in patterns]
    assert first_difference(found, wanted, patterns) is None


@pytest.mark.parametrize("shift", [24, 30])
def test_from_integer_full_width(shift: int) -> None:
    generator = random.Random(7)
    integers = [0, 1, -1, (1 << 63) - 1, -(1 << 63), (1 << 24) + 1, (1 << 24) + 3, -(1 << 25) - 2]
    for _ in range(1500):
        integers.append(generator.getrandbits(64) - (1 << 63) >> generator.randrange(64))
    found = stream(IntegerToFloat(64, shift), spec.FROM_INTEGER_LATENCY, {"i": integers})
    wanted = [oracle.from_integer(i, shift, FP32) for i in integers]
    assert first_difference(found, wanted, integers) is None


def test_functions_full_width() -> None:
    generator = random.Random(8)
    work = [(function, bits) for function in Function for bits in EDGES]
    for _ in range(3000):
        work.append((generator.choice(list(Function)), generator.getrandbits(32)))
        # The exponential is neither 0, 1 nor saturated for few exponents only.
        exponent = generator.randrange(127 - 25, 127 + 7)
        pattern = generator.getrandbits(32) & 0x807FFFFF | exponent << 23
        work.append((Function.EXPONENTIAL2, pattern))
    inputs = {"i": [bits for _, bits in work], "operation": [f.value for f, _ in work]}
    found = stream(FloatFunction(), spec.FUNCTION_LATENCY, inputs)
    wanted = [oracle.function_bits(function, bits, FP32) for function, bits in work]
    assert first_difference(found, wanted, work) is None


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
@pytest.mark.parametrize("unit", [FloatToInteger, IntegerToFloat])
def test_too_narrow(unit: type[FloatToInteger] | type[IntegerToFloat]) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        unit(1)
    # The half-made component warns when it is deleted, so let that happen under the filter.
    gc.collect()


@pytest.mark.parametrize("exponent_bits,fraction_bits", [(1, 3), (3, 0)])
def test_format_without_normal_numbers(exponent_bits: int, fraction_bits: int) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        FloatFormat(exponent_bits, fraction_bits)
