"""cocotb tests of the matrix engine against `emulator.units.matrix`: every write, checksum and cycle."""

import random
import zlib
from dataclasses import dataclass, field
from typing import Any

import cocotb
import numpy as np

from emulator.state import MachineState
from emulator.units import matrix
from emulator.units.matrix_check import step_format
from emulator.units.wires import is_wired
from hw.spec.latency import matrix_cycles, wired_cycles
from hw.spec.layout import pack_weights
from hw.spec.machine import MachineSpec
from hw.spec.machine_file import machine_from_dict
from hw.spec.weight_format import BLOCK_ELEMENTS, StepFormat, WeightFormat
from sim_tests.matrix_operations import (
    FIELDS,
    illegal_operations,
    narrow_step,
    operation,
    random_program,
    random_wired,
    wired_operation,
)
from sim_tests.streams import FLOWING, PACES, Bench, Pace, parameters, seed
from sim_tests.wired_example import example_wires


class Buffers:
    """The memories beside the engine: answers every read port one cycle later."""

    def __init__(self, dut: Any, state: MachineState):
        spec = state.spec
        word, row = spec.word_bytes, spec.activation_row_bytes
        pair = 2 * word if spec.stream_alignment == 8 else word
        self._ports = [
            _Port(dut, "stream", state.stream.reshape(-1), pair, 2 * word),
            _Port(dut, "scales", state.scale_ring.reshape(-1), word, word),
            _Port(dut, "output_scales", state.matrix_scales.view(np.uint8), 4, 4),
        ]
        self._ports += [
            _Port(dut, f"activations__{column}", state.activation.view(np.uint8), row, row)
            for column in range(spec.matrix_columns)
        ]

    def step(self) -> None:
        for port in self._ports:
            port.step()


