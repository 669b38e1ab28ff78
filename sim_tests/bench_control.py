"""cocotb tests of the host control: register map, loading, runs, errors and counters, over AXI4-Lite.

The master is that of cocotbext-axi, with random pauses on every channel.
"""

import logging
import random
from collections.abc import Iterator
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiResp

from hw.spec.instructions import Unit, instruction_bits
from hw.spec.machine_file import machine_from_dict
from hw.spec.registers import CORE_COUNTERS, STOP_TOKENS, ControlRegister, Counter, ErrorCode
from sim_tests.streams import parameters, seed

R = ControlRegister
INPUTS = (
    "idle",
    "retired",
    "busy",
    "waiting",
    "beat_read",
    "beat_written",
    "illegal",
    "outside",
)
ERRORS = ("read_error", "write_error", "overflow")


class Host:
    """Register accesses with or without pauses; `core` is the one that things happen to."""

    def __init__(self, dut: Any, paused: bool) -> None:
        self.dut = dut
        for logger in ("cocotb.top", "cocotb.top.bus"):
            logging.getLogger(logger).setLevel(logging.WARNING)
        self.master: Any = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "bus_"), dut.clk, dut.rst)
        self.spec = machine_from_dict(parameters()["spec"], "bench")
        self.core = parameters()["core"]
        if paused:
            write, read = self.master.write_if, self.master.read_if
            for number, channel in enumerate((
                write.aw_channel, write.w_channel, write.b_channel, read.ar_channel, read.r_channel
            )):  # fmt: skip
                channel.set_pause_generator(_pauses(random.Random(f"{seed()} {number}")))

    async def reset(self) -> None:
        dut = self.dut
        dut.length.value = 0
        for core in range(self.spec.cores):
            for name in (*INPUTS, *ERRORS):
                self.status(name, core).value = 0
            self.status("settled", core).value = 1
            for unit in Unit:
                self.status(f"pc__{int(unit)}", core).value = 1000 * core + 100 + unit
                self.status(f"oldest_pc__{int(unit)}", core).value = 1000 * core + 200 + unit
        Clock(dut.clk, 2, unit="step").start()
        dut.rst.value = 1
        await self.cycles(3)
        dut.rst.value = 0
        await self.cycles(2)

    def status(self, name: str, core: int | None = None) -> Any:
        """An input of the core, or of another one."""
        return getattr(self.dut, f"status__{self.core if core is None else core}__{name}")

    def all_idle(self, value: int) -> None:
        """All sequencers of all cores."""
        for core in range(self.spec.cores):
            self.status("idle", core).value = value

    async def cycles(self, count: int) -> None:
        for _ in range(count):
            await RisingEdge(self.dut.clk)

    async def write(self, address: int, value: int, okay: bool = True) -> None:
        response = await self.master.write(int(address), value.to_bytes(4, "little"))
        assert (response.resp == AxiResp.OKAY) == okay, f"write to {address:#x}: {response.resp}"

    async def read(self, address: int, okay: bool = True) -> int:
        response = await self.master.read(int(address), 4)
        assert (response.resp == AxiResp.OKAY) == okay, f"read of {address:#x}: {response.resp}"
        return int.from_bytes(response.data, "little")

    async def counter(self, number: int) -> int:
        await self.write(R.COUNTER_SELECT, number + CORE_COUNTERS * self.core)
        return await self.read(R.COUNTER_LOW) | await self.read(R.COUNTER_HIGH) << 32


def _pauses(rng: random.Random) -> Iterator[bool]:
    while True:
        yield rng.random() < 0.6


@cocotb.test()
@cocotb.parametrize(paused=[False, True])
async def registers_hold_what_was_written(dut: Any, paused: bool) -> None:
    host = Host(dut, paused)
    await host.reset()
    rng = random.Random(seed())
    assert await host.read(R.IDENTITY) == host.spec.hash
    widths = {R.PROGRAM_HASH: 32, R.PROMPT_LENGTH: 20, R.STEPS: 20, R.STOP_ENABLE: 4}
    widths |= {R.STOP_TOKEN + 4 * i: 20 for i in range(STOP_TOKENS)}
    values = {address: rng.getrandbits(32) for address in widths}
    for address, value in values.items():
        await host.write(address, value)
    for address, value in values.items():
        assert await host.read(address) == value % (1 << widths[address])
    assert int(dut.command__prompt_length.value) == values[R.PROMPT_LENGTH] % 2**20
    assert int(dut.command__stop_token__3.value) == values[R.STOP_TOKEN + 12] % 2**20
    for address in (
        R.IDENTITY,
        R.STATUS,
        R.ERROR,
        R.LENGTH,
        R.COUNTER_LOW,
        0x100,
        R.TOKENS + 4 * host.spec.tokens,
    ):
        await host.write(address, 1, okay=False)
    for address in (0x100, R.TOKENS - 4, R.TOKENS + 4 * host.spec.tokens):
        await host.read(address, okay=False)
    # Part of a word is refused and changes nothing.
    response = await host.master.write(int(R.STEPS), b"\1")
    assert response.resp == AxiResp.SLVERR
    assert await host.read(R.STEPS) == values[R.STEPS] % 2**20


