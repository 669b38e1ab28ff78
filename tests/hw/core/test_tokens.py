"""The token counters against a table of counts."""

import random

from amaranth.sim import Simulator

from hw.core.tokens import Tokens
from hw.spec.instructions import SEMAPHORE_BITS, Unit

FULL = (1 << SEMAPHORE_BITS) - 1


def test_counts_every_pair_on_its_own() -> None:
    rng = random.Random(5)
    dut = Tokens()
    units = range(len(Unit))
    counts = {(source, sink): 0 for source in units for sink in units}
    highest = 0
    overflows = 0

    async def bench(ctx) -> None:
        nonlocal highest, overflows
        for step in range(900):
            # Long phases that fill the counters, then such as empty them.
            filling = step % 600 < 320
            clear = step == 599
            ctx.set(dut.clear, clear)
            overflow = False
            sends, takes = {}, {}
            for pair, count in counts.items():
                sends[pair] = rng.random() < (0.97 if filling else 0.3)
                takes[pair] = bool(count) and rng.random() < (0.03 if filling else 0.7)
                full = count == FULL and sends[pair] and not takes[pair]
                # In most cycles, nothing overflows: behind that, a count means nothing.
                if full and step % 50:
                    sends[pair] = False
                elif full:
                    overflow = True
            for unit in units:
                send = sum(sends[unit, sink] << sink for sink in units)
                ctx.set(dut.send[unit], send)
                ctx.set(dut.take[unit], sum(takes[source, unit] << source for source in units))
            assert ctx.get(dut.overflow) == overflow
            overflows += overflow
            await ctx.tick()
            for pair in counts:
                counts[pair] = (counts[pair] + sends[pair] - takes[pair]) & FULL
                counts[pair] *= not clear
            highest = max(highest, *counts.values())
            for sink in units:
                expected = sum((counts[source, sink] > 0) << source for source in units)
                assert ctx.get(dut.available[sink]) == expected

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert highest == FULL and overflows
