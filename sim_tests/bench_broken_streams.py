"""cocotb tests that must fail: what `streams` watches for, on a design that does it wrong."""

from typing import Any

import cocotb

from sim_tests.streams import Bench, Pace

STALLING = Pace(1.0, longest=3)


@cocotb.test(expect_fail=True)
async def a_payload_changes_before_it_is_taken(dut: Any) -> None:
    dut.drops.value = 0
    bench = await Bench.start(dut)
    bench.sink("o", pace=STALLING)
    await bench.cycles(50)


@cocotb.test(expect_fail=True)
async def a_word_is_withdrawn_before_it_is_taken(dut: Any) -> None:
    dut.drops.value = 1
    bench = await Bench.start(dut)
    bench.sink("o", pace=STALLING)
    await bench.cycles(50)


@cocotb.test(expect_fail=True)
async def a_word_is_never_accepted(dut: Any) -> None:
    bench = await Bench.start(dut)
    source = bench.source("i")
    source.send([1])
    await source.drained(within=50)


@cocotb.test(expect_fail=True)
async def the_limit_of_cycles_is_passed(dut: Any) -> None:
    bench = await Bench.start(dut, limit=50)
    await bench.cycles(100)