class _Port:
    """Rows of `width` bytes that begin at multiples of `pitch`, and wrap."""

    def __init__(self, dut: Any, name: str, content: np.ndarray[Any, Any], pitch: int, width: int):
        self._address = getattr(dut, f"{name}__address")
        self._data = getattr(dut, f"{name}__data")
        self._content = content
        self._pitch = pitch
        self._width = width

    def step(self) -> None:
        begin = int(self._address.value) * self._pitch
        assert begin < len(self._content), "an address beyond the buffer"
        row = self._content[begin : begin + self._width].tobytes()
        row += self._content[: self._width - len(row)].tobytes()
        self._data.value = int.from_bytes(row, "little")


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
    if spec.wired_matrices:
        state.wires = example_wires(spec)
        assert state.wires.digest == spec.wired_digest
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
        written = 0
        assert len(recorder.ends) == len(program), (
            "an instruction without an end, or an end too many"
        )
        content: dict[int, bytes] = {}
        for fields, duration, issue, (end, checksum), (places, golden) in zip(
            program, durations, source.cycles, recorder.ends, expected, strict=True
        ):
            assert end - issue == duration, f"{end - issue} cycles, not {duration}: {fields}"
            assert checksum == golden, f"checksum {checksum:#x}, not {golden:#x}: {fields}"
            own = recorder.writes[written : written + len(places)]
            written += len(places)
            assert [place for _, place, _ in own] == places, f"written elsewhere: {fields}"
            assert zlib.crc32(b"".join(data for _, _, data in own)) == golden, f"wrong: {fields}"
            assert all(issue < cycle < end for cycle, _, _ in own), f"written too late: {fields}"
            content |= {place: data for _, place, data in own}
        assert written == len(recorder.writes), "a write that the golden model does not have"
        result = self.state.result.tobytes()
        for place, data in content.items():
            assert result[place : place + len(data)] == data, f"byte {place} of the results"
        assert not recorder.illegal
        for earlier, end, issue in zip(program, recorder.ends, source.cycles[1:], strict=False):
            assert issue > end[0], f"accepted in {issue} before the end in {end[0]} of {earlier}"

    def _duration(self, fields: dict[str, int]) -> int:
        """Cycles from issue to end."""
        if fields["sync"]:
            return 1
        if is_wired(fields):
            return wired_cycles(self.spec, fields["steps"], fields["blocks"])
        step, vectors = step_format(fields), fields["vectors"]
        return matrix_cycles(self.spec, fields["blocks"], fields["steps"], step.cycles, vectors)

    def _execute(self, fields: dict[str, int]) -> tuple[list[int], int]:
        """Golden byte addresses of the writes, in order, and checksum; the state moves on."""
        spec = self.spec
        checksum = matrix.execute(self.state, fields)
        if fields["sync"] or not fields["last"]:
            return [], checksum
        parts = range(0, 4 * spec.lanes, 4 * spec.drain_lanes)
        rows = [
            fields["result"] + vector * fields["result_pitch"] + block * spec.block_rows + row
            for block in range(fields["blocks"])
            for vector in range(fields["vectors"])
            for row in range(spec.matrix_rows // spec.lanes)
        ]
        places = [row % spec.result_rows * 4 * spec.lanes + part for row in rows for part in parts]
        return places, checksum

    async def reset(self) -> None:
        """Reset both sides."""
        self.bench.dut.rst.value = 1
        await self.bench.cycles(1)
        self.bench.dut.rst.value = 0
        await self.bench.cycles(1)
        self.state.stream_read = self.state.scale_read = 0
        self.state.accumulators[:] = 0
        self.state.accumulated_columns = self.spec.matrix_columns


@cocotb.test()
@cocotb.parametrize(gaps=list(PACES))
async def random_chains(dut: Any, gaps: str) -> None:
    spec = machine()
    rng = random.Random(f"{seed()} {gaps}")
    engine = await Engine.start(dut, random_state(spec), PACES[gaps])
    await engine.run(random_program(rng, spec, 150))
    if gaps == "flowing":
        ends, issues = engine.recorder.ends, engine.source.cycles
        assert all(issue == end[0] + 1 for end, issue in zip(ends, issues[1:], strict=False))


def _single_weights(step: StepFormat, spec: MachineSpec) -> np.ndarray[Any, Any]:
    """Rows of one step: every weight in every place, and nothing else in the row that could hide a wrong product."""
    weight, limit = step.weight, step.weight.largest
    values = np.arange(-limit, limit)
    if weight is WeightFormat.FP4:
        values = np.array([value * sign for value in (0, 1, 2, 3, 4, 6, 8, 12) for sign in (1, -1)])
    span = step.span
    places = np.arange(len(values) * span)
    rows = np.zeros((len(places), max(span, BLOCK_ELEMENTS) if step.kept else span), np.int8)
    rows[places, places % span] = np.repeat(values, span)
    return rows


@cocotb.test()
async def every_weight_times_every_activation_in_every_place(dut: Any) -> None:
    spec = machine()
    state = random_state(spec)
    state.matrix_scales[:] = 1
    engine = await Engine.start(dut, state)
    ramp = np.arange(len(state.activation))
    for step in spec.step_formats:
        rows = _single_weights(step, spec)
        steps = rows.shape[1] // step.span
        words = pack_weights(rows, step, spec)
        each = step.block_words(steps)
        most = min(spec.stream_words, spec.result_rows // 2) // each * each
        for begin in range(0, len(words), most):
            part = words[begin : begin + most]
            await engine.reset()
            state.stream[: len(part)] = part
            blocks = len(part) // each
            own = rows[begin // each * spec.matrix_rows :][: blocks * spec.matrix_rows].astype(int)
            for value in range(-128, 128, parameters()["stride"] * (8 if step.kept else 1)):
                # Neighbours differ, so that a wrong element is no accident.
                state.activation[:] = (value + 37 * ramp + 128) % 256 - 128
                program = operation(step, blocks=blocks, steps=steps, pop=0)
                await engine.run([program])
                products = own @ state.activation[: own.shape[1]].astype(int)
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
        steps = spec.rows_per_scaler
        await engine.run([
            operation(scaled=1, group_steps=steps, steps=steps, blocks=spec.scale_words)
        ])


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
    narrow = narrow_step(spec)
    await engine.run([operation(narrow, steps=1 << 11, scaled=1, group_steps=1 << 11)])


@cocotb.test()
async def every_activation_times_every_hardwired_weight(dut: Any) -> None:
    """Against plain integers, with scales as they are: what is written is sum * scale, exactly or rounded once."""
    spec = machine()
    if not spec.wired_matrices:
        return
    state = random_state(spec)
    state.matrix_scales[:] = 1
    engine = await Engine.start(dut, state)
    ramp = np.arange(len(state.activation))
    for value in range(-128, 128, parameters()["stride"]):
        state.activation[:] = (value + 37 * ramp + 128) % 256 - 128
        for number, own in enumerate(example_wires(spec).matrices, 1):
            await engine.run([wired_operation(spec, number)])
            sums = own.values.astype(int) @ state.activation[: own.shape.inputs].astype(int)
            scales = own.scales.astype(np.float64)
            known = np.isfinite(scales)
            written = state.result.reshape(-1)[: len(sums)][known]
            assert np.array_equal(written, (sums * scales)[known].astype(np.float32)), value


@cocotb.test()
async def illegal_instructions_are_reported_and_forgotten_by_reset(dut: Any) -> None:
    spec = machine()
    rng = random.Random(f"{seed()} illegal")
    engine = await Engine.start(dut, random_state(spec))
    recorder = engine.recorder
    for name, fields in illegal_operations(spec).items():
        await engine.run([operation(steps=3, blocks=2)])
        recorder.writes.clear()
        recorder.ends.clear()
        engine.source.send([fields])
        await engine.source.drained()
        await engine.bench.cycles(fields["steps"] + 100)
        assert len(recorder.illegal) == 1, name
        assert not recorder.writes and not recorder.ends, name
        assert dut.i__ready.value == 1, name
        recorder.illegal.clear()
        await engine.reset()
        await engine.run([operation(first=0, steps=2)] + random_program(rng, spec, 2))


@cocotb.test()
@cocotb.parametrize(delay=[1, 3, 5, 8, 12, 14, 19])
async def reset_stops_a_hardwired_product(dut: Any, delay: int) -> None:
    spec = machine()
    if not spec.wired_matrices:
        return
    rng = random.Random(f"{seed()} wires {delay}")
    engine = await Engine.start(dut, random_state(spec))
    engine.source.send([wired_operation(spec, 3)])
    await engine.source.drained()
    await engine.bench.cycles(delay)
    await engine.reset()
    await engine.bench.cycles(100)
    assert not engine.recorder.ends and not engine.recorder.writes
    await engine.run([random_wired(rng, spec), *random_program(rng, spec, 5)])


@cocotb.test()
@cocotb.parametrize(delay=[1, 5, 12, 19, 27, 60])
async def reset_stops_everything(dut: Any, delay: int) -> None:
    spec = machine()
    rng = random.Random(f"{seed()} {delay}")
    engine = await Engine.start(dut, random_state(spec))
    turns = spec.rows_per_scaler
    begun: dict[str, Any] = {"scaled": 1, "group_steps": turns, "vectors": 2}
    await engine.run([operation(steps=3 * turns, blocks=2, **begun)])
    engine.source.send([operation(steps=5 * turns, blocks=20, **begun)])
    await engine.source.drained()
    await engine.bench.cycles(delay)
    await engine.reset()
    engine.recorder.ends.clear()
    engine.recorder.writes.clear()
    await engine.bench.cycles(150)
    assert not engine.recorder.ends and not engine.recorder.writes
    await engine.run([operation(first=0, steps=2)] + random_program(rng, spec, 5))
