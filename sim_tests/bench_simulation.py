"""The cocotb engine of `simulate`: plays a host script with a free-running clock."""

import json
import os
import time
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, First, RisingEdge

from sim_tests.simulate import RESULTS_VARIABLE, SCRIPT_VARIABLE

LIMIT_VARIABLE = "OPENLPU_LIMIT"


class Host:
    """A plain AXI4-Lite master, one access at a time."""

    def __init__(self, dut: Any) -> None:
        self.dut = dut
        self.edge = RisingEdge(dut.clk)
        for name in ("awvalid", "wvalid", "bready", "arvalid", "rready", "awprot", "arprot"):
            getattr(dut, f"s_axi_{name}").value = 0

    async def write(self, address: int, data: int) -> None:
        """Write a register; a refused write fails the test."""
        dut = self.dut
        dut.s_axi_awaddr.value = address
        dut.s_axi_wdata.value = data
        dut.s_axi_wstrb.value = 15
        dut.s_axi_awvalid.value = dut.s_axi_wvalid.value = dut.s_axi_bready.value = 1
        await self.edge
        # This slave takes address and data together.
        while not dut.s_axi_awready.value:
            await self.edge
        dut.s_axi_awvalid.value = dut.s_axi_wvalid.value = 0
        await self.edge
        while not dut.s_axi_bvalid.value:
            await self.edge
        assert dut.s_axi_bresp.value == 0, f"write {data} to {address:#x} was refused"
        dut.s_axi_bready.value = 0

    async def read(self, address: int) -> int:
        """Read a register; a refused read fails the test."""
        dut = self.dut
        dut.s_axi_araddr.value = address
        dut.s_axi_arvalid.value = dut.s_axi_rready.value = 1
        await self.edge
        while not dut.s_axi_arready.value:
            await self.edge
        dut.s_axi_arvalid.value = 0
        await self.edge
        while not dut.s_axi_rvalid.value:
            await self.edge
        assert dut.s_axi_rresp.value == 0, f"read of {address:#x} was refused"
        dut.s_axi_rready.value = 0
        return int(dut.s_axi_rdata.value)


@cocotb.test()
async def plays_the_script(dut: Any) -> None:
    host = Host(dut)
    for name in ("enable", "address", "stall"):
        getattr(dut, f"fault_{name}").value = 0
    dut.rst.value = 1
    Clock(dut.clk, 2, unit="step", impl="gpi").start()
    await ClockCycles(dut.clk, 2)
    dut.rst.value = 0
    limit = int(os.environ[LIMIT_VARIABLE])
    reads: list[int] = []
    seconds = 0.0
    for line in Path(os.environ[SCRIPT_VARIABLE]).read_text().splitlines():
        match line.split():
            case ["timing", name, value]:
                getattr(dut, f"timing_{name}").value = int(value)
            case ["write", address, value]:
                await host.write(int(address), int(value))
            case ["read", address]:
                reads.append(await host.read(int(address)))
            case ["run"]:
                begin = time.perf_counter()
                await run(dut, limit)
                seconds += time.perf_counter() - begin
            case _:
                raise ValueError(f"not a line of a host script: {line!r}")
    Path(os.environ[RESULTS_VARIABLE]).write_text(json.dumps({"reads": reads, "seconds": seconds}))


async def run(dut: Any, limit: int) -> None:
    """Wait for the end of the run, up to `limit` cycles unless that is 0."""
    if dut.irq.value:
        return
    end = RisingEdge(dut.irq)
    await (First(end, ClockCycles(dut.clk, limit)) if limit else end)
    assert dut.irq.value, f"no interrupt within {limit} cycles"
