"""cocotb tests of the sparse chain: N changes from beat to beat, with gaps and stalls, against dense products."""

from typing import Any

import cocotb
import numpy as np

from emulator.numerics.chain import ChainBeat, chain_sums
from hw.spec.chain import CANDIDATES, KEPT, QUEUE_LATENCY, ChainSpec
from hw.spec.dsp import Multiplier
from sim_tests.packing import pack, pack_lanes, unpack, unpack_lanes
from sim_tests.streams import PACES, Bench, parameters, seed

BYTE_ARRAYS = ("weights", "other_weights", "activations", "other_activations")


def spec_of(fields: dict[str, Any]) -> ChainSpec:
    """The chain that the parameters describe."""
    return ChainSpec(**{**fields, "multiplier": Multiplier(fields["multiplier"])})


def random_beats(spec: ChainSpec, count: int) -> list[ChainBeat]:
    """Beats with every N, both sharings, and operands that are often extreme."""
    rng = np.random.default_rng(seed())
    beats: list[ChainBeat] = []
    kept = int(rng.choice(spec.kept_values))
    for _ in range(count):
        if rng.random() < 0.7:
            kept = int(rng.choice(spec.kept_values))
        extreme = rng.random()
        operands: dict[str, Any] = {}
        for name in BYTE_ARRAYS:
            is_weight = "weights" in name
            size = spec.cells if is_weight else CANDIDATES
            most = spec.weight_magnitude if is_weight else spec.activation_magnitude
            least, above = -most, min(most, 127) + 1
            values = rng.integers(least, above, size)
            if extreme < 0.5:
                values = rng.choice([least, above - 1], size)
            if extreme < 0.2:
                values = np.full(size, least if rng.random() < 0.7 else above - 1)
            operands[name] = values.astype(np.int64)
        operands["indices"] = rng.integers(0, CANDIDATES, spec.cells)
        beats.append(ChainBeat(kept, bool(rng.random() < 0.4), **operands))
    return beats


def input_word(layout: Any, beat: ChainBeat, tag: int) -> int:
    fields: dict[str, int] = {name: pack_lanes(getattr(beat, name), 8) for name in BYTE_ARRAYS}
    fields["indices"] = sum(int(index) << 4 * cell for cell, index in enumerate(beat.indices))
    fields |= {"kept": KEPT.index(beat.kept), "two_weights": int(beat.two_weights), "tag": tag}
    return pack(layout, fields)


def output_of(
    spec: ChainSpec, layout: Any, word: int
) -> tuple[list[int], list[int], list[int], int]:
    """Groups behind which outputs ended, their low and high sums, and the tag."""
    fields = unpack(layout, word)
    sums = unpack_lanes(fields["sums"], spec.output_bits, 2 * spec.outputs, signed=True)
    ends = [group for group in range(spec.outputs) if fields["emitted"] >> group & 1]
    return ends, [sums[2 * g] for g in ends], [sums[2 * g + 1] for g in ends], fields["tag"]


def wanted_output(
    spec: ChainSpec, beat: ChainBeat, tag: int
) -> tuple[list[int], list[int], list[int], int]:
    low, high = chain_sums(beat)
    return list(spec.ends(beat.kept)), low.tolist(), high.tolist(), tag


async def check(dut: Any, beats: list[ChainBeat], gaps: str, stalls: str) -> tuple[Any, Any]:
    """Send the beats; every output must be the golden one. Returns source and sink."""
    spec = spec_of(parameters()["spec"])
    layouts = parameters()["layouts"]
    bench = await Bench.start(dut)
    source = bench.source("i", pace=PACES[gaps])
    sink = bench.sink("o", pace=PACES[stalls])
    tags = [number % (1 << spec.tag_bits) for number in range(len(beats))]
    source.send([input_word(layouts[0], b, t) for b, t in zip(beats, tags, strict=True)])
    words = await sink.receive(len(beats))
    for number, (beat, word) in enumerate(zip(beats, words, strict=True)):
        found = output_of(spec, layouts[1], word)
        assert found == wanted_output(spec, beat, tags[number]), (number, beat)
    await bench.cycles(spec.latency + QUEUE_LATENCY + 4)
    assert len(sink.words) == len(beats), "a beat came that was never sent"
    return source, sink


@cocotb.test()
@cocotb.parametrize(gaps=list(PACES), stalls=list(PACES))
async def random_blocks(dut: Any, gaps: str, stalls: str) -> None:
    await check(dut, random_beats(spec_of(parameters()["spec"]), 200), gaps, stalls)


@cocotb.test()
async def one_beat_a_cycle_with_the_stated_latency(dut: Any) -> None:
    spec = spec_of(parameters()["spec"])
    source, sink = await check(dut, random_beats(spec, 100), "flowing", "flowing")
    taken = [cycle + spec.latency + QUEUE_LATENCY for cycle in source.cycles]
    assert sink.cycles == taken
    assert sink.cycles == list(range(sink.cycles[0], sink.cycles[0] + 100))


@cocotb.test()
async def extremes_of_both_signs(dut: Any) -> None:
    """All cells with the largest products, for every N: chains as long as there are."""
    spec = spec_of(parameters()["spec"])
    beats = []
    for kept in spec.kept_values:
        for weight in (-spec.weight_magnitude, min(spec.weight_magnitude, 127)):
            for other in (-spec.weight_magnitude, min(spec.weight_magnitude, 127)):
                for activation in (-spec.activation_magnitude, min(spec.activation_magnitude, 127)):
                    for two in (False, True):
                        beats.append(
                            ChainBeat(
                                kept,
                                two,
                                np.full(spec.cells, weight),
                                np.full(spec.cells, other),
                                np.zeros(spec.cells, np.int64),
                                np.full(CANDIDATES, activation),
                                np.full(CANDIDATES, -activation if activation > -128 else 127),
                            )
                        )
    await check(dut, beats, "flowing", "flowing")


@cocotb.test()
async def every_index_of_every_cell(dut: Any) -> None:
    """One activation of 16 differs from zero: each cell finds it at its index, and only there."""
    spec = spec_of(parameters()["spec"])
    cells = np.arange(spec.cells)
    beats = []
    for place in range(CANDIDATES):
        for shift in range(CANDIDATES):
            activations = np.zeros(CANDIDATES, np.int64)
            activations[place] = 1
            weights = cells % spec.weight_magnitude
            beats.append(
                ChainBeat(
                    spec.group,
                    False,
                    weights,
                    weights,
                    (cells + shift) % CANDIDATES,
                    activations,
                    -activations,
                )
            )
    await check(dut, beats, "flowing", "flowing")
