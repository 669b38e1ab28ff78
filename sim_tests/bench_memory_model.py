"""cocotb tests of the memory model: every beat and response, cycle by cycle, against `emulator.memory`."""

import random
from collections import deque
from typing import Any

import cocotb

from emulator.memory import NEXT_REFRESH, accept_read, accept_write, beat_cycle, memory_state
from hw.spec.machine import MemorySpec
from sim_tests.memory_agents import drive_timing, fill, random_memory
from sim_tests.streams import Bench, parameters, seed

OUTSTANDING = 6
"""Bursts of either direction that the driver has under way."""


class Lockstep:
    """Random bursts on both ports of the model; predicts and checks every handshake.

    Call order within a cycle: reads are compared with the content before this cycle's write.
    """

    def __init__(
        self, bench: Bench, spec: MemorySpec, content: list[int], rng: random.Random
    ) -> None:
        self.bench, self.dut, self.spec, self.content, self.rng = (
            bench,
            bench.dut,
            spec,
            content,
            rng,
        )
        self.state = memory_state(spec)
        self.zero = bench.cycle + 1
        self.bus_bytes = parameters()["bus_bytes"]
        self.beats: dict[int, tuple[int, bool]] = {}
        self.responses: set[int] = set()
        self.data: deque[tuple[int, int, int]] = deque()
        self.read: tuple[int, int, int] | None = None
        self.write: tuple[int, int] | None = None
        self.accepted = {"read": 0, "write": 0}
        self.refused = self.blocked = 0
        self.active = True
        self.density = rng.choice([0.02, 0.2, 1.0])
        bench.agents.append(self)

    @property
    def idle(self) -> bool:
        return not (self.beats or self.responses or self.data or self.read or self.write)

    def step(self) -> None:
        cycle = self.bench.cycle - self.zero
        if cycle <= 0:
            return
        dut = self.dut
        beat = self.beats.pop(cycle, None)
        assert bool(dut.read__rvalid.value) == (beat is not None), f"cycle {cycle}: R beat"
        if beat is not None:
            address, last = beat
            assert int(dut.read__rdata.value) == self.content[address % len(self.content)]
            assert bool(dut.read__rlast.value) == last and int(dut.read__rresp.value) == 0
        assert bool(dut.write__bvalid.value) == (cycle in self.responses), (
            f"cycle {cycle}: response"
        )
        self.responses.discard(cycle)
        busy = bool(self.data)
        if busy:
            self._write_word()
        self._accept(cycle, busy)
        self._offer(cycle)

    def _write_word(self) -> None:
        address, word, strobe = self.data.popleft()
        assert self.dut.write__wready.value
        mask = sum(0xFF << 8 * i for i in range(self.bus_bytes) if strobe >> i & 1)
        index = address % len(self.content)
        self.content[index] = self.content[index] & ~mask | word & mask

    def _accept(self, cycle: int, busy: bool) -> None:
        # The rule of the emulator: writes first, and -1 where nothing can be accepted.
        wrote = read = False
        if self.write and not busy:
            address, beats = self.write
            response = accept_write(self.state, cycle, address, beats)
            wrote = response >= 0
            if wrote:
                assert response not in self.responses
                self.responses.add(response)
                for i in range(beats):
                    strobe = self.rng.getrandbits(self.bus_bytes)
                    self.data.append((
                        address + i,
                        self.rng.getrandbits(8 * self.bus_bytes),
                        strobe,
                    ))
                self.write = None
        if self.read:
            address, beats, is_random = self.read
            last = accept_read(self.state, cycle, address, beats, is_random)
            read = last >= 0
            if read:
                when = -1
                for i in range(beats):
                    when = beat_cycle(self.state, i)
                    assert when not in self.beats and when > cycle
                    self.beats[when] = (address + i, i == beats - 1)
                assert when == last
                self.read = None
            else:
                self.refused += 1
                self.blocked += not wrote
        assert bool(self.dut.write__awready.value) == wrote, f"cycle {cycle}: AW"
        assert bool(self.dut.read__arready.value) == read, f"cycle {cycle}: AR"
        self.accepted["write"] += wrote
        self.accepted["read"] += read

    def _offer(self, cycle: int) -> None:
        dut, rng = self.dut, self.rng
        # Requests that meet a refresh while the bus is idle are rare unless they are aimed at it.
        density = max(self.density, 0.5 if self.state[NEXT_REFRESH] - cycle <= 2 else 0.0)
        under_way = len(self.responses) + sum(last for _, last in self.beats.values())
        if self.active and under_way + bool(self.read) + bool(self.write) < OUTSTANDING - 1:
            if not self.read and rng.random() < density:
                self.read = (*self._burst(), rng.randrange(4) == 0)
                dut.read__araddr.value = self.read[0] * self.bus_bytes
                dut.read__arlen.value = self.read[1] - 1
                dut.read__aruser.value = int(self.read[2])
            if not self.write and rng.random() < density / 2:
                self.write = self._burst()
                dut.write__awaddr.value = self.write[0] * self.bus_bytes
                dut.write__awlen.value = self.write[1] - 1
        dut.read__arvalid.value = int(self.read is not None)
        dut.write__awvalid.value = int(self.write is not None)
        dut.write__wvalid.value = int(bool(self.data))
        if self.data:
            dut.write__wdata.value = self.data[0][1]
            dut.write__wstrb.value = self.data[0][2]

    def _burst(self) -> tuple[int, int]:
        limit = parameters()["burst_beats"]
        # Few rows and banks, so that rows are met again, in another order.
        address = self.rng.randrange(40) * limit + self.rng.randrange(limit)
        longest = limit - address % limit
        return address, self.rng.choice([longest, self.rng.randint(1, longest)])


