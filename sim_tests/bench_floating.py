"""cocotb tests of the FP32 units at full width, against the emulator's arithmetic, bit for bit."""

from collections.abc import Mapping
from typing import Any

import cocotb
import numpy as np
import numpy.typing as npt

from emulator.numerics import floating, functions
from hw.spec import floating as spec
from hw.spec.floating import FP32
from hw.spec.functions import Function
from sim_tests.streams import Bench, seed

Patterns = npt.NDArray[np.uint32]

RANDOM_COUNT = 8000

#: Magnitudes at the limits of every rule.
EDGE_MAGNITUDES = [
    *(0x00000000, 0x00000001, 0x007FFFFF, 0x00800000, 0x00800001, 0x00FFFFFF, 0x01000000),
    *(0x0C000000, 0x1FFFFFFF, 0x20000000, 0x33800000, 0x34000000, 0x3EFFFFFF, 0x3F000000),
    *(0x3F7FFFFF, 0x3F800000, 0x3F800001, 0x3FC00000, 0x40000000, 0x42FC0000, 0x42FC0001),
    *(0x42FFFFFF, 0x43000000, 0x4B800001, 0x5F7FFFFF, 0x5F800000, 0x7E7FFFFF, 0x7E800000),
    *(0x7E800001, 0x7EFFFFFF, 0x7F000000, 0x7F7FFFFF, 0x7F800000, 0x7FC00000, 0x7FFFFFFF),
]


class FreeRunning:
    """Drives one operand set a cycle into ports, and records an output of known latency.

    Parameters
    ----------
    bench : Bench
        The bench to join as an agent.
    inputs : mapping of str to list of int
        Values of each input port, cycle by cycle.
    latencies : mapping of str to int
        Output ports and their latencies.
    """

    def __init__(
        self, bench: Bench, inputs: Mapping[str, list[int]], latencies: Mapping[str, int]
    ) -> None:
        self.count = len(next(iter(inputs.values())))
        self.results: dict[str, list[int]] = {name: [] for name in latencies}
        self._inputs = [(getattr(bench.dut, name), values) for name, values in inputs.items()]
        self._outputs = [
            (getattr(bench.dut, name), latency, self.results[name])
            for name, latency in latencies.items()
        ]
        self._step = 0
        self.cycles = self.count + max(latencies.values()) + 1
        bench.agents.append(self)

    def step(self) -> None:
        """Reads see the cycle that ends, writes take effect in the one that begins."""
        if self._step < self.count:
            for port, values in self._inputs:
                port.value = values[self._step]
        for port, latency, results in self._outputs:
            if latency < self._step <= self.count + latency:
                results.append(int(port.value))
        self._step += 1


async def run(
    dut: Any, inputs: Mapping[str, list[int]], latencies: Mapping[str, int]
) -> dict[str, list[int]]:
    """Results of each output, in the order of the inputs."""
    bench = await Bench.start(dut)
    agent = FreeRunning(bench, inputs, latencies)
    await bench.cycles(agent.cycles + 2)
    return agent.results


def check(found: list[int], wanted: npt.NDArray[Any], *operands: npt.NDArray[Any]) -> None:
    """Compare as unsigned bit patterns; a failure names the first operands and both results."""
    assert len(found) == len(wanted) == len(operands[0])
    for index, (f, w) in enumerate(zip(found, wanted.tolist(), strict=True)):
        if f != w:
            shown = ", ".join(hex(int(x[index])) for x in operands)
            raise AssertionError(f"({shown}): {f:#x}, the emulator says {w:#x}")


def edges() -> Patterns:
    """Edge magnitudes of both signs."""
    magnitudes = np.array(EDGE_MAGNITUDES, np.uint32)
    return np.concatenate([magnitudes, magnitudes | np.uint32(FP32.sign_mask)])


def operands(generator: np.random.Generator) -> tuple[Patterns, Patterns]:
    """Edges against edges, and random pairs; half of these have exponents at most 26 apart."""
    a, b = generator.integers(0, 1 << 32, (2, RANDOM_COUNT), np.uint32)
    near = ((a >> 23) + generator.integers(-26, 27, len(a)).astype(np.uint32)) & 0xFF
    b = np.where(generator.random(len(a)) < 0.5, (b & 0x807FFFFF) | (near << 23), b)
    edge = edges()
    return (
        np.concatenate([np.repeat(edge, len(edge)), a]),
        np.concatenate([np.tile(edge, len(edge)), b]),
    )


