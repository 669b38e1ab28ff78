"""cocotb tests of a stream FIFO, against a Python deque; the smallest example of a bench."""

import random
from typing import Any

import cocotb

from sim_tests.streams import FLOWING, PACES, Bench, parameters, seed


@cocotb.test()
@cocotb.parametrize(gaps=list(PACES), stalls=list(PACES))
async def keeps_order_and_loses_nothing(dut: Any, gaps: str, stalls: str) -> None:
    layout = parameters()["layout"]
    rng = random.Random(seed())
    words = [
        {
            name: rng.getrandbits(width) - (1 << width - 1 if signed else 0)
            for name, width, signed in layout
        }
        for _ in range(200)
    ]
    bench = await Bench.start(dut)
    source = bench.source("i", layout, PACES[gaps])
    sink = bench.sink("o", layout, PACES[stalls])
    source.send(words)
    assert await sink.receive(len(words)) == words
    await bench.cycles(5)
    assert len(sink.words) == len(words), "a word came that was never sent"


@cocotb.test()
async def one_word_a_cycle_once_filled(dut: Any) -> None:
    bench = await Bench.start(dut)
    source = bench.source("i")
    sink = bench.sink("o", pace=FLOWING)
    source.send(range(64))
    await sink.receive(64)
    assert sink.cycles == list(range(sink.cycles[0], sink.cycles[0] + 64))


@cocotb.test()
async def accepts_exactly_its_depth_while_stalled(dut: Any) -> None:
    bench = await Bench.start(dut)
    source = bench.source("i")
    dut.o__ready.value = 0
    source.send(range(100))
    await bench.cycles(100)
    assert len(source.cycles) == parameters()["depth"]
