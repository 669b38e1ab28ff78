"""cocotb tests of the store unit, on memory models (exact cycles) and on slow slaves (any order of events)."""

import dataclasses
import random
from typing import Any

import cocotb
import numpy as np
import numpy.typing as npt

from emulator.memory import MemoryTiming
from emulator.state import MachineState
from emulator.units import store
from hw.spec.instructions import ADDRESS_BITS, Pattern, Unit
from hw.spec.latency import STORE_CYCLES
from hw.spec.machine import MachineSpec
from hw.spec.machine_file import machine_from_dict
from sim_tests.memory_agents import Instructions, channel_words, drive_timing, fill, random_memory
from sim_tests.slow_memory import SlowWrites
from sim_tests.streams import Bench, parameters, seed

Operation = dict[str, int]


class StoreBuffer:
    """The buffer that the unit reads: the row of this cycle's address comes in the next one."""

    def __init__(self, bench: Bench, content: npt.NDArray[np.uint8], row_bytes: int) -> None:
        rows = content.reshape(-1, row_bytes)
        self._rows = [int.from_bytes(row.tobytes(), "little") for row in rows]
        self._address = bench.dut.source__address
        self._data = bench.dut.source__data
        bench.agents.append(self)

    def step(self) -> None:
        self._data.value = self._rows[int(self._address.value)]


def the_spec() -> MachineSpec:
    """The machine under test."""
    return machine_from_dict(parameters()["spec"], "bench")


