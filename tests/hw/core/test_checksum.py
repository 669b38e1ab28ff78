"""The checksum against zlib."""

import random
import zlib

import pytest
from amaranth.sim import Simulator

from hw.core.checksum import Checksum


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 9, 16, 36, 64])
def test_equals_zlib_with_gaps_and_restarts(width: int) -> None:
    rng = random.Random(width)
    dut = Checksum(width)

    async def bench(ctx) -> None:
        expected = 0
        seen = set()
        for _ in range(200):
            start, valid = rng.random() < 0.1, rng.random() < 0.7
            word = rng.choice([rng.randbytes(width), bytes(width), b"\xff" * width])
            ctx.set(dut.start, start)
            ctx.set(dut.valid, valid)
            ctx.set(dut.data, int.from_bytes(word, "little"))
            await ctx.tick()
            if valid:
                expected = zlib.crc32(word, 0 if start else expected)
            assert ctx.get(dut.value) == expected
            seen.add((start, valid))
        assert len(seen) == 4

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
