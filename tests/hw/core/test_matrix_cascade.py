"""Cascades of rows against plain integers: a new step every cycle, so that none may meet another's operands."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from amaranth.hdl import Module, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from hw.core.matrix_cascade import cascade_sums
from hw.core.matrix_skew import MatrixSkew
from hw.spec.cascade import SLOTS, RowCascade, row_cascade, row_kinds
from hw.spec.machine import MachineSpec
from hw.spec.machine_file import load_machine

Step = tuple[list[list[int]], list[list[int]]]
PACKINGS = {"two rows": (2, 1), "two columns": (1, 2), "unpacked": (1, 1)}
PRODUCT_CYCLES = 3
"""From weights to the sum of a cascade, less its slices."""
LEAST, MOST = -128, 127


class Row(wiring.Component):
    """A cascade between ports."""

    weights: Any
    activations: Any
    sums: Any

    def __init__(self, rows: int, columns: int, cascade: RowCascade, narrow_bits: int) -> None:
        self.cascade = cascade
        self.narrow_bits = narrow_bits
        super().__init__({
            "weights": In(signed(8)).array(rows, SLOTS),
            "activations": In(signed(8)).array(columns, SLOTS),
            "sums": Out(signed(32)).array(rows * columns),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        sums: list[Value] = cascade_sums(
            m,
            self.weights,
            self.activations,
            self.cascade,
            vendor=False,
            narrow_bits=self.narrow_bits,
        )
        m.d.comb += [port.eq(value) for port, value in zip(self.sums, sums, strict=True)]
        return m


def _machine(logic_slots: int, logic_rows: int, **fields: object) -> MachineSpec:
    kinds: dict[str, Any] = {"logic_slots": logic_slots, "logic_rows": logic_rows}
    return replace(load_machine("tiny"), matrix_element="dsp", **kinds, **fields)


def _row(wide: bool, weight: int) -> list[int]:
    """The same weight in all slots; wide ones leave odd slots empty."""
    return [0 if wide and slot % 2 else weight for slot in range(SLOTS)]


def _steps(rows: int, columns: int, narrow_bits: int) -> Iterator[Step]:
    """Extremes of each lane beside extremes of the other, in all orders, then anything."""
    narrow = 1 << narrow_bits - 1
    weights = [(True, LEAST), (True, MOST), (False, -narrow), (False, narrow - 1)]
    extremes = itertools.product(
        itertools.product(weights, repeat=rows), itertools.product((LEAST, MOST), repeat=columns)
    )
    rng = random.Random(f"{rows} {columns} {narrow_bits}")
    ordered = list(extremes)
    for own, met in [*ordered, *rng.sample(ordered, len(ordered))]:
        if len({wide for wide, _ in own}) == 1:
            yield [_row(*weight) for weight in own], [[value] * SLOTS for value in met]
    for _ in range(300):
        wide = rng.random() < 0.5
        limits = (
            [narrow if slot % 2 else 128 for slot in range(SLOTS)] if wide else [narrow] * SLOTS
        )
        yield (
            [
                [0 if wide and slot % 2 else rng.randint(-n, n - 1) for slot, n in enumerate(limits)]
                for _ in range(rows)
            ],
            [[rng.choice((LEAST, rng.randint(LEAST, MOST))) for _ in limits] for _ in range(columns)],
        )  # fmt: skip


def _simulate(dut: wiring.Component, bench: Any) -> None:
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def _check(dut: Row, steps: list[Step]) -> None:
    late, latency = dut.cascade.delays, PRODUCT_CYCLES + dut.cascade.cycles
    found: list[list[int]] = []

    def taken(index: int, part: int, place: int, slot: int) -> int:
        """What a port has at a step's turn; another number where there is no step."""
        return steps[index][part][place][slot] if 0 <= index < len(steps) else (-slot, LEAST)[part]

    async def bench(context: Any) -> None:
        for cycle in range(len(steps) + latency):
            for row, slot in itertools.product(range(len(dut.weights)), range(SLOTS)):
                context.set(dut.weights[row][slot], taken(cycle, 0, row, slot))
            for column, slot in itertools.product(range(len(dut.activations)), range(SLOTS)):
                value = taken(cycle - 1 - late[slot], 1, column, slot)
                context.set(dut.activations[column][slot], value)
            found.append([context.get(port) for port in dut.sums])
            await context.tick()

    _simulate(dut, bench)
    for step, sums in zip(steps, found[latency:], strict=True):
        wanted = [
            sum(w * a for w, a in zip(row, column, strict=True))
            for row in step[0]
            for column in step[1]
        ]
        assert sums == wanted, step


@pytest.mark.parametrize("narrow_bits", [4, 5])
@pytest.mark.parametrize("logic", [(0, 0), (1, 0), (1, 2), (3, 0), (4, 2)])
@pytest.mark.parametrize("packing", PACKINGS)
def test_sums_of_steps_in_consecutive_cycles(
    packing: str, logic: tuple[int, int], narrow_bits: int
) -> None:
    rows, columns = PACKINGS[packing]
    spec = _machine(*logic)
    steps = list(_steps(rows, columns, narrow_bits))
    for kind in row_kinds(spec):
        _check(Row(rows, columns, row_cascade(spec, kind), narrow_bits), steps)


def test_no_step_can_leave_its_lane() -> None:
    """By the numbers: in any order, sums of part of a step and the bias keep between 0 and 2**18."""
    for weights, largest in ((4, 128), (8, 8), (8, 16)):
        reach = weights * largest * 128
        assert reach <= 1 << 16
        # Products of lookup tables enter with biases that the first slice takes off its own.
        for entering in range(5):
            own = entering * (16 * 128 << 1)
            assert 0 <= (1 << 17) - own - reach
            assert (1 << 17) + reach < 1 << 18


@pytest.mark.parametrize("sparse", [0, 1])
@pytest.mark.parametrize("logic", [(0, 0), (1, 2), (3, 0)])
def test_skew_is_that_of_each_kind_of_row(logic: tuple[int, int], sparse: int) -> None:
    spec = _machine(*logic, sparse=sparse)
    dut = MatrixSkew(spec)
    rng = random.Random(sparse)
    width = 128 if sparse else 8
    values = [[rng.getrandbits(width) for _ in range(8 >> sparse)] for _ in range(40)]

    async def bench(context: Any) -> None:
        for cycle, places in enumerate(values):
            for place, value in enumerate(places):
                context.set(Value.cast(dut.i[place]), value)
            for kind, output in zip(row_kinds(spec), dut.o, strict=True):
                cascade = row_cascade(spec, kind)
                for order, slot in itertools.chain(
                    enumerate(cascade.slices, cascade.first),
                    enumerate(cascade.logic, cascade.first),
                ):
                    if cycle >= SLOTS:
                        wanted = values[cycle - order][slot >> sparse]
                        found = context.get(Value.cast(output[slot])) % (1 << width)
                        assert found == wanted, (cycle, slot)
            await context.tick()

    _simulate(dut, bench)
