"""cocotb tests of the systolic array against `emulator.systolic_values` and `emulator.systolic_timing`."""

import json
from itertools import chain
from pathlib import Path
from typing import Any

import cocotb
import numpy as np

from emulator.systolic_gemm import Gemm, Tiling, whole_tiling, works
from emulator.systolic_timing import ArrayRun, array_cycles, run_array
from emulator.systolic_values import Operands, golden_outputs, random_operands
from hw.pe.array_layout import beat_layout, scale_layout
from hw.spec.systolic import SystolicSpec
from hw.spec.systolic_parts import RESULT_BITS
from hw.spec.systolic_target import systolic_from_dict
from mapping.systolic_stream import Beat, Streams, collect, lower_gemm
from sim_tests.bench import layout_fields
from sim_tests.packing import pack, pack_lanes, unpack_lanes
from sim_tests.streams import FLOWING, PACES, Bench, Pace, Sink, Source, parameters, seed

Job = tuple[Gemm, Tiling]


def array() -> SystolicSpec:
    """The array under test."""
    return systolic_from_dict({"family": "mixpe"} | parameters()["array"], "bench")


def jobs(spec: SystolicSpec) -> list[Job]:
    """The products of the test, and how they are cut."""
    chosen = []
    for entry in parameters()["gemms"]:
        gemm = Gemm(*entry["shape"])
        blocks = entry.get("blocks")
        chosen.append((gemm, Tiling(*blocks) if blocks else whole_tiling(spec, gemm)))
    return chosen


class Array:
    """The design with a source or sink at every stream."""

    def __init__(self, bench: Bench, spec: SystolicSpec, inputs: Pace, outputs: Pace):
        self.bench = bench
        self.spec = spec
        self.i = bench.source("i", None, inputs)
        self.sources: list[Source] = [self.i]
        if not spec.output_stationary:
            self.weights = bench.source("weights", None, inputs)
            self.sources.append(self.weights)
        if spec.dequantizes:
            self.scales = bench.source("scales", None, inputs)
            self.tokens = bench.source("token_scales", None, inputs)
            self.sources += [self.scales, self.tokens]
        self.o: Sink = bench.sink("o", None, outputs)

    @classmethod
    async def start(cls, dut: Any, inputs: Pace = FLOWING, outputs: Pace = FLOWING) -> "Array":
        bench = await Bench.start(dut, limit=2_000_000)
        return cls(bench, array(), inputs, outputs)

    async def run(self, operations: list[tuple[Job, Operands]]) -> tuple[list[Streams], int]:
        """Run products without a pause between them; their streams, and the cycle of time 0.

        Values are compared here.
        """
        spec = self.spec
        lowered = [lower_gemm(spec, *job, operands) for job, operands in operations]
        for source in self.sources:
            source.cycles.clear()
        self.o.cycles.clear()
        begin = self.bench.cycle + 1
        self.i.send([beat_word(spec, b) for s in lowered for b in s.beats])
        if not spec.output_stationary:
            weights = (row for s in lowered for row in s.weights)
            self.weights.send([pack_lanes(row, spec.weight_bits) for row in weights])
        if spec.dequantizes:
            self.scales.send([scales_word(spec, *word) for s in lowered for word in s.scales])
            self.tokens.send([token for s in lowered for token in s.token_scales])
        for (job, operands), streams in zip(operations, lowered, strict=True):
            gemm = job[0]
            words = await self.o.receive(len(streams.results), 500_000)
            rows = [unpack_lanes(word, RESULT_BITS, spec.columns) for word in words]
            outputs = collect(streams, rows, (gemm.m, gemm.n))
            golden = golden_outputs(spec, operands)
            different = np.argwhere(outputs != golden)
            assert not len(different), (
                f"{gemm}: {len(different)} of {golden.size} outputs differ, the first at "
                f"{different[0]}: {outputs[tuple(different[0])]:#x}, not {golden[tuple(different[0])]:#x}"
            )
        # One cycle from `send` to the offer.
        return lowered, begin + 1

    def check_latency(self, lowered: list[Streams]) -> None:
        """Every result comes `output_latency` behind the beat that completed it, whenever that was."""
        spec = self.spec
        beats = chain.from_iterable(s.beats for s in lowered)
        expected: list[int] = []
        for beat, cycle in zip(beats, self.i.cycles, strict=True):
            if beat.closes and (beat.last or not spec.output_stationary):
                first = cycle + spec.output_latency
                expected += range(first, first + (spec.rows if spec.output_stationary else 1))
        assert self.o.cycles == expected

    def check_cycles(self, lowered: list[Streams], zero: int, expected: ArrayRun) -> None:
        """Every group or pass, and every row of results, comes when the emulator says."""
        spec = self.spec
        beats = chain.from_iterable(s.beats for s in lowered)
        marked = [b.last if spec.output_stationary else b.first for b in beats]
        ends = [c - zero for c, mark in zip(self.i.cycles, marked, strict=True) if mark]
        assert ends == expected.ends, f"{first_difference(ends, expected.ends)}"
        results = [cycle - zero for cycle in self.o.cycles]
        assert results == expected.results, f"{first_difference(results, expected.results)}"