def with_exponents(generator: np.random.Generator, low: int, high: int) -> Patterns:
    """Random signs and fractions with powers of two in [low, high), before them the edges."""
    patterns = generator.integers(0, 1 << 32, RANDOM_COUNT, np.uint32) & np.uint32(0x807FFFFF)
    fields = np.clip(generator.integers(low, high, RANDOM_COUNT) + FP32.bias, 0, 255)
    return np.concatenate([edges(), patterns | (fields.astype(np.uint32) << np.uint32(23))])


def read(patterns: Patterns) -> floating.FloatArray:
    """The numbers that bit patterns stand for."""
    return floating.canonical(patterns.view(np.float32))


@cocotb.test()
async def two_operands(dut: Any) -> None:
    a, b = operands(np.random.default_rng(seed()))
    latencies = {
        "product": spec.FLOAT_MULTIPLY_LATENCY,
        "total": spec.FLOAT_ADD_LATENCY,
        "larger": 1,
    }
    found = await run(dut, {"a": a.tolist(), "b": b.tolist()}, latencies)
    x, y = read(a), read(b)
    check(found["product"], floating.multiply(x, y).view(np.uint32), a, b)
    check(found["total"], floating.add(x, y).view(np.uint32), a, b)
    check(found["larger"], floating.maximum(x, y).view(np.uint32), a, b)


@cocotb.test()
async def every_function(dut: Any) -> None:
    generator = np.random.default_rng(seed())
    # Powers in which the exponential is neither 1 nor saturated; and any power.
    patterns = np.concatenate([
        with_exponents(generator, -26, 8),
        with_exponents(generator, -127, 129),
    ])
    repeated = np.tile(edges(), len(Function))
    patterns = np.concatenate([repeated, patterns])
    codes = np.concatenate([
        np.repeat(np.arange(len(Function)), len(edges())),
        generator.integers(0, len(Function), len(patterns) - len(repeated)),
    ])
    inputs = {"a": patterns.tolist(), "operation": codes.tolist()}
    found = (await run(dut, inputs, {"value": spec.FUNCTION_LATENCY}))["value"]
    x = read(patterns)
    wanted = np.zeros(len(x), np.float32)
    for function in Function:
        chosen = codes == function.value
        wanted[chosen] = functions.apply(function, x[chosen])
    check(found, wanted.view(np.uint32), codes, patterns)


@cocotb.test()
async def to_integers(dut: Any) -> None:
    generator = np.random.default_rng(seed())
    ties = (np.arange(-300, 300) + 0.5).astype(np.float32)
    patterns = np.concatenate([
        with_exponents(generator, -3, 10),
        with_exponents(generator, -33, 20),
        ties.view(np.uint32),
        np.ldexp(ties, -30).view(np.uint32),
    ])
    latency = spec.TO_INTEGER_LATENCY
    found = await run(
        dut, {"a": patterns.tolist()}, {"integer_8_0": latency, "integer_48_30": latency}
    )
    x = read(patterns)
    check(found["integer_8_0"], floating.to_integer(x, 8) & 0xFF, patterns)
    check(found["integer_48_30"], floating.to_integer(x, 48, 30) & ((1 << 48) - 1), patterns)


@cocotb.test()
async def from_integers(dut: Any) -> None:
    generator = np.random.default_rng(seed())
    integers = generator.integers(-(1 << 63), (1 << 63) - 1, RANDOM_COUNT, endpoint=True)
    integers >>= generator.integers(0, 64, RANDOM_COUNT)
    ties = (2 * generator.integers(1 << 23, 1 << 24, 500) + 1) << generator.integers(0, 38, 500)
    limits = [0, 1, -1, (1 << 63) - 1, -(1 << 63), (1 << 24) + 1, (1 << 24) + 3, -(1 << 25) - 2]
    integers = np.concatenate([np.array(limits), integers, ties, -ties])
    latency = spec.FROM_INTEGER_LATENCY
    found = await run(dut, {"i": integers.tolist()}, {"from_24": latency, "from_30": latency})
    check(found["from_24"], floating.from_integer(integers, 24).view(np.uint32), integers)
    check(found["from_30"], floating.from_integer(integers, 30).view(np.uint32), integers)
