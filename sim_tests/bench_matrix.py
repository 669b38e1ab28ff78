"""cocotb tests of the matrix engine against `emulator.units.matrix`: every write, checksum and cycle."""

import random
from dataclasses import dataclass, field
from typing import Any

import cocotb
import numpy as np

from emulator.state import MachineState
from emulator.units import matrix
from hw.spec.instructions import Unit, operation_fields
from hw.spec.latency import matrix_cycles
from hw.spec.layout import pack_weights
from hw.spec.machine import MachineSpec, machine_from_dict
from sim_tests.streams import FLOWING, PACES, Bench, Pace, parameters, seed

FIELDS = operation_fields(Unit.MPE)


def operation(**values: int) -> dict[str, int]:
    """An instruction of one INT8 block, unless said otherwise."""
    fields = {name: 0 for name, _ in FIELDS}
    return fields | {"wide": 1, "first": 1, "last": 1, "pop": 1, "blocks": 1, "steps": 1} | values


class Buffers:
    """The memories beside the engine: answers every read port one cycle later."""

    def __init__(self, dut: Any, state: MachineState):
        spec = state.spec
        self._ports = [
            _Port(dut, "stream", state.stream.reshape(-1), 2 * spec.word_bytes),
            _Port(dut, "scales", state.scale_ring.reshape(-1), spec.word_bytes),
            _Port(dut, "activations", state.activation.view(np.uint8), spec.granule),
            _Port(dut, "output_scales", state.matrix_scales.view(np.uint8), 4),
        ]

    def step(self) -> None:
        for port in self._ports:
            port.step()


class _Port:
    def __init__(self, dut: Any, name: str, content: np.ndarray[Any, Any], width: int):
        self._address = getattr(dut, f"{name}__address")
        self._data = getattr(dut, f"{name}__data")
        self._content = content
        self._width = width

    def step(self) -> None:
        begin = int(self._address.value) * self._width
        row = self._content[begin : begin + self._width]
        assert len(row) == self._width, "an address beyond the buffer"
        self._data.value = int.from_bytes(row.tobytes(), "little")


@dataclass
class Recorder:
    """Everything that the engine reports, with the cycle."""

    bench: Bench
    writes: list[tuple[int, int, bytes]] = field(default_factory=list)
    ends: list[tuple[int, int]] = field(default_factory=list)
    illegal: list[int] = field(default_factory=list)

    def step(self) -> None:
        dut, cycle = self.bench.dut, self.bench.cycle
        if enable := int(dut.results__enable.value):
            spec = machine()
            size = 4 * spec.drain_lanes
            row = int(dut.results__data.value).to_bytes(4 * spec.lanes, "little")
            part = enable.bit_length() - 1
            assert enable == 1 << part, "more than one part of a row at a time"
            place = int(dut.results__address.value) * 4 * spec.lanes + part * size
            self.writes.append((cycle, place, row[part * size : (part + 1) * size]))
        if int(dut.done.value):
            self.ends.append((cycle, int(dut.checksum.value)))
        if int(dut.illegal.value):
            self.illegal.append(cycle)


def machine() -> MachineSpec:
    """The machine under test."""
    return machine_from_dict(parameters()["machine"], "bench")


def random_state(spec: MachineSpec) -> MachineState:
    """All buffers that the engine reads full of random bits; every FP32 pattern may be a scale."""
    rng = np.random.default_rng(seed())
    state = MachineState(spec)
    for buffer in (state.stream, state.scale_ring, state.activation, state.matrix_scales):
        flat = buffer.view(np.uint8)
        flat[...] = rng.integers(0, 256, flat.shape, np.uint8)
    state.matrix_scales[::2] = rng.normal(size=state.matrix_scales[::2].shape).astype(np.float32)
    return state


