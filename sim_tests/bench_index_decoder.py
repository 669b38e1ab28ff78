"""cocotb tests of the index decoder: every bitmap, every format, with gaps and stalls."""

import random
from typing import Any

import cocotb

from emulator.numerics.chain import decoded_indices, packed_indices
from hw.spec.chain import CANDIDATES, KEPT, IndexFormat
from sim_tests.packing import unpack_lanes
from sim_tests.streams import PACES, Bench, parameters, seed

Beat = tuple[IndexFormat, int, int]


async def check(dut: Any, beats: list[Beat], gaps: str, stalls: str) -> Bench:
    """Send the beats, and compare the indices with the golden ones."""
    in_layout, out_layout = parameters()["layouts"]
    bench = await Bench.start(dut)
    source = bench.source("i", in_layout, PACES[gaps])
    sink = bench.sink("o", out_layout, PACES[stalls])
    tags = [number % 2 for number in range(len(beats))]
    source.send(
        {"format": int(kind), "kept": KEPT.index(kept), "metadata": metadata, "tag": tag}
        for (kind, kept, metadata), tag in zip(beats, tags, strict=True)
    )
    words = await sink.receive(len(beats))
    for beat, tag, word in zip(beats, tags, words, strict=True):
        assert unpack_lanes(word["indices"], 4, CANDIDATES) == decoded_indices(*beat), beat
        assert word["tag"] == tag
    if gaps == stalls == "flowing":
        assert sink.cycles == [cycle + parameters()["latency"] for cycle in source.cycles]
    return bench


def sorted_choice(rng: random.Random, kept: int) -> list[int]:
    """Indices of 16 cells as pruning gives them: ascending, and different, in each output."""
    outputs = CANDIDATES // kept
    return [i for _ in range(outputs) for i in sorted(rng.sample(range(CANDIDATES), kept))]


def random_beat(rng: random.Random) -> Beat:
    kind = rng.choice(list(IndexFormat))
    if kind is IndexFormat.DENSE:
        return kind, 16, rng.getrandbits(64)
    if kind is IndexFormat.TWO_OF_FOUR:
        pairs = [sorted(rng.sample(range(4 * four, 4 * four + 4), 2)) for four in range(4)] * 2
        return kind, 8, packed_indices(kind, 8, sum(pairs, []))
    kept = rng.choice((4, 8) if kind is IndexFormat.BITMAP else (2, 4, 8))
    return kind, kept, packed_indices(kind, kept, sorted_choice(rng, kept))


@cocotb.test()
@cocotb.parametrize(gaps=list(PACES), stalls=list(PACES))
async def random_formats(dut: Any, gaps: str, stalls: str) -> None:
    rng = random.Random(seed())
    await check(dut, [random_beat(rng) for _ in range(200)], gaps, stalls)


@cocotb.test()
async def every_bitmap(dut: Any) -> None:
    """All 2**16 bitmaps, also of other counts than N, in every place that a bitmap has."""
    beats: list[Beat] = []
    for bitmap in range(0, 1 << 16, 2):
        other = bitmap * 40503 + 1 & 0xFFFF
        beats.append((IndexFormat.BITMAP, 8, bitmap | (bitmap + 1) << 16 | other << 32))
        four = bitmap | (bitmap + 1) << 16 | other << 32 | (other ^ 0xFFFF) << 48
        beats.append((IndexFormat.BITMAP, 4, four))
    await check(dut, beats, "flowing", "flowing")
