"""Clock, reset, stream sources and sinks for cocotb benches.

Everything runs from ONE loop, `Bench`, that wakes once a cycle right after the rising edge. There, reads
give the values before the edge and writes take effect after it, so an agent behaves like a flip-flop.
A bench::

    @cocotb.test()
    async def passes_words_in_order(dut):
        bench = await Bench.start(dut)
        source = bench.source("i", pace=Pace(0.3))
        sink = bench.sink("o", pace=Pace(0.5, longest=8))
        source.send(range(100))
        assert await sink.receive(100) == list(range(100))
"""

import json
import os
import random
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import Event, RisingEdge

from sim_tests.packing import Layout, pack, unpack

PARAMETERS_VARIABLE = "OPENLPU_BENCH_PARAMETERS"
Word = int | Mapping[str, int]


def parameters() -> dict[str, Any]:
    """The `parameters` given to `run_bench`."""
    return json.loads(Path(os.environ[PARAMETERS_VARIABLE]).read_text())


def seed() -> int:
    """The `seed` given to `run_bench`."""
    return int(os.environ["COCOTB_RANDOM_SEED"])


class Agent(Protocol):
    """Something that acts once a cycle: reads ports as they were before the edge, writes what follows."""

    def step(self) -> None:
        """Act for one cycle."""


@dataclass(frozen=True)
class Pace:
    """How often a source pauses before a word, or a sink before it is ready.

    Parameters
    ----------
    probability
        Of a pause before each transfer; 0 never pauses.
    longest
        Longest pause, in cycles; lengths are drawn evenly from 1 to this.
    """

    probability: float = 0.0
    longest: int = 4

    def draw(self, rng: random.Random) -> int:
        """Cycles to pause before the next transfer."""
        if self.probability and rng.random() < self.probability:
            return rng.randint(1, self.longest)
        return 0


FLOWING = Pace()
PACES: dict[str, Pace] = {
    "flowing": FLOWING,
    "gaps": Pace(0.3, 3),
    "slow": Pace(0.9, 12),
}


class Source:
    """Drives one stream with the words it is sent; made by `Bench.source`.

    Members
    -------
    cycles : list of the cycles in which a word was accepted, in the order of the words.
    """

    def __init__(self, bench: "Bench", port: str, layout: Layout | None, pace: Pace):
        dut = bench.dut
        self._bench = bench
        self._valid = getattr(dut, f"{port}__valid")
        self._ready = getattr(dut, f"{port}__ready")
        # A stream of zero bits has no payload port.
        self._payload = getattr(dut, f"{port}__payload", None)
        self._layout = layout
        self._pace = pace
        self._rng = random.Random(f"{seed()} {port}")
        self._words: deque[int] = deque()
        self._pause = pace.draw(self._rng)
        self._offered = False
        self._empty = Event()
        self.port = port
        self.cycles: list[int] = []
        self._valid.value = 0

    def send(self, words: Iterable[Word]) -> None:
        """Queue words; returns at once. A mapping of fields needs a layout."""
        layout = self._layout
        self._words.extend(
            pack(layout or (), w) if isinstance(w, Mapping) else int(w) for w in words
        )
        if self._words:
            self._empty.clear()

    async def drained(self, within: int = 100_000) -> None:
        """Wait until the design has accepted every word."""
        if self._words or self._offered:
            await self._bench.reach(self._empty, within, self._describe)

    def _describe(self) -> str:
        return f"{self.port}: {len(self.cycles)} words were accepted, {len(self._words)} wait"

    def step(self) -> None:
        if self._offered:
            if not self._ready.value:
                return
            self._words.popleft()
            self.cycles.append(self._bench.cycle)
            self._pause = self._pace.draw(self._rng)
        if self._words and not self._pause:
            if self._payload is not None:
                self._payload.value = self._words[0]
            if not self._offered:
                self._valid.value = 1
                self._offered = True
            return
        if self._offered:
            self._valid.value = 0
            self._offered = False
            if self._payload is not None:  # what is not valid must not matter
                self._payload.value = self._rng.getrandbits(len(self._payload))
        if self._pause:
            self._pause -= 1
        if not self._words:
            self._empty.set()


