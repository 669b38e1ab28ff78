"""cocotb tests of the DSP48E2's model: every cycle against all inputs before it, gaps in the clock enable."""

import random
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

from emulator.numerics.dsp import DspHistory, lanes, packed_sum
from hw.spec.dsp import (
    INMODE_PREADD,
    LANE_BITS,
    PAIR_LATENCY,
    DspSpec,
    W,
    X,
    Y,
    Z,
    opmode,
    safe_depth,
)
from sim_tests.dsp_tops import DSP_SPECS
from sim_tests.packing import unpack_lanes
from sim_tests.streams import parameters, seed

WIDTHS = {"a": 30, "b": 18, "c": 48, "d": 27, "pcin": 48}


def operand(rng: random.Random, bits: int) -> int:
    """A signed number, often an extreme or a small one."""
    top = 1 << bits - 1
    corners = (0, 1, -1, top - 1, -top, -top + 1, rng.randrange(-200, 200))
    return rng.choice(corners) if rng.random() < 0.4 else rng.randrange(-top, top)


def modes(spec: DspSpec) -> list[int]:
    """All legal operation codes of a slice."""
    uses_p = bool(spec.sum_registers)
    products = [(X.M, Y.M), *((x, y) for x in X for y in Y if X.M != x and Y.M != y)]
    return [
        opmode(w, z, y, x)
        for x, y in products
        for z in Z
        for w in W
        if (uses_p or (x is not X.P and z is not Z.P and w is not W.P))
        and (spec.joined or x is not X.AB)
    ]


def drive(dut: Any, values: dict[str, int], enable: bool) -> None:
    dut.enable.value = int(enable)
    for name, value in values.items():
        width = WIDTHS.get(name)
        getattr(dut, name).value = value % (1 << width) if width else value


async def started(dut: Any) -> None:
    Clock(dut.clk, 2, unit="step").start()
    dut.rst.value = 1
    for _ in range(2):
        await RisingEdge(dut.clk)
    dut.rst.value = 0
    # Registers have no reset.
    drive(dut, zeros(), True)
    for _ in range(8):
        await RisingEdge(dut.clk)


def zeros() -> dict[str, int]:
    return dict.fromkeys([*WIDTHS, "inmode", "opmode"], 0)


def results(port: Any) -> list[int]:
    return unpack_lanes(int(port.value), 48, len(DSP_SPECS), signed=True)


@cocotb.test()
async def equals_its_history(dut: Any) -> None:
    """Random operands, modes and clock enables, on every choice of registers."""
    rng = random.Random(seed())
    await started(dut)
    histories = [DspHistory(spec) for spec in DSP_SPECS]
    legal = set.intersection(*(set(modes(spec)) for spec in DSP_SPECS))
    everywhere = sorted(legal)
    for number in range(parameters()["cycles"]):
        values = {name: operand(rng, bits) for name, bits in WIDTHS.items()}
        values["inmode"] = rng.randrange(32)
        values["opmode"] = rng.choice(everywhere)
        enable = rng.random() < 0.8
        drive(dut, values, enable)
        await RisingEdge(dut.clk)
        wanted = [history.cycle(values, enable) for history in histories]
        assert [results(dut.p), results(dut.pcout)] == [wanted, wanted], number


@cocotb.test()
async def every_mode_of_each_slice(dut: Any) -> None:
    """Every legal code on the slices that have it; the others are not looked at in these cycles."""
    rng = random.Random(seed() + 1)
    for index, spec in enumerate(DSP_SPECS):
        await started(dut)
        history = DspHistory(spec)
        for code in [*modes(spec), *modes(spec)]:
            values = {name: operand(rng, bits) for name, bits in WIDTHS.items()}
            values |= {"inmode": rng.randrange(32), "opmode": code}
            drive(dut, values, True)
            await RisingEdge(dut.clk)
            assert results(dut.p)[index] == history.cycle(values, True), (index, bin(code))


@cocotb.test()
async def lanes_hold_their_safe_depth_and_no_more(dut: Any) -> None:
    """Worst products accumulated in one slice: right up to the safe depth, low lane wrong above it."""
    for high_weight, low_weight, activation in parameters()["worst"]:
        depth = safe_depth(low_weight * activation)
        await started(dut)
        words = []
        for count in range(depth + 6):
            # The first product is there in cycle 3; OPMODE has one register on its way.
            values = {"a": high_weight << LANE_BITS, "d": low_weight, "b": activation}
            values |= {"inmode": INMODE_PREADD, "opmode": opmode(z=Z.P) if count > 2 else opmode()}
            drive(dut, zeros() | values, True)
            await RisingEdge(dut.clk)
            words.append(results(dut.p)[0])
        for products in range(1, depth + 2):
            word = words[PAIR_LATENCY + products - 1]
            ones = np.ones(products, np.int64)
            assert word == packed_sum(high_weight * ones, low_weight * ones, activation * ones)
            low, high = (int(lane) for lane in lanes(word))
            wanted = (products * low_weight * activation, products * high_weight * activation)
            assert ((low, high) == wanted) == (products <= depth), (low_weight, products)
