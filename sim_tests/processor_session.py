"""A processor between memory and host models of `cocotbext.axi`: what `bench_processor_axi` talks to.

Each memory channel, and each of its five AXI channels, pauses on its own, so the channels of a word drift apart.
"""

import itertools
import logging
import random
import struct
from collections.abc import Iterator
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, First, RisingEdge, with_timeout
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiRamRead, AxiRamWrite, AxiResp

from hw.core.retirement import trace_layout
from hw.spec.instructions import LOOP_DEPTH, Unit, instruction_bits
from hw.spec.machine import MachineSpec
from hw.spec.machine_file import machine_from_dict
from hw.spec.registers import ControlRegister, counters
from sim_tests.streams import parameters, seed

START, INTERRUPT = 1, 2
CLOCK_STEPS = 2
ACCESS_LIMIT = 100_000
"""Cycles within which any access of the host must end."""
RUN_LIMIT = 400_000
PACES = {"flowing": (0.0, 1), "paused": (0.25, 30), "slow": (0.9, 3)}
"""Chance of a pause, and the longest time without one, in cycles."""


def pauses(name: str, chance: float, longest: int) -> Iterator[bool]:
    """Endless pauses of one AXI channel; some are long, so that the queues behind them run full and empty."""
    rng = random.Random(f"{seed()} {name} {chance}")
    while True:
        for _ in range(rng.choice([1, 1, 1, 2, 5, 40]) if rng.random() < chance else 0):
            yield True
        for _ in range(rng.randint(1, longest)):
            yield False


def set_pace(side: Any, name: str, pace: str) -> None:
    """Let one AXI channel of a model pause at random."""
    chance, longest = PACES[pace]
    side.set_pause_generator(pauses(name, chance, longest) if chance else None)
    side.pause = False


class _Content:
    """Bytes of one memory channel, and the words that answer with an error."""

    def __init__(self, size: int, bus_bytes: int) -> None:
        self.bytes = bytearray(size)
        self.bus_bytes = bus_bytes
        self.faulty_reads: set[int] = set()
        self.faulty_writes: set[int] = set()

    def check(self, address: int, length: int, faulty: set[int]) -> None:
        """Raise what the models turn into an error response."""
        if address + length > len(self.bytes):
            raise IndexError(f"access to {address:#x}, beyond the memory")
        if address // self.bus_bytes in faulty:
            raise OSError(f"planted error at {address:#x}")


class _Reads(AxiRamRead):
    def __init__(self, content: _Content, *arguments: Any) -> None:
        self.content = content
        super().__init__(*arguments, mem=content.bytes)

    async def _read(self, address: int, length: int) -> Any:
        self.content.check(address, length, self.content.faulty_reads)
        return await super()._read(address, length)


class _Writes(AxiRamWrite):
    def __init__(self, content: _Content, *arguments: Any) -> None:
        self.content = content
        super().__init__(*arguments, mem=content.bytes)

    async def _write(self, address: int, data: bytes) -> None:
        self.content.check(address, len(data), self.content.faulty_writes)
        await super()._write(address, data)


class Channel:
    """One memory channel: word w of the machine is bytes `w * bus_bytes` on."""

    def __init__(self, dut: Any, spec: MachineSpec, number: int) -> None:
        self.number = number
        self.content = _Content(spec.memory.words * spec.bus_bytes, spec.bus_bytes)
        bus = AxiBus.from_prefix(dut, f"m_axi_{number}")
        self.reads = _Reads(self.content, bus.read, dut.clk, dut.rst)
        self.writes = _Writes(self.content, bus.write, dut.clk, dut.rst)

    def pause(self, pace: str) -> None:
        """Let every AXI channel pause at random."""
        sides = {
            "ar": self.reads.ar_channel,
            "r": self.reads.r_channel,
            "aw": self.writes.aw_channel,
            "w": self.writes.w_channel,
            "b": self.writes.b_channel,
        }
        for name, side in sides.items():
            set_pace(side, f"{self.number} {name}", pace)


class Trace:
    """Every retirement of a run, by unit, as [program counter, loop indices, checksum]."""

    def __init__(self, dut: Any) -> None:
        self.dut = dut
        self.widths = {str(name): field.width for name, field in trace_layout()}
        self.entries: dict[str, list[list[int]]] = {}
        self.last_end = 0
        self.clear()

    def clear(self) -> None:
        """Forget what was."""
        self.entries = {unit.name: [] for unit in Unit}
        self.last_end = 0

    async def watch(self) -> None:
        """Follow the trace ports for ever."""
        edge, valid = RisingEdge(self.dut.clk), self.dut.trace_valid
        names = ["pc", *(f"index{level}" for level in range(LOOP_DEPTH)), "checksum"]
        while True:
            await edge
            mask = int(valid.value)
            if not mask:
                continue
            values = {
                name: int(getattr(self.dut, f"trace_{name}").value) for name in (*names, "end")
            }
            for unit in Unit:
                if mask >> unit & 1:
                    self.entries[unit.name].append([self._of(values, name, unit) for name in names])
                    self.last_end = max(self.last_end, self._of(values, "end", unit))

    def _of(self, values: dict[str, int], name: str, unit: Unit) -> int:
        width = self.widths[name]
        return values[name] >> unit * width & ((1 << width) - 1)