class Engine:
    """The design, its buffers and the golden state beside it."""

    def __init__(self, bench: Bench, state: MachineState, pace: Pace):
        self.bench = bench
        self.state = state
        self.spec = state.spec
        bench.agents.append(Buffers(bench.dut, state))
        self.source = bench.source("i", FIELDS, pace)
        self.recorder = Recorder(bench)
        bench.agents.append(self.recorder)

    @classmethod
    async def start(cls, dut: Any, state: MachineState, pace: Pace = FLOWING) -> "Engine":
        dut.restart.value = 0
        return cls(await Bench.start(dut, limit=1_000_000), state, pace)

    async def run(self, program: list[dict[str, int]]) -> None:
        """Run legal instructions on both sides and compare everything."""
        recorder, source = self.recorder, self.source
        recorder.writes.clear()
        recorder.ends.clear()
        source.cycles.clear()
        expected = [self._execute(fields) for fields in program]
        durations = [self._duration(fields) for fields in program]
        source.send(program)
        await source.drained(sum(durations) + 100 * len(program))
        await self.bench.cycles(durations[-1] + 20)
        writes = iter(recorder.writes)
        assert len(recorder.ends) == len(program), (
            "an instruction without an end, or an end too many"
        )
        for fields, duration, issue, (end, checksum), (rows, golden) in zip(
            program, durations, source.cycles, recorder.ends, expected, strict=True
        ):
            assert end - issue == duration, f"{end - issue} cycles, not {duration}: {fields}"
            assert checksum == golden, f"checksum {checksum:#x}, not {golden:#x}: {fields}"
            for place, content in rows:
                written = next(writes)
                assert written[1:] == (place, content), (
                    f"{written}, not {(place, content)}: {fields}"
                )
                assert issue < written[0] < end, f"written in {written[0]}, not in {issue}..{end}"
        assert next(writes, None) is None, "a write that the golden model does not have"
        assert not recorder.illegal
        for earlier, end, issue in zip(program, recorder.ends, source.cycles[1:], strict=False):
            assert issue > end[0], f"accepted in {issue} before the end in {end[0]} of {earlier}"

    def _duration(self, fields: dict[str, int]) -> int:
        """Cycles from issue to end."""
        return 1 if fields["sync"] else matrix_cycles(self.spec, fields["blocks"], fields["steps"])

    def _execute(self, fields: dict[str, int]) -> tuple[list[tuple[int, bytes]], int]:
        """Golden writes, byte address and content in order, and checksum."""
        spec = self.spec
        checksum = matrix.execute(self.state, fields)
        writes = []
        if fields["last"] and not fields["sync"]:
            for row in range(2 * fields["blocks"]):
                number = (fields["result"] + row) % spec.result_rows
                values = self.state.result[number].reshape(-1, spec.drain_lanes)
                begin = number * 4 * spec.lanes
                writes += [
                    (begin + 4 * spec.drain_lanes * part, value.tobytes())
                    for part, value in enumerate(values)
                ]
        return writes, checksum

    async def restart(self) -> None:
        """Pulse `restart`, on both sides."""
        self.bench.dut.restart.value = 1
        await self.bench.cycles(1)
        self.bench.dut.restart.value = 0
        await self.bench.cycles(1)
        self.state.stream_read = self.state.scale_read = 0
        self.state.accumulators[:] = 0


def random_operation(rng: random.Random, spec: MachineSpec) -> dict[str, int]:
    """Any legal instruction."""
    if rng.random() < 0.1:
        return {name: rng.getrandbits(width) for name, width in FIELDS} | {"sync": 1}
    group_steps = rng.choice([1, 1, 2, 3, 8])
    wide, first, last = rng.getrandbits(1), rng.getrandbits(1), rng.getrandbits(1)
    scaled = rng.getrandbits(1)
    return operation(
        wide=wide,
        scaled=scaled,
        first=first,
        last=last,
        pop=rng.getrandbits(1),
        group_steps=group_steps if scaled else rng.getrandbits(12),
        steps=group_steps * rng.choice([1, 2, 3, 7]) if scaled else rng.randint(1, 30),
        blocks=rng.randint(1, 5) if first and last else 1,
        activation=rng.getrandbits(16) if wide else rng.getrandbits(15) << 1,
        result=rng.choice([rng.getrandbits(16), spec.result_rows - 1]),
        scale=rng.getrandbits(16),
    )


@cocotb.test()
@cocotb.parametrize(gaps=list(PACES))
async def random_chains(dut: Any, gaps: str) -> None:
    spec = machine()
    rng = random.Random(f"{seed()} {gaps}")
    engine = await Engine.start(dut, random_state(spec), PACES[gaps])
    await engine.run([random_operation(rng, spec) for _ in range(150)])
    if gaps == "flowing":
        ends, issues = engine.recorder.ends, engine.source.cycles
        assert all(issue == end[0] + 1 for end, issue in zip(ends, issues[1:], strict=False))