def random_stores(rng: random.Random, spec: MachineSpec, count: int) -> list[Operation]:
    """Stores of all patterns, with SYNCs and illegal ones between them."""
    operations: list[Operation] = []
    lanes = {
        Pattern.COLUMN: spec.matrix_rows,
        Pattern.SPREAD: 4,
        Pattern.SCALAR: spec.word_bytes // 4,
    }
    for number in range(count):
        pattern = rng.choice(list(Pattern))
        operation = {
            "sync": 0,
            "pattern": int(pattern),
            "address": rng.choice([
                rng.getrandbits(ADDRESS_BITS),
                rng.randrange(spec.memory.words),
            ]),
            "lane": rng.randrange(lanes[pattern]),
            "rows": rng.choice([1, 2, rng.randint(1, 12)]),
            "pitch": rng.choice([0, 1, 2, rng.randrange(300), rng.getrandbits(24)]),
            "steps": rng.choice([1, 2, rng.randint(1, 20)]),
            "source": rng.choice([rng.getrandbits(16), 4 * rng.getrandbits(8)]),
            "source_pitch": rng.choice([0, 1, rng.getrandbits(16), spec.matrix_rows // 4]),
        }
        match number % 24:
            case 0:
                operation["sync"] = 1
            case 1:
                operation["rows"] = 0
            case 2:
                operation["steps"] = 0
            case 3:
                operation["pattern"] = 3
            case 4:
                operation["lane"] = lanes[pattern] + rng.choice([0, 1, 1 << 15])
        operations.append(operation)
    return operations


def run_emulator(
    spec: MachineSpec,
    operations: list[Operation],
    memory: npt.NDArray[np.uint8],
    buffer: npt.NDArray[np.uint8],
) -> tuple[list[int | None], npt.NDArray[np.uint8]]:
    """Checksum of each operation (None: illegal) and the memory behind them."""
    state = MachineState(spec)
    state.memory[:] = memory
    state.store[:] = buffer
    checksums: list[int | None] = []
    for operation in operations:
        try:
            checksums.append(store.execute(state, operation))
        except ValueError:
            checksums.append(None)
    return checksums, state.memory


def transfers(spec: MachineSpec, operation: Operation) -> list[tuple[int, int]]:
    """Bursts of an operation: (word address, beats)."""
    beats = {Pattern.COLUMN: 2 * operation["steps"], Pattern.SPREAD: 2, Pattern.SCALAR: 1}
    bursts = []
    for row in range(operation["rows"]):
        address = (operation["address"] + row * operation["pitch"]) % (1 << ADDRESS_BITS)
        left = beats[Pattern(operation["pattern"])]
        while left:
            part = min(left, spec.burst_beats - address % spec.burst_beats)
            bursts.append((address, part))
            address, left = address + part, left - part
    return bursts


def expected_cycles(
    spec: MachineSpec,
    operations: list[Operation],
    checksums: list[int | None],
    offered: list[int],
    zero: int,
) -> tuple[list[int], list[int]]:
    """Issue cycles of all, and end cycles of the legal operations, by the rules of docs/isa.md."""
    memory = MemoryTiming(spec.memory)
    responses: list[int] = []
    issues, ends = [], []
    ready = 0
    for operation, checksum, first in zip(operations, checksums, offered, strict=True):
        issue = max(first - zero, ready)
        issues.append(issue + zero)
        if checksum is None:
            ready = issue + 1
            continue
        end = issue + 1
        if not operation["sync"]:
            request = issue + STORE_CYCLES
            for address, beats in transfers(spec, operation):
                if len(responses) >= spec.write_outstanding:
                    request = max(request, responses[-spec.write_outstanding] + 1)
                burst = memory.write(request, address, beats)
                assert burst.response is not None
                responses.append(burst.response)
                request = burst.accepted + beats + 1
            end = responses[-1] + 1
        ends.append(end + zero)
        ready = end + 1
    return issues, ends


async def read_back(bench: Bench, spec: MachineSpec) -> list[list[int]]:
    """Content of every memory, by the host ports."""
    ports = [
        (getattr(bench.dut, f"host__{c}__address"), getattr(bench.dut, f"host__{c}__read_data"))
        for c in range(spec.channels)
    ]
    content: list[list[int]] = [[] for _ in ports]
    for index in range(spec.memory.words + 1):
        await bench.cycles(1)
        for (address, data), words in zip(ports, content, strict=True):
            if index:
                words.append(int(data.value))
            address.value = index % spec.memory.words
        if index == 0:
            await bench.cycles(1)
    return content


@cocotb.test()
async def ends_in_the_cycles_of_the_specification(dut: Any) -> None:
    rng = random.Random(seed())
    spec = the_spec()
    generator = np.random.default_rng(seed())
    memory = generator.integers(0, 256, (spec.memory.words, spec.word_bytes), np.uint8)
    buffer = generator.integers(0, 256, spec.store_rows * spec.matrix_rows, np.uint8)
    names = ["start", "i__valid", "i__payload"]
    names += [f"fault__{c}__{name}" for c in range(spec.channels) for name in ("enable", "stall")]
    for name in names:
        getattr(dut, name).value = 0
    bench = await Bench.start(dut)
    await fill(bench, [f"host__{c}" for c in range(spec.channels)], channel_words(memory, spec))
    target = spec.memory
    for round_number in range(parameters()["rounds"]):
        if round_number:
            target = random_memory(
                rng, spec.memory.words, spec.burst_beats, spec.write_outstanding + 1
            )
        spec = dataclasses.replace(spec, memory=target)
        drive_timing(dut, target)
        dut.start.value = 1
        zero = bench.cycle + 1
        await bench.cycles(1)
        dut.start.value = 0
        operations = random_stores(rng, spec, 60)
        longest = rng.choice([0, 6, 100])
        StoreBuffer(bench, buffer, spec.matrix_rows)
        run = Instructions(
            bench, Unit.ST, operations, [rng.randint(0, longest) for _ in operations]
        )
        await run.finished()
        assert dut.idle.value and not run.errors
        checksums, memory = run_emulator(spec, operations, memory, buffer)
        issues, ends = expected_cycles(spec, operations, checksums, run.offered, zero)
        assert run.issued == issues
        assert run.ended == list(zip(ends, [c for c in checksums if c is not None], strict=True))
        assert len(run.illegal) == checksums.count(None)
        legal = [
            o for o, c in zip(operations, checksums, strict=True) if c is not None and not o["sync"]
        ]
        assert run.beats == sum(beats for o in legal for _, beats in transfers(spec, o))
        bench.agents.clear()
        if round_number % 3 == 0:
            assert await read_back(bench, spec) == channel_words(memory, spec)
    dut._log.info(f"{bench.cycle} cycles")


@cocotb.test()
@cocotb.parametrize(pace=[0.0, 0.3, 0.9], data_first=[False, True])
async def works_with_slow_and_faulty_slaves(dut: Any, pace: float, data_first: bool) -> None:
    rng = random.Random(seed())
    spec = the_spec()
    generator = np.random.default_rng(seed())
    memory = generator.integers(0, 256, (spec.memory.words, spec.word_bytes), np.uint8)
    buffer = generator.integers(0, 256, spec.store_rows * spec.matrix_rows, np.uint8)
    bench = await Bench.start(dut)
    StoreBuffer(bench, buffer, spec.matrix_rows)
    slaves = [
        SlowWrites(
            bench,
            f"axi__{c}",
            words,
            set(rng.sample(range(len(words)), len(words) // 40)),
            pace,
            spec.bus_bytes,
            data_first,
        )
        for c, words in enumerate(channel_words(memory, spec))
    ]
    operations = random_stores(rng, spec, 60)
    run = Instructions(bench, Unit.ST, operations, [rng.choice([0, 0, 9]) for _ in operations])
    await run.finished()
    checksums, memory = run_emulator(spec, operations, memory, buffer)
    assert [checksum for _, checksum in run.ended] == [c for c in checksums if c is not None]
    assert len(run.illegal) == checksums.count(None)
    assert [slave.content for slave in slaves] == channel_words(memory, spec)
    failures = [slave.failures for slave in slaves]
    assert min(failures) and max(failures) <= len(run.errors) <= sum(failures)
    for slave in slaves:
        assert slave.most_bursts <= spec.write_outstanding and not slave.under_way
