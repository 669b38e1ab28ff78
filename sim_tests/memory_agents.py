"""What benches of memory, load and store unit share: timing, content, and instructions."""

import random
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hw.spec.instructions import Unit, operation_fields
from hw.spec.machine import MachineSpec, MemorySpec
from sim_tests.packing import pack
from sim_tests.streams import Bench


def drive_timing(dut: Any, spec: MemorySpec) -> None:
    """Put the timing of a memory on the ports `timing__*`."""
    values = {
        "read_latency": spec.read_latency,
        "write_latency": spec.write_latency,
        "activate": spec.activate,
        "turnaround": spec.turnaround,
        "refresh_interval": spec.refresh_interval,
        "refresh_cycles": spec.refresh_cycles,
        "beat_numerator": spec.beat_numerator,
        "beat_denominator": spec.beat_denominator,
        "bank_bits": spec.banks.bit_length() - 1,
        "row_bits": spec.row_words.bit_length() - 1,
    }
    for name, value in values.items():
        getattr(dut, f"timing__{name}").value = value


def random_memory(rng: random.Random, words: int, burst_beats: int, outstanding: int) -> MemorySpec:
    """Timing drawn at random, with refreshes as frequent as `hw.spec.machine_limits` allows."""
    denominator = rng.choice([1, 1, 2, 3, 7, 16, 1000])
    numerator = rng.randint(-(-denominator // 4), denominator)
    latency, activate = rng.randint(2, 40), rng.choice([0, 1, 5, 20])
    turnaround, refresh_cycles = rng.choice([0, 1, 4, 11]), rng.choice([0, 1, 17, 60])
    ahead = burst_beats * outstanding * denominator // numerator + latency
    ahead += outstanding * (activate + turnaround) + refresh_cycles
    return MemorySpec(
        words=words,
        read_latency=latency,
        write_latency=rng.randint(1, 20),
        banks=rng.choice([1, 2, 4, 16]),
        row_words=rng.choice([burst_beats, 2 * burst_beats, 8 * burst_beats]),
        activate=activate,
        turnaround=turnaround,
        refresh_interval=ahead + rng.randint(1, 100),
        refresh_cycles=refresh_cycles,
        beat_numerator=numerator,
        beat_denominator=denominator,
    )


async def fill(bench: Bench, prefixes: list[str], content: list[list[int]]) -> None:
    """Write the content of each memory by its host port; `prefixes` as `"host"` or `"host__0"`."""
    ports = [
        (getattr(bench.dut, f"{p}__address"), getattr(bench.dut, f"{p}__write_data"))
        for p in prefixes
    ]
    for prefix in prefixes:
        getattr(bench.dut, f"{prefix}__enable").value = 1
    for address in range(len(content[0])):
        for (address_port, data_port), words in zip(ports, content, strict=True):
            address_port.value = address
            data_port.value = words[address]
        await bench.cycles(1)
    for prefix in prefixes:
        getattr(bench.dut, f"{prefix}__enable").value = 0
    await bench.cycles(1)


def channel_words(memory: npt.NDArray[np.uint8], spec: MachineSpec) -> list[list[int]]:
    """Content of each channel, as integers."""
    parts = memory.reshape(len(memory), spec.channels, spec.bus_bytes)
    return [
        [int.from_bytes(w.tobytes(), "little") for w in parts[:, c]] for c in range(spec.channels)
    ]


class Instructions:
    """Offers operations to a unit, and records when each was offered, issued, ended, or found illegal.

    Parameters
    ----------
    operations : fields that are not zero, in order
    gaps : cycles without an offer before each operation
    """

    def __init__(
        self, bench: Bench, unit: Unit, operations: Sequence[Mapping[str, int]], gaps: list[int]
    ) -> None:
        self.bench, self.dut = bench, bench.dut
        layout = operation_fields(unit)
        zero = {name: 0 for name, _ in layout}
        self._words = deque(pack(layout, {**zero, **operation}) for operation in operations)
        self._gaps = deque(gaps)
        self._pause = 0
        self._offering = False
        self.count = len(operations)
        self.offered: list[int] = []
        self.issued: list[int] = []
        self.ended: list[tuple[int, int]] = []
        self.illegal: list[int] = []
        self.errors: list[int] = []
        self.beats = 0
        self._pause = self._gaps.popleft()
        bench.dut.i__valid.value = 0
        bench.agents.append(self)

    def step(self) -> None:
        dut, cycle = self.dut, self.bench.cycle
        if dut.done.value:
            self.ended.append((cycle, int(dut.checksum.value)))
        if dut.illegal.value:
            self.illegal.append(cycle)
        if dut.error.value:
            self.errors.append(cycle)
        self.beats += int(dut.beat.value)
        if self._offering and dut.i__ready.value:
            self.issued.append(cycle)
            self._offering = False
            dut.i__valid.value = 0
            self._pause = self._gaps.popleft() if self._gaps else 0
        if not self._offering and self._words:
            if self._pause:
                self._pause -= 1
                return
            dut.i__payload.value = self._words.popleft()
            dut.i__valid.value = 1
            self._offering = True
            self.offered.append(cycle + 1)

    async def finished(self, within: int = 60_000) -> None:
        """Wait until every operation has ended or was found illegal, and a little longer."""
        for _ in range(within // 10):
            await self.bench.cycles(10)
            if len(self.ended) + len(self.illegal) >= self.count:
                await self.bench.cycles(20)
                assert len(self.ended) + len(self.illegal) == self.count, "an operation ended twice"
                return
        raise AssertionError(f"{len(self.ended)} of {self.count} operations ended")
