"""cocotb tests of pairs of products in one word: every pair, and columns of cells with gaps."""

import random
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

from emulator.numerics.dsp import lanes, packed_sum
from hw.spec.dsp import PAIR_CONTROL_DELAY, PAIR_LATENCY, safe_depth
from sim_tests.dsp_tops import COLUMN_MULTIPLIERS, Column, LaneSweep
from sim_tests.packing import pack_lanes, unpack_lanes
from sim_tests.streams import parameters, seed

CELLS = Column.CELLS
ZERO, CASCADE, WORD = range(3)


async def start_clock(dut: Any) -> None:
    Clock(dut.clk, 2, unit="step").start()
    dut.rst.value = 1
    for _ in range(2):
        await RisingEdge(dut.clk)
    dut.rst.value = 0


@cocotb.test()
async def every_pair_of_products(dut: Any) -> None:
    """All 2**24 triples of bytes: both lanes are the products."""
    await start_clock(dut)
    for _ in range(PAIR_LATENCY):
        await RisingEdge(dut.clk)
    cells = LaneSweep.CELLS
    size = 4 * cells
    shared = np.arange(256).astype(np.int8).astype(np.int64)
    for n in range(0, 1 << 18, 256):
        d = (n >> 8 & 255 ^ 128) - 128
        words = []
        for _ in range(256):
            await RisingEdge(dut.clk)
            words.append(int(dut.low.value).to_bytes(size, "little"))
            words.append(int(dut.high.value).to_bytes(size, "little"))
        found = np.frombuffer(b"".join(words), "<i4").reshape(256, 2, cells)
        a = (np.arange(cells) + (n >> 16) * cells).astype(np.uint8).view(np.int8).astype(np.int64)
        assert (found[:, 0] == shared[:, None] * d).all(), n
        assert (found[:, 1] == np.outer(shared, a)).all(), n


class Beats:
    """What enters the column: one list of operands for each beat."""

    def __init__(self, operands: np.ndarray, starts: np.ndarray, words: np.ndarray) -> None:
        self.operands, self.starts, self.words = operands, starts, words

    def wanted(self) -> np.ndarray:
        """The word of each cell for each beat."""
        result = np.zeros(self.starts.shape, np.int64)
        for beat, starts in enumerate(self.starts):
            for cell in range(CELLS):
                restarts = np.flatnonzero(starts[: cell + 1] != CASCADE)
                first = restarts[-1] if len(restarts) else 0
                base = self.words[beat] if len(restarts) and starts[first] == WORD else 0
                a, b, d = self.operands[beat, :, first : cell + 1]
                result[beat, cell] = packed_sum(a, d, b, base)
        return result


async def check_column(dut: Any, beats: Beats, enable_rate: float) -> None:
    """Drive the beats with gaps in the clock enable; every cell of every column has the golden word."""
    rng = random.Random(seed())
    count = len(beats.starts)
    wanted = beats.wanted()
    await start_clock(dut)
    step = 0
    while step < count + PAIR_LATENCY + CELLS:
        beat, late = min(step, count - 1), min(max(step - PAIR_CONTROL_DELAY, 0), count - 1)
        for name, operands in zip("abd", beats.operands[beat], strict=True):
            getattr(dut, name).value = pack_lanes(operands, 8)
        dut.start.value = sum(int(s) << 2 * i for i, s in enumerate(beats.starts[beat]))
        dut.word.value = int(beats.words[late]) % (1 << 48)
        enable = rng.random() < enable_rate
        dut.enable.value = int(enable)
        await RisingEdge(dut.clk)
        found = unpack_lanes(int(dut.p.value), 48, CELLS * len(COLUMN_MULTIPLIERS), signed=True)
        for cell in range(CELLS):
            source = step - cell - PAIR_LATENCY
            if 0 <= source < count:
                values = found[cell::CELLS]
                assert values == [int(wanted[source, cell])] * len(values), (source, cell)
        step += enable


@cocotb.test()
@cocotb.parametrize(enable_rate=[1.0, 0.6])
async def columns_of_random_cells(dut: Any, enable_rate: float) -> None:
    rng = np.random.default_rng(seed())
    beats = 400
    operands = rng.integers(-128, 128, (beats, 3, CELLS))
    corners = rng.choice([-128, -127, -1, 0, 1, 127], operands.shape)
    operands = np.where(rng.random((beats, 1, 1)) < 0.5, corners, operands)
    starts = rng.choice([ZERO, CASCADE, CASCADE, CASCADE, WORD], (beats, CELLS))
    words = rng.integers(-(1 << 47), 1 << 47, beats)
    await check_column(dut, Beats(operands, starts, words), enable_rate)


@cocotb.test()
async def worst_chains_around_the_safe_depth(dut: Any) -> None:
    """The largest products of one sign: both lanes right up to the safe depth, low wrong above it."""
    worst = parameters()["worst"]
    operands = np.array([[[a] * CELLS, [b] * CELLS, [d] * CELLS] for a, d, b in worst])
    starts = np.array([[ZERO] + [CASCADE] * (CELLS - 1)] * len(worst))
    beats = Beats(operands, starts, np.zeros(len(worst), np.int64))
    await check_column(dut, beats, 1.0)
    for (a, d, b), words in zip(worst, beats.wanted(), strict=True):
        low, high = lanes(words)
        products = np.arange(1, CELLS + 1)
        right = (low == products * d * b) & (high == products * a * b)
        assert right.tolist() == (products <= safe_depth(d * b)).tolist()