class Sink:
    """Takes the words of one stream; made by `Bench.sink`.

    Also checks the rule of streams: a word that was offered stays, unchanged, until it is taken.

    Members
    -------
    words : every word taken so far, a mapping of fields where there is a layout.
    cycles : the cycle in which each was taken.
    """

    def __init__(self, bench: "Bench", port: str, layout: Layout | None, pace: Pace):
        dut = bench.dut
        self._bench = bench
        self._valid = getattr(dut, f"{port}__valid")
        self._ready = getattr(dut, f"{port}__ready")
        self._payload = getattr(dut, f"{port}__payload", None)
        self._layout = layout
        self._pace = pace
        self._rng = random.Random(f"{seed()} {port}")
        self._pause = pace.draw(self._rng)
        self._held: int | None = None
        self._accepting = False
        self._wanted = 0
        self._enough = Event()
        self._received = 0
        self.port = port
        self.words: list[Any] = []
        self.cycles: list[int] = []
        self._ready.value = 0

    async def receive(self, count: int, within: int = 100_000) -> list[Any]:
        """The next `count` words that were not received before; fails after `within` cycles."""
        self._wanted = self._received + count
        if len(self.words) < self._wanted:
            self._enough.clear()
            await self._bench.reach(self._enough, within, self._describe)
        self._received = self._wanted
        return self.words[self._wanted - count : self._wanted]

    def _describe(self) -> str:
        return f"{self.port}: {len(self.words)} of {self._wanted} words came"

    def step(self) -> None:
        if self._valid.value:
            self._observe()
        elif self._held is not None:
            raise AssertionError(f"{self.port}: valid fell before the word was taken")
        accepting = not self._pause
        if self._pause:
            self._pause -= 1
        if accepting != self._accepting:
            self._ready.value = int(accepting)
            self._accepting = accepting

    def _observe(self) -> None:
        word = int(self._payload.value) if self._payload is not None else 0
        if self._held is not None and word != self._held:
            raise AssertionError(f"{self.port}: payload changed from {self._held:#x} to {word:#x}")
        if not self._accepting:
            self._held = word
            return
        self._held = None
        self.words.append(unpack(self._layout, word) if self._layout else word)
        self.cycles.append(self._bench.cycle)
        self._pause = self._pace.draw(self._rng)
        if len(self.words) >= self._wanted:
            self._enough.set()


class Bench:
    """One clock domain under test: clock, reset, and the agents that act each cycle.

    Members
    -------
    cycle : number of rising edges since reset was released; edge 0 is the first that sees it released.
    agents : called once a cycle in this order; add your own.
    """

    def __init__(self, dut: Any, limit: int):
        self.dut = dut
        self.cycle = -1
        self.agents: list[Agent] = []
        self._limit = limit
        self._deadlines: list[tuple[int, Event]] = []

    @classmethod
    async def start(cls, dut: Any, limit: int = 10_000_000) -> "Bench":
        """Start the clock, reset the design for two cycles, and start the loop.

        Parameters
        ----------
        dut
            cocotb's handle of the top module, with ports `clk` and `rst`.
        limit
            The test fails after this many cycles, whatever it waits for.
        """
        bench = cls(dut, limit)
        Clock(dut.clk, 2, unit="step").start()
        dut.rst.value = 1
        for _ in range(2):
            await RisingEdge(dut.clk)
        dut.rst.value = 0
        cocotb.start_soon(bench._run())
        return bench

    def source(self, port: str, layout: Layout | None = None, pace: Pace = FLOWING) -> Source:
        """A driver of the input stream `port`."""
        agent = Source(self, port, layout, pace)
        self.agents.append(agent)
        return agent

    def sink(self, port: str, layout: Layout | None = None, pace: Pace = FLOWING) -> Sink:
        """A taker of the output stream `port`."""
        agent = Sink(self, port, layout, pace)
        self.agents.append(agent)
        return agent

    async def cycles(self, count: int) -> None:
        """Wait for `count` rising edges."""
        done = Event()
        self._deadlines.append((self.cycle + count, done))
        await done.wait()

    async def reach(self, event: Event, within: int, describe: Any) -> None:
        """Wait for an event that an agent sets; fail with `describe()` after `within` cycles."""
        late = (self.cycle + within, event)
        self._deadlines.append(late)
        await event.wait()
        if late not in self._deadlines:
            raise AssertionError(f"{describe()} within {within} cycles")
        self._deadlines.remove(late)

    async def _run(self) -> None:
        edge = RisingEdge(self.dut.clk)
        while True:
            await edge
            self.cycle += 1
            for agent in self.agents:
                agent.step()
            if self._deadlines:
                self._check_deadlines()
            if self.cycle > self._limit:
                raise AssertionError(f"the test did not end within {self._limit} cycles")

    def _check_deadlines(self) -> None:
        for deadline in [d for d in self._deadlines if d[0] <= self.cycle]:
            self._deadlines.remove(deadline)
            deadline[1].set()
