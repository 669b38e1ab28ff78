"""cocotb tests of the load unit, on memory models (exact cycles) and on slow slaves (any order of events)."""

import dataclasses
import random
from typing import Any

import cocotb
import numpy as np
import numpy.typing as npt

from emulator.memory import MemoryTiming
from emulator.state import MachineState
from emulator.units import load
from hw.spec.instructions import ADDRESS_BITS, Destination, Unit
from hw.spec.latency import LOAD_CYCLES
from hw.spec.machine import MachineSpec
from hw.spec.machine_file import machine_from_dict
from sim_tests.memory_agents import Instructions, channel_words, drive_timing, fill, random_memory
from sim_tests.slow_memory import SlowReads
from sim_tests.streams import Bench, parameters, seed

Operation = dict[str, int]
PORTS = ("stream", "scale", "input")


class Writes:
    """Records every word written, in order: (port, address, data)."""

    def __init__(self, bench: Bench) -> None:
        self.words: list[tuple[str, int, int]] = []
        self._ports = [
            (
                name,
                *(getattr(bench.dut, f"{name}__{part}") for part in ("enable", "address", "data")),
            )
            for name in PORTS
        ]
        bench.agents.append(self)

    def step(self) -> None:
        for name, enable, address, data in self._ports:
            if enable.value:
                self.words.append((name, int(address.value), int(data.value)))


def the_spec() -> MachineSpec:
    """The machine under test."""
    return machine_from_dict(parameters()["spec"], "bench")


def random_loads(rng: random.Random, spec: MachineSpec, count: int) -> list[Operation]:
    """Loads of all lengths and destinations, with SYNCs and a few illegal ones between them."""
    operations: list[Operation] = []
    for number in range(count):
        kind = number % 20
        if kind == 0:
            operations.append({
                "sync": 1,
                "length": rng.randrange(5),
                "destination": rng.randrange(4),
            })
            continue
        longest = rng.choice([1, 4, spec.burst_beats, 5 * spec.burst_beats])
        operations.append({
            "sync": 0,
            "destination": 3 if kind == 1 else rng.randrange(3),
            "random": rng.randrange(2),
            "address": rng.choice([
                rng.getrandbits(ADDRESS_BITS),
                rng.randrange(spec.memory.words),
            ]),
            "length": 0 if kind == 2 else rng.randint(1, longest),
            "buffer": rng.getrandbits(16),
        })
    return operations


def expected_cycles(
    spec: MachineSpec, operations: list[Operation], offered: list[int], zero: int
) -> tuple[list[int], list[int]]:
    """Issue cycles of all, and end cycles of the legal operations, by the rules of docs/isa.md."""
    memory = MemoryTiming(spec.memory)
    completions: list[int] = []
    issues, ends = [], []
    ready = last_end = -(1 << 40)
    for operation, first in zip(operations, offered, strict=True):
        issue = max(first - zero, ready)
        issues.append(issue + zero)
        ready = issue + 1
        address, length = operation.get("address", 0), operation["length"]
        if operation["sync"]:
            last_end = max(issue + 1, last_end + 1)
            ready = last_end + 1
        elif length == 0 or operation["destination"] > max(Destination):
            continue
        else:
            while length:
                beats = min(length, spec.burst_beats - address % spec.burst_beats)
                if len(completions) >= spec.read_outstanding:
                    ready = max(ready, completions[-spec.read_outstanding] + 1)
                burst = memory.read(ready, address, beats, bool(operation["random"]))
                completions.append(burst.beats[-1])
                ready = burst.accepted + 1
                address, length = address + beats, length - beats
            last_end = completions[-1] + LOAD_CYCLES
        ends.append(last_end + zero)
    return issues, ends


def expected_writes(
    spec: MachineSpec, operations: list[Operation], memory: npt.NDArray[np.uint8]
) -> tuple[list[tuple[str, int, int]], list[int], MachineState]:
    """Words written, checksums by the emulator, and its state behind them."""
    state = MachineState(spec)
    state.memory[:] = memory
    words, checksums = [], []
    pointers = [0, 0]
    depths = (spec.stream_words, spec.scale_words, spec.input_words)
    for operation in operations:
        try:
            checksums.append(load.execute(state, operation))
        except ValueError:
            continue
        for i in range(0 if operation["sync"] else operation["length"]):
            target = operation["destination"]
            position = operation["buffer"] + i
            if target < 2:
                position = pointers[target]
                pointers[target] += 1
            word = memory[(operation["address"] + i) % len(memory)].tobytes()
            words.append((PORTS[target], position % depths[target], int.from_bytes(word, "little")))
    return words, checksums, state


def compare(
    spec: MachineSpec,
    operations: list[Operation],
    memory: npt.NDArray[np.uint8],
    run: Instructions,
    writes: Writes,
) -> None:
    """Writes, checksums and the emulator's buffers."""
    words, checksums, state = expected_writes(spec, operations, memory)
    assert writes.words == words
    assert [checksum for _, checksum in run.ended] == checksums
    assert run.beats == len(words)
    buffers = {
        "stream": np.zeros_like(state.stream),
        "scale": np.zeros_like(state.scale_ring),
        "input": np.zeros_like(state.input).view(np.uint8),
    }
    for name, address, word in writes.words:
        buffers[name][address] = np.frombuffer(word.to_bytes(spec.word_bytes, "little"), np.uint8)
    assert np.array_equal(buffers["stream"], state.stream)
    assert np.array_equal(buffers["scale"], state.scale_ring)
    assert np.array_equal(buffers["input"], state.input.view(np.uint8))


