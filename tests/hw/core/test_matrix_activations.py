"""Every step address in activation memories of every width, against plain indexing."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from amaranth.lib import wiring
from amaranth.sim import Simulator

from hw.core.matrix_activations import MatrixActivations, MatrixWindow
from hw.spec.machine import MachineSpec
from hw.spec.machine_file import load_machine

CHANNELS = [(1, 2), (4, 8), (8, 16), (16, 32)]


def _spec(channels: int, lanes: int, **fields: object) -> MachineSpec:
    spec = replace(load_machine("tiny"), channels=channels, activation_rows=64, **fields)
    assert spec.lanes == lanes
    return spec


def _elements(spec: MachineSpec) -> np.ndarray:
    count = spec.activation_rows * spec.lanes
    return np.random.default_rng(count).integers(-128, 128, count).astype(np.int8)


def _rows(elements: np.ndarray, spec: MachineSpec) -> list[int]:
    rows = elements.reshape(-1, spec.activation_row_bytes)
    return [int.from_bytes(row.tobytes(), "little") for row in rows]


def _simulate(dut: wiring.Component, bench: Any) -> None:
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("channels, lanes", CHANNELS)
def test_every_address(channels: int, lanes: int) -> None:
    spec = _spec(channels, lanes)
    elements = _elements(spec)
    dut = MatrixActivations(spec)
    rows = _rows(elements, spec)

    async def bench(ctx) -> None:
        for wide in (0, 1):
            ctx.set(dut.wide, wide)
            for unit in range(0, len(elements) // 4, 1 if wide else 2):
                ctx.set(dut.unit, unit)
                row = rows[ctx.get(dut.memory.address)]
                await ctx.tick()
                ctx.set(dut.unit, 0)
                ctx.set(dut.memory.data, row)
                ctx.set(dut.take, 1)
                await ctx.tick()
                ctx.set(dut.take, 0)
                ctx.set(dut.memory.data, 0)
                ctx.set(dut.load, 1)
                await ctx.tick()
                ctx.set(dut.load, 0)
                await ctx.tick()
                taken = elements[4 * unit : 4 * unit + (4 if wide else 8)]
                expected = np.repeat(taken, 2) if wide else taken
                assert [ctx.get(slot) for slot in dut.slots] == expected.tolist()

    _simulate(dut, bench)


@pytest.mark.parametrize("channels, lanes", CHANNELS)
def test_every_window(channels: int, lanes: int) -> None:
    spec = _spec(channels, lanes, sparse=1)
    elements = _elements(spec)
    dut = MatrixWindow(spec)
    rows = _rows(elements, spec)

    async def blocks(ctx, unit: int, sparse: int, windows: int) -> list[list[int]]:
        ctx.set(dut.unit, unit)
        ctx.set(dut.sparse, sparse)
        ctx.set(dut.windows, windows)
        row = rows[ctx.get(dut.memory.address)]
        await ctx.tick()
        ctx.set(dut.unit, 0)
        ctx.set(dut.memory.data, row)
        ctx.set(dut.take, 1)
        await ctx.tick()
        ctx.set(dut.take, 0)
        ctx.set(dut.memory.data, 0)
        await ctx.tick()
        data = [ctx.get(block).to_bytes(16, "little") for block in dut.blocks]
        return [np.frombuffer(block, np.int8).tolist() for block in data]

    async def bench(ctx) -> None:
        for unit in range(len(elements) // 4):
            for block in await blocks(ctx, unit, 0, 1):
                count = 8 - unit % 2 * 4
                assert block[:count] == elements[4 * unit :][:count].tolist()
            # A window lies at a multiple of its size; steps of wide weights may begin in its middle.
            for windows in (1, 2, 4):
                begin = 4 * unit // (16 * windows) * 16 * windows
                window = elements[begin : begin + 16 * windows].reshape(windows, 16).tolist()
                expected = [window[pair * windows // 4] for pair in range(4)]
                assert await blocks(ctx, unit, 1, windows) == expected

    _simulate(dut, bench)