@cocotb.test()
@cocotb.parametrize(bits=[4, 8])
async def every_weight_times_every_activation_in_every_place(dut: Any, bits: int) -> None:
    # One weight of each row is not zero, so that no other product can hide a wrong one.
    spec = machine()
    state = random_state(spec)
    state.matrix_scales[:] = 1
    places, limit = spec.step_elements(bits), 1 << bits - 1
    weights = np.repeat(np.arange(-limit, limit, dtype=np.int8), places)
    matrix_weights = np.zeros((len(weights), places), np.int8)
    matrix_weights[np.arange(len(weights)), np.arange(len(weights)) % places] = weights
    words = pack_weights(matrix_weights, bits, spec)
    engine = await Engine.start(dut, state)
    for begin in range(0, len(words), spec.stream_words):
        part = words[begin : begin + spec.stream_words]
        await engine.restart()
        state.stream[: len(part)] = part
        for value in range(-128, 128, parameters()["stride"]):
            state.activation[:] = value
            await engine.run([operation(wide=int(bits == 8), blocks=len(part) // 2, pop=0)])
            unscaled = matrix_weights[begin // 2 * spec.matrix_rows :][
                : len(part) // 2 * spec.matrix_rows
            ]
            products = unscaled.astype(int).sum(axis=1) * value
            assert np.array_equal(state.result.reshape(-1)[: len(products)], products)


@cocotb.test()
async def every_scale_code(dut: Any) -> None:
    spec = machine()
    state = random_state(spec)
    state.matrix_scales[:] = 1
    engine = await Engine.start(dut, state)
    codes = np.arange(0, 1 << 16, parameters()["stride"], dtype=np.uint16)
    for part in np.array_split(codes, len(codes) // (spec.scale_words * spec.matrix_rows)):
        state.scale_ring.view(np.uint16).reshape(-1)[:] = part
        await engine.run([operation(scaled=1, group_steps=1, blocks=spec.scale_words)])


@cocotb.test()
async def sums_wrap_at_32_and_accumulators_at_64_bits(dut: Any) -> None:
    spec = machine()
    state = random_state(spec)
    state.stream[:] = 0x80
    state.activation[:] = -128
    state.scale_ring.view(np.uint16)[:] = 0x7FFF
    engine = await Engine.start(dut, state)
    steps = 1 << 15
    program = [
        operation(steps=steps),
        operation(steps=steps - 1),
        operation(steps=steps + 1, first=0),
    ]
    program += [
        operation(steps=1 << 11, scaled=1, group_steps=1 << 9, first=i == 0) for i in range(3)
    ]
    await engine.run(program)
    state.scale_ring.view(np.uint16)[:] = 0xFFFF
    await engine.run([operation(steps=1 << 11, scaled=1, group_steps=1 << 8, first=0)])
    await engine.run([operation(wide=0, steps=1 << 11, scaled=1, group_steps=1 << 11)])


ILLEGAL: dict[str, dict[str, int]] = {
    "no_block": {"blocks": 0},
    "no_step": {"steps": 0},
    "blocks_without_first": {"blocks": 2, "first": 0},
    "blocks_without_last": {"blocks": 2, "last": 0},
    "no_group": {"scaled": 1, "group_steps": 0},
    "group_too_long": {"scaled": 1, "steps": 2, "group_steps": 3},
    "group_does_not_divide": {"scaled": 1, "blocks": 3, "steps": 45, "group_steps": 2},
    "odd_activation": {"wide": 0, "activation": 1},
}


@cocotb.test()
@cocotb.parametrize(name=list(ILLEGAL))
async def illegal_instructions_are_reported_and_forgotten_by_restart(dut: Any, name: str) -> None:
    spec = machine()
    rng = random.Random(f"{seed()} {name}")
    engine = await Engine.start(dut, random_state(spec))
    await engine.run([operation(steps=3, blocks=2)])
    recorder = engine.recorder
    recorder.writes.clear()
    recorder.ends.clear()
    engine.source.send([operation(**ILLEGAL[name])])
    await engine.source.drained()
    await engine.bench.cycles(100)
    assert len(recorder.illegal) == 1
    assert not recorder.writes and not recorder.ends
    assert dut.i__ready.value == 1
    recorder.illegal.clear()
    await engine.restart()
    await engine.run(
        [operation(first=0, steps=2)] + [random_operation(rng, spec) for _ in range(5)]
    )


@cocotb.test()
@cocotb.parametrize(delay=[1, 5, 12, 19, 27, 60])
async def restart_stops_everything(dut: Any, delay: int) -> None:
    spec = machine()
    rng = random.Random(f"{seed()} {delay}")
    engine = await Engine.start(dut, random_state(spec))
    await engine.run([operation(steps=3, blocks=2, scaled=1, group_steps=1)])
    engine.source.send([operation(steps=5, blocks=20, scaled=1, group_steps=1)])
    await engine.source.drained()
    await engine.bench.cycles(delay)
    await engine.restart()
    engine.recorder.ends.clear()
    engine.recorder.writes.clear()
    await engine.bench.cycles(150)
    assert not engine.recorder.ends and not engine.recorder.writes
    await engine.run(
        [operation(first=0, steps=2)] + [random_operation(rng, spec) for _ in range(5)]
    )