class WriteRecorder:
    """Collects the writes to the instruction memories and to the token buffer."""

    def __init__(self, dut: Any) -> None:
        self.dut = dut
        self.parts: dict[tuple[int, int, int], int] = {}
        self.tokens: dict[int, int] = {}
        cocotb.start_soon(self._run())

    async def _run(self) -> None:
        while True:
            await RisingEdge(self.dut.clk)
            for unit in Unit:
                enable = int(getattr(self.dut, f"command__instruction{int(unit)}__enable").value)
                if enable:
                    address = int(
                        getattr(self.dut, f"command__instruction{int(unit)}__address").value
                    )
                    data = int(getattr(self.dut, f"command__instruction{int(unit)}__data").value)
                    assert enable.bit_count() == 1
                    part = enable.bit_length() - 1
                    self.parts[unit, address, part] = data >> 32 * part & 0xFFFFFFFF
            if self.dut.command__token_write__enable.value:
                self.tokens[int(self.dut.command__token_write__address.value)] = int(
                    self.dut.command__token_write__data.value
                )


@cocotb.test()
@cocotb.parametrize(paused=[False, True])
async def loads_instructions_and_tokens(dut: Any, paused: bool) -> None:
    host = Host(dut, paused)
    await host.reset()
    recorder = WriteRecorder(dut)
    rng = random.Random(seed())
    expected = {}
    for unit in Unit:
        await host.write(R.INSTRUCTION_UNIT, unit)
        for address in range(3):
            for part in range(instruction_bits(unit) // 32):
                expected[unit, address, part] = rng.getrandbits(32)
                await host.write(R.INSTRUCTION_DATA, expected[unit, address, part])
    tokens = {rng.randrange(host.spec.tokens): rng.getrandbits(20) for _ in range(20)}
    for position, token in tokens.items():
        await host.write(R.TOKENS + 4 * position, token)
    await host.cycles(3)
    assert recorder.parts == expected
    assert recorder.tokens == tokens
    dut.token_read__data.value = 0xABCDE
    assert await host.read(R.TOKENS + 8) == 0xABCDE


async def start(host: Host) -> None:
    await host.write(R.PROGRAM_HASH, host.spec.hash)
    began = cocotb.start_soon(_cycle_zero(host.dut))
    await host.write(R.CONTROL, 3)
    await began
    assert await host.read(R.STATUS) == 1


async def _cycle_zero(dut: Any) -> None:
    while not dut.command__start.value:
        await RisingEdge(dut.clk)


@cocotb.test()
@cocotb.parametrize(paused=[False, True])
async def a_run_counts_and_ends(dut: Any, paused: bool) -> None:
    host = Host(dut, paused)
    await host.reset()
    await start(host)
    await host.write(R.STEPS, 1, okay=False)
    await host.write(R.INSTRUCTION_DATA, 1, okay=False)
    await host.write(R.TOKENS, 1, okay=False)
    for name in ("beat_read", "beat_written"):
        host.status(name).value = 1
        await host.cycles(7 if name == "beat_read" else 4)
        host.status(name).value = 0
    for unit in Unit:
        host.status("busy").value = 1 << unit
        host.status("waiting").value = 16 >> unit
        await host.cycles(3 + unit)
    host.status("busy").value = host.status("waiting").value = 0
    await host.cycles(2)
    for core in range(host.spec.cores):
        assert dut.command__running.value, "the run ended before all cores were idle"
        host.status("idle", core).value = 31
        await host.cycles(2 * (core < host.spec.cores - 1))
    await host.cycles(1)
    last = int(dut.command__cycle.value)
    while not dut.irq.value:
        last = int(dut.command__cycle.value)
        await host.cycles(1)
    host.all_idle(0)
    host.status("busy").value = host.status("beat_read").value = 1
    await host.cycles(9)
    assert await host.read(R.STATUS) == 2
    assert await host.read(R.ERROR) == 0
    assert await host.counter(Counter.CYCLES) == last
    assert await host.counter(Counter.BYTES_READ) == 7 * host.spec.bus_bytes
    assert await host.counter(Counter.BYTES_WRITTEN) == 4 * host.spec.bus_bytes
    for unit in Unit:
        assert await host.counter(Counter.BUSY + unit) == 3 + unit
        assert await host.counter(Counter.WAIT + unit) == 3 + 4 - unit
    await host.write(R.CONTROL, 0)
    await host.cycles(1)
    assert not dut.irq.value
    assert await host.read(R.STATUS) == 2


@cocotb.test()
async def errors_stop_the_run(dut: Any) -> None:
    host = Host(dut, False)
    await host.reset()
    first = 1000 * host.core
    cases = [
        (
            f"illegal {unit}",
            "illegal",
            1 << unit,
            ErrorCode.ILLEGAL_INSTRUCTION,
            unit,
            first + 100 + unit,
        )
        for unit in Unit
    ]
    cases += [
        (
            f"outside {unit}",
            "outside",
            1 << unit,
            ErrorCode.PROGRAM_COUNTER,
            unit,
            first + 100 + unit,
        )
        for unit in Unit
    ]
    cases += [
        ("read", "read_error", 1, ErrorCode.READ_RESPONSE, Unit.LD, first + 200 + Unit.LD),
        ("write", "write_error", 1, ErrorCode.WRITE_RESPONSE, Unit.ST, first + 200 + Unit.ST),
        ("overflow", "overflow", 1, ErrorCode.TOKEN_OVERFLOW, 0, 0),
    ]
    for case, name, value, code, unit, pc in cases:
        await start(host)
        assert await host.read(R.ERROR) == 0
        host.status(name).value = value
        await host.cycles(1)
        host.status(name).value = 0
        await host.cycles(2)
        assert not dut.command__running.value, case
        assert dut.irq.value, case
        assert await host.read(R.STATUS) == 6, case
        assert await host.read(R.ERROR) == (code | unit << 8 | host.core << 12 | pc << 16), case


@cocotb.test()
async def the_watchdog_waits_for_retirements(dut: Any) -> None:
    host = Host(dut, False)
    await host.reset()
    await start(host)
    await host.cycles(host.spec.watchdog_cycles // 2)
    host.status("retired").value = 4
    await host.cycles(1)
    host.status("retired").value = 0
    retired = int(dut.command__cycle.value)
    while dut.command__running.value:
        waited = int(dut.command__cycle.value) - retired
        assert waited < 2 * host.spec.watchdog_cycles, "the watchdog does not fire"
        await host.cycles(1)
    assert int(dut.command__cycle.value) - retired in range(
        host.spec.watchdog_cycles, host.spec.watchdog_cycles + 3
    )
    assert await host.read(R.ERROR) == ErrorCode.DEADLOCK


@cocotb.test()
async def another_machines_program_is_refused(dut: Any) -> None:
    host = Host(dut, False)
    await host.reset()
    await host.write(R.PROGRAM_HASH, host.spec.hash ^ 1)
    await host.write(R.CONTROL, 3)
    assert not dut.command__running.value
    assert dut.irq.value
    assert await host.read(R.STATUS) == 6
    assert await host.read(R.ERROR) == ErrorCode.WRONG_PROGRAM
    await start(host)


@cocotb.test()
async def a_start_waits_for_transfers_of_an_earlier_run(dut: Any) -> None:
    host = Host(dut, False)
    await host.reset()
    host.status("settled").value = 0
    await host.write(R.PROGRAM_HASH, host.spec.hash)
    await host.write(R.CONTROL, 1)
    for _ in range(50):
        await host.cycles(1)
        assert not dut.command__start.value and not dut.command__running.value
    assert await host.read(R.STATUS) == 1
    await host.write(R.STEPS, 1, okay=False)
    host.status("settled").value = 1
    await host.cycles(3)
    assert dut.command__running.value
    assert int(dut.command__cycle.value) <= 3


@cocotb.test()
async def a_start_gives_up_on_a_memory_that_never_answers(dut: Any) -> None:
    host = Host(dut, False)
    await host.reset()
    host.status("settled").value = 0
    await host.write(R.PROGRAM_HASH, host.spec.hash)
    await host.write(R.CONTROL, 1)
    await host.cycles(host.spec.watchdog_cycles + 5)
    assert not dut.command__running.value
    assert await host.read(R.ERROR) == ErrorCode.DEADLOCK
    assert await host.read(R.STATUS) == 6