class Session:
    """The processor out of reset, its memory channels, and the host."""

    def __init__(self, dut: Any) -> None:
        self.dut = dut
        self.given = parameters()
        self.spec = machine_from_dict(self.given["spec"], "bench")
        # The models write a line for each burst.
        logging.getLogger("cocotb.top").setLevel(logging.WARNING)
        Clock(dut.clk, CLOCK_STEPS, unit="step").start()
        self.channels = [Channel(dut, self.spec, number) for number in range(self.spec.channels)]
        self.host: Any = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi"), dut.clk, dut.rst)
        self.trace = Trace(dut)

    @classmethod
    async def start(cls, dut: Any) -> "Session":
        """Reset, write the memory's content, load the program."""
        dut.rst.value = 1
        session = cls(dut)
        await ClockCycles(dut.clk, 3)
        dut.rst.value = 0
        cocotb.start_soon(session.trace.watch())
        session.fill()
        await session.write(ControlRegister.PROGRAM_HASH, session.spec.hash)
        for unit in Unit:
            await session.load(unit, session.given["instructions"][unit.name])
        return session

    def pause_memory(self, pace: str) -> None:
        """Let every memory channel pause at random."""
        for channel in self.channels:
            channel.pause(pace)

    def pause_host(self, pace: str) -> None:
        """Let the host pause at random."""
        host = self.host
        sides = {
            "aw": host.write_if.aw_channel,
            "w": host.write_if.w_channel,
            "b": host.write_if.b_channel,
            "ar": host.read_if.ar_channel,
            "r": host.read_if.r_channel,
        }
        for name, side in sides.items():
            set_pace(side, f"host {name}", pace)

    def fill(self) -> None:
        """Bring the memory to its initial content."""
        image = bytes.fromhex(self.given["memory"])
        word, bus = self.spec.word_bytes, self.spec.bus_bytes
        for channel in self.channels:
            size = len(channel.content.bytes)
            start = channel.number * bus
            part = b"".join(image[i + start : i + start + bus] for i in range(0, len(image), word))
            channel.content.bytes[:] = part + bytes(size - len(part))

    def memory(self) -> bytes:
        """All words, the channels' bytes side by side."""
        bus = self.spec.bus_bytes
        parts = [channel.content.bytes for channel in self.channels]
        return b"".join(
            bytes(part[i : i + bus]) for i in range(0, len(parts[0]), bus) for part in parts
        )

    # ------------------------------------------------------------------------------------ the host

    async def write(self, register: int, *values: int, expected: AxiResp = AxiResp.OKAY) -> None:
        """Write each value to the same register, as fast as the bus takes them."""
        events: list[Any] = [
            self.host.init_write(int(register), struct.pack("<I", value)) for value in values
        ]
        for event in events:
            await with_timeout(event.wait(), ACCESS_LIMIT * CLOCK_STEPS, "step")
            assert event.data.resp == expected, f"write to {int(register):#x}: {event.data.resp!r}"

    async def read(self, register: int, count: int = 1) -> list[int]:
        """Consecutive registers."""
        access = self.host.read(int(register), 4 * count)
        response: Any = await with_timeout(access, ACCESS_LIMIT * CLOCK_STEPS, "step")
        assert response.resp == AxiResp.OKAY, f"read of {int(register):#x}: {response.resp!r}"
        return list(struct.unpack(f"<{count}I", response.data))

    async def load(self, unit: Unit, words: list[int]) -> None:
        """Fill a unit's instruction memory."""
        parts = range(instruction_bits(unit) // 32)
        await self.write(ControlRegister.INSTRUCTION_UNIT, int(unit))
        values = [word >> 32 * part & 0xFFFFFFFF for word in words for part in parts]
        await self.write(ControlRegister.INSTRUCTION_DATA, *values)

    async def begin(self, run: dict[str, Any]) -> None:
        """Write what the run depends on, and start it."""
        prompt, tokens = run["prompt"], run["tokens"]
        await self.write(ControlRegister.PROMPT_LENGTH, len(prompt))
        await self.write(ControlRegister.STEPS, len(prompt) + tokens - 1)
        await self.write(ControlRegister.STOP_ENABLE, 0)
        for position, token in enumerate(prompt):
            await self.write(ControlRegister.TOKENS + 4 * position, token)
        self.trace.clear()
        await self.write(ControlRegister.CONTROL, START | INTERRUPT)

    async def interrupt(self, within: int = RUN_LIMIT) -> None:
        """Wait for the end of a run."""
        if not self.dut.irq.value:
            await First(RisingEdge(self.dut.irq), ClockCycles(self.dut.clk, within))
        assert self.dut.irq.value, f"no interrupt within {within} cycles"

    async def status(self) -> tuple[int, list[int]]:
        """STATUS, and ERROR as code, unit, program counter (of core 0)."""
        [status], [error] = (
            await self.read(ControlRegister.STATUS),
            await self.read(ControlRegister.ERROR),
        )
        return status, [error & 0xFF, error >> 8 & 0xFF, error >> 16]

    async def counters(self) -> dict[str, int]:
        """Performance counters by name."""
        values = {}
        for name, number in counters():
            await self.write(ControlRegister.COUNTER_SELECT, number)
            low, high = await self.read(ControlRegister.COUNTER_LOW, 2)
            values[name] = low | high << 32
        return values

    def break_memory(self, faults: list[tuple[str, int, int]]) -> None:
        """Plant error responses and silence, as [kind, channel, word]; an empty list heals all."""
        for channel in self.channels:
            content = channel.content
            content.faulty_reads.clear()
            content.faulty_writes.clear()
            for kind, number, word in faults:
                if number == channel.number and kind == "silence":
                    channel.reads.r_channel.set_pause_generator(itertools.repeat(True))
                elif number == channel.number:
                    kinds = {"read": content.faulty_reads, "write": content.faulty_writes}
                    kinds[kind].add(word)
