"""cocotb test of the stream ring: every pair of words, while other words are written."""

import random
from typing import Any

import cocotb

from sim_tests.streams import Bench, parameters, seed


class Traffic:
    """Writes and reads random words, and knows what the ring must show a cycle after each address."""

    def __init__(self, bench: Bench, depth: int, width: int, paired: bool):
        self._dut: Any = bench.dut
        self._rng = random.Random(f"{seed()} ring")
        self._words = [0] * depth
        self._width = width
        self._paired = paired
        self._expected: int | None = None
        self._write: tuple[int, int] | None = None
        self._address: int | None = None
        self.seen: set[int] = set()

    def step(self) -> None:
        dut, rng, words = self._dut, self._rng, self._words
        if self._expected is not None:
            assert int(dut.read__data.value) == self._expected
        if self._address is not None:
            # What the edge before took: the old content of a word written in the same cycle.
            first = self._address * (2 if self._paired else 1)
            pair = words[first], words[(first + 1) % len(words)]
            self._expected = pair[0] | pair[1] << self._width
            self.seen.add(self._address)
        if self._write is not None:
            words[self._write[0]] = self._write[1]
        self._write = None
        if rng.random() < 0.7:
            self._write = rng.randrange(len(words)), rng.getrandbits(self._width)
            dut.write__address.value, dut.write__data.value = self._write
        dut.write__enable.value = int(self._write is not None)
        self._address = rng.randrange(len(words) // (2 if self._paired else 1))
        dut.read__address.value = self._address


@cocotb.test()
async def shows_consecutive_words(dut: Any) -> None:
    depth, width, paired = (parameters()[name] for name in ("depth", "width", "paired"))
    bench = await Bench.start(dut)
    traffic = Traffic(bench, depth, width, paired)
    bench.agents.append(traffic)
    await bench.cycles(3000)
    assert len(traffic.seen) == depth // (2 if paired else 1)