def first_difference(found: list[int], expected: list[int]) -> str:
    """Words for a failed comparison of cycles."""
    for index, (a, b) in enumerate(zip(found, expected, strict=False)):
        if a != b:
            return f"event {index}: cycle {a}, not {b}"
    return f"{len(found)} events, not {len(expected)}"


def beat_word(spec: SystolicSpec, beat: Beat) -> int:
    """Payload of the stream `i`."""
    fields = layout_fields(beat_layout(spec))
    values = {
        "activations": pack_lanes(beat.activations, spec.processing_element.activation_bits),
        "weights": 0 if beat.weights is None else pack_lanes(beat.weights, spec.weight_bits),
        "first": int(beat.first),
        "last": int(beat.last),
        "open": int(beat.opens),
        "close": int(beat.closes),
        "address": beat.address,
    }
    return pack(fields, {name: values[name] for name, *_ in fields})


def scales_word(spec: SystolicSpec, scale: Any, zero: Any, channel: Any) -> int:
    """Payload of the stream `scales`."""
    layout = scale_layout(spec)
    fields = layout_fields(layout)
    word = 0
    for column, values in enumerate(zip(scale, zero, channel, strict=True)):
        named: dict[str, int] = dict(
            zip(("scale", "zero", "channel"), map(int, values), strict=True)
        )
        entry = pack(fields, {name: named[name] for name, *_ in fields})
        word |= entry << column * layout.size
    return word


@cocotb.test()
async def every_product_is_right_and_takes_the_emulated_cycles(dut: Any) -> None:
    spec = array()
    rng = np.random.default_rng(seed())
    tester = await Array.start(dut)
    measured = []
    for job in jobs(spec):
        await tester.bench.cycles(2 * spec.output_latency + 2 * spec.rows)
        lowered, zero = await tester.run([(job, random_operands(spec, job[0], rng))])
        tester.check_cycles(lowered, zero, run_array(spec, works(spec, *job)))
        cycles = tester.o.cycles[-1] - zero + 1
        assert cycles == array_cycles(spec, *job), f"{cycles} cycles of {job}"
        measured.append(cycles)
    if report := parameters().get("report"):
        Path(report).write_text(json.dumps(measured))


@cocotb.test()
async def products_follow_each_other_without_a_pause(dut: Any) -> None:
    spec = array()
    rng = np.random.default_rng(seed() + 1)
    tester = await Array.start(dut)
    chosen = jobs(spec)
    operations = [(job, random_operands(spec, job[0], rng)) for job in chosen]
    lowered, zero = await tester.run(operations)
    together = chain.from_iterable(works(spec, *job) for job in chosen)
    tester.check_cycles(lowered, zero, run_array(spec, together))


@cocotb.test()
@cocotb.parametrize(inputs=["gaps", "slow"])
async def gaps_change_no_value_and_no_latency(dut: Any, inputs: str) -> None:
    spec = array()
    rng = np.random.default_rng(seed() + 2)
    tester = await Array.start(dut, PACES[inputs])
    operations = [(job, random_operands(spec, job[0], rng)) for job in jobs(spec)]
    lowered, _ = await tester.run(operations)
    tester.check_latency(lowered)


@cocotb.test()
@cocotb.parametrize(inputs=["flowing", "gaps"], outputs=["gaps", "slow"])
async def stalls_lose_nothing(dut: Any, inputs: str, outputs: str) -> None:
    spec = array()
    rng = np.random.default_rng(seed() + 3)
    tester = await Array.start(dut, PACES[inputs], PACES[outputs])
    await tester.run([(job, random_operands(spec, job[0], rng)) for job in jobs(spec)])