async def prepared(dut: Any) -> Bench:
    """A bench with all inputs of the model at rest."""
    inputs = [
        "start",
        "fault__enable",
        "fault__stall",
        "read__arvalid",
        "write__awvalid",
        "write__wvalid",
    ]
    for name in inputs:
        getattr(dut, name).value = 0
    dut.read__rready.value = 1
    dut.write__bready.value = 1
    return await Bench.start(dut)


async def begin(bench: Bench, spec: MemorySpec) -> None:
    """Start the model with this timing; returns in its cycle 0."""
    drive_timing(bench.dut, spec)
    bench.dut.start.value = 1
    await bench.cycles(1)
    bench.dut.start.value = 0


@cocotb.test()
async def agrees_with_the_emulator(dut: Any) -> None:
    rng = random.Random(seed())
    bench = await prepared(dut)
    content = [rng.getrandbits(8 * parameters()["bus_bytes"]) for _ in range(parameters()["words"])]
    await fill(bench, ["host"], [content])
    accepted = {"read": 0, "write": 0}
    refused = blocked = 0
    for _ in range(parameters()["rounds"]):
        spec = random_memory(rng, len(content), parameters()["burst_beats"], OUTSTANDING)
        drive_timing(dut, spec)
        dut.start.value = 1
        lockstep = Lockstep(bench, spec, content, rng)
        await bench.cycles(1)
        dut.start.value = 0
        await bench.cycles(parameters()["cycles"])
        lockstep.active = False
        while not lockstep.idle:
            await bench.cycles(1)
        bench.agents.remove(lockstep)
        accepted = {name: accepted[name] + lockstep.accepted[name] for name in accepted}
        refused += lockstep.refused
        blocked += lockstep.blocked
    dut._log.info(
        f"bursts {accepted}, reads refused {refused}, by refresh {blocked}, cycles {bench.cycle}"
    )
    assert min(accepted.values()) > 5 * parameters()["rounds"]
    assert refused and blocked
    dut.host__enable.value = 0
    for address in rng.sample(range(len(content)), 200):
        dut.host__address.value = address
        await bench.cycles(2)
        assert int(dut.host__read_data.value) == content[address]


@cocotb.test()
async def accepts_nothing_before_start(dut: Any) -> None:
    bench = await prepared(dut)
    dut.read__arvalid.value = 1
    dut.write__awvalid.value = 1
    for _ in range(20):
        await bench.cycles(1)
        assert not dut.read__arready.value and not dut.write__awready.value


@cocotb.test()
async def injects_faults(dut: Any) -> None:
    rng = random.Random(seed())
    bench = await prepared(dut)
    await begin(bench, random_memory(rng, parameters()["words"], 4, OUTSTANDING))
    dut.fault__enable.value = 1
    dut.fault__address.value = 6
    for address, beats, bad in [(4, 4, 2), (8, 4, None), (0, 4, None), (6, 1, 0), (7, 1, None)]:
        dut.read__araddr.value = address * parameters()["bus_bytes"]
        dut.read__arlen.value = beats - 1
        dut.read__arvalid.value = 1
        await bench.cycles(1)
        while not dut.read__arready.value:
            await bench.cycles(1)
        dut.read__arvalid.value = 0
        responses = []
        while len(responses) < beats:
            dut.fault__stall.value = rng.randrange(2)
            await bench.cycles(1)
            if dut.read__rvalid.value:
                responses.append(int(dut.read__rresp.value))
        assert responses == [2 if i == bad else 0 for i in range(beats)]
    dut.fault__stall.value = 0
    for address, beats, bad in [(4, 3, True), (7, 1, False), (4, 2, False)]:
        dut.write__awaddr.value = address * parameters()["bus_bytes"]
        dut.write__awlen.value = beats - 1
        dut.write__awvalid.value = 1
        dut.write__wvalid.value = 1
        await bench.cycles(1)
        while not dut.write__awready.value:
            await bench.cycles(1)
        dut.write__awvalid.value = 0
        while not dut.write__bvalid.value:
            await bench.cycles(1)
        assert int(dut.write__bresp.value) == (2 if bad else 0)