def random_content(spec: MachineSpec) -> npt.NDArray[np.uint8]:
    generator = np.random.default_rng(seed())
    return generator.integers(0, 256, (spec.memory.words, spec.word_bytes), np.uint8)


def rest(dut: Any, spec: MachineSpec) -> None:
    """All inputs of a LoadSystem at rest."""
    names = ["start", "restart", "i__valid", "i__payload"]
    names += [f"fault__{c}__{name}" for c in range(spec.channels) for name in ("enable", "stall")]
    for name in names:
        getattr(dut, name).value = 0


@cocotb.test()
async def ends_in_the_cycles_of_the_specification(dut: Any) -> None:
    rng = random.Random(seed())
    spec = the_spec()
    memory = random_content(spec)
    rest(dut, spec)
    bench = await Bench.start(dut)
    await fill(bench, [f"host__{c}" for c in range(spec.channels)], channel_words(memory, spec))
    target = spec.memory
    for round_number in range(parameters()["rounds"]):
        if round_number:
            target = random_memory(
                rng, spec.memory.words, spec.burst_beats, spec.read_outstanding + 1
            )
        spec = dataclasses.replace(spec, memory=target)
        drive_timing(dut, target)
        dut.start.value = dut.restart.value = 1
        zero = bench.cycle + 1
        await bench.cycles(1)
        dut.start.value = dut.restart.value = 0
        operations = random_loads(rng, spec, 60)
        longest = rng.choice([0, 6, 100])
        gaps = [rng.randint(0, longest) for _ in operations]
        writes = Writes(bench)
        run = Instructions(bench, Unit.LD, operations, gaps)
        await run.finished()
        assert dut.idle.value
        issues, ends = expected_cycles(spec, operations, run.offered, zero)
        assert run.issued == issues
        assert [cycle for cycle, _ in run.ended] == ends
        compare(spec, operations, memory, run, writes)
        illegal = sum(
            not o["sync"] and (o["length"] == 0 or o["destination"] == 3) for o in operations
        )
        assert len(run.illegal) == illegal and not run.errors
        bench.agents.clear()
    dut._log.info(f"{bench.cycle} cycles")


@cocotb.test()
async def takes_words_when_all_channels_show_them(dut: Any) -> None:
    rng = random.Random(seed())
    spec = the_spec()
    memory = random_content(spec)
    rest(dut, spec)
    bench = await Bench.start(dut)
    await fill(bench, [f"host__{c}" for c in range(spec.channels)], channel_words(memory, spec))
    drive_timing(dut, spec.memory)
    dut.start.value = 1
    await bench.cycles(1)
    dut.start.value = 0
    channel = spec.channels - 1
    getattr(dut, f"fault__{channel}__enable").value = 1
    getattr(dut, f"fault__{channel}__address").value = 21
    operations = [
        {"sync": 0, "destination": 0, "address": 10 * i, "length": 9 + i, "buffer": 0}
        for i in range(20)
    ]
    writes = Writes(bench)
    run = Instructions(bench, Unit.LD, operations, [0] * 20)
    while len(run.ended) < 20:
        for c in range(spec.channels):
            getattr(dut, f"fault__{c}__stall").value = rng.randrange(2)
        await bench.cycles(1)
    compare(spec, operations, memory, run, writes)
    touched = sum(o["address"] <= 21 < o["address"] + o["length"] for o in operations)
    assert touched and len(run.errors) == touched


@cocotb.test()
@cocotb.parametrize(pace=[0.0, 0.3, 0.9])
async def works_with_slow_and_faulty_slaves(dut: Any, pace: float) -> None:
    rng = random.Random(seed())
    spec = the_spec()
    memory = random_content(spec)
    dut.restart.value = 0
    bench = await Bench.start(dut)
    faulty = [
        set(rng.sample(range(spec.memory.words), spec.memory.words // 30))
        for _ in range(spec.channels)
    ]
    slaves = [
        SlowReads(bench, f"axi__{c}", words, faulty[c], pace, spec.bus_bytes)
        for c, words in enumerate(channel_words(memory, spec))
    ]
    operations = random_loads(rng, spec, 120)
    for operation in operations:
        if not operation["sync"]:
            operation["address"] %= spec.memory.words - operation["length"]
    writes = Writes(bench)
    run = Instructions(bench, Unit.LD, operations, [rng.choice([0, 0, 9]) for _ in operations])
    await run.finished()
    compare(spec, operations, memory, run, writes)
    failures = 0
    for operation in operations:
        if not operation["sync"] and operation["destination"] < 3:
            span = range(operation["address"], operation["address"] + operation["length"])
            failures += sum(any(word in words for words in faulty) for word in span)
    assert failures and len(run.errors) == failures
    for slave in slaves:
        assert slave.most_bursts <= spec.read_outstanding and not slave.beats
    if pace:
        assert slaves[0].most_bursts == spec.read_outstanding
