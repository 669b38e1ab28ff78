"""cocotb test of our DSP48E2 beside another's DSP48E1, on what the two have in common."""

import random
from typing import Any

import cocotb
from cocotb.triggers import RisingEdge

from hw.spec.dsp import W, X, Y, Z, opmode
from sim_tests.bench_dsp48e2 import WIDTHS, drive, operand, started
from sim_tests.streams import parameters, seed

PRODUCTS = [(X.M, Y.M), *((x, y) for x in X for y in Y if X.M != x and Y.M != y)]
MODES = [opmode(W.ZERO, z, y, x) for x, y in PRODUCTS for z in Z]
# 25 bits before the multiplier: half the range, so that the pre-adder never wraps.
SMALLER = {"a": 24, "d": 24}


@cocotb.test()
async def two_models_agree(dut: Any) -> None:
    rng = random.Random(seed())
    await started(dut)
    for number in range(parameters()["cycles"]):
        code = rng.choice(MODES)
        values = {name: operand(rng, SMALLER.get(name, bits)) for name, bits in WIDTHS.items()}
        values |= {"inmode": rng.randrange(32), "opmode": code}
        drive(dut, values, rng.random() < 0.8)
        await RisingEdge(dut.clk)
        assert int(dut.p.value) == int(dut.other_p.value), (number, bin(code))
