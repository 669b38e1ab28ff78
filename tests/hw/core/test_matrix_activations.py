"""Every step address in activation memories of every width, against plain indexing."""

from dataclasses import replace

import numpy as np
import pytest
from amaranth.sim import Simulator

from hw.core.matrix_activations import MatrixActivations
from hw.spec.machine import load_machine


@pytest.mark.parametrize("channels, lanes", [(1, 2), (4, 8), (8, 16), (16, 32)])
def test_every_address(channels: int, lanes: int) -> None:
    spec = replace(load_machine("tiny"), channels=channels, activation_rows=16)
    assert spec.lanes == lanes
    elements = np.random.default_rng(lanes).permutation(np.arange(16 * lanes) - 128).astype(np.int8)
    dut = MatrixActivations(spec)
    rows = [int.from_bytes(row.tobytes(), "little") for row in elements.reshape(-1, spec.granule)]

    async def bench(ctx) -> None:
        for wide in (0, 1):
            ctx.set(dut.wide, wide)
            for unit in range(0, len(elements) // 4, 1 if wide else 2):
                ctx.set(dut.unit, unit)
                row = rows[ctx.get(dut.memory.address)]
                await ctx.tick()
                ctx.set(dut.unit, 0)
                ctx.set(dut.memory.data, row)
                ctx.set(dut.load, 1)
                await ctx.tick()
                ctx.set(dut.load, 0)
                ctx.set(dut.memory.data, 0)
                await ctx.tick()
                taken = elements[4 * unit : 4 * unit + (4 if wide else 8)]
                low, high = (taken, taken) if wide else (taken[0::2], taken[1::2])
                for index in range(4):
                    assert ctx.get(dut.low[index]) == low[index]
                    assert ctx.get(dut.high[index]) == high[index]

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
