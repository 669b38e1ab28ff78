"""Which activations meet which weights in a step of the matrix engine."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.core.matrix_mode import UNIT_ELEMENTS, select_by
from hw.core.ports import read_port
from hw.spec.cascade import SLOTS
from hw.spec.machine import MachineSpec
from hw.spec.weight_format import BLOCK_ELEMENTS

__all__ = ["WINDOW_BLOCKS", "MatrixActivations", "MatrixWindow"]

WINDOW_BLOCKS = 4
"""Blocks of 16 elements from which a sparse step may choose, at most."""


class MatrixActivations(wiring.Component):
    """Reads the elements of a dense step from the activation buffer, for all rows at once.

    A step of four weights takes 4 elements, each in two slots; one of eight weights takes 8, in order. No flow
    control; latency 3 from `unit`, one step a cycle.

    Parameters
    ----------
    spec : MachineSpec
        The machine.

    Members
    -------
    wide : In(1)
        Four weights a step; constant during an instruction.
    unit : In
        First element of the step, in units of 4; even for eight weights.
    take, load : In(1)
        The cycles one and two behind that of `unit`: take what was read.
    memory : Out(read_port)
        Activation buffer, in memory rows of `activation_row_bytes`.
    slots : Out(ArrayLayout(signed(8), 8))
        Activation of each slot.
    """

    wide: Value
    unit: Value
    take: Value
    load: Value
    memory: Any  # pyright knows no members of interfaces
    slots: data.View

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        elements = spec.activation_rows * spec.lanes
        row = spec.activation_row_bytes
        super().__init__({
            "wide": In(1),
            "unit": In(exact_log2(elements // UNIT_ELEMENTS)),
            "take": In(1),
            "load": In(1),
            "memory": Out(read_port(elements // row, 8 * row)),
            "slots": Out(data.ArrayLayout(signed(8), SLOTS)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        row = self.spec.activation_row_bytes
        unit_bits = exact_log2(row // UNIT_ELEMENTS)
        m.d.comb += self.memory.address.eq(self.unit[unit_bits:])

        # Of the memory row, the 8 bytes that hold the step, then its half.
        unit = Signal(unit_bits, reset_less=True)
        upper = Signal(reset_less=True)
        m.d.sync += [unit.eq(self.unit[:unit_bits]), upper.eq(unit[0])]
        pair = Signal(data.ArrayLayout(signed(8), SLOTS), reset_less=True)
        with m.If(self.take):
            choices = {
                index: self.memory.data.word_select(index, 8 * SLOTS)
                for index in range(row // SLOTS)
            }
            m.d.sync += pair.eq(select_by(m, "chosen_pair", unit[1:], choices))
        with m.If(self.load):
            for index in range(SLOTS):
                same = Mux(upper, pair[SLOTS // 2 + index // 2], pair[index // 2])
                m.d.sync += self.slots[index].eq(Mux(self.wide, same, pair[index]))
        return m


class MatrixWindow(wiring.Component):
    """Reads from the activation buffer all that a step may need, sparse or dense, for all rows at once.

    Every row then chooses, for each of its slots, one of the 16 elements of that slot's block. In a dense step the
    elements are at the beginning of every block. No flow control; latency 2 from `unit`, one step a cycle.

    Parameters
    ----------
    spec : MachineSpec
        The machine.

    Members
    -------
    sparse : In(1)
        Rows choose. Constant during an instruction, like `windows`.
    windows : In(3)
        Blocks of 16 elements that a step chooses from: 1, 2 or 4. Of more than one, each serves as many slots.
    unit : In
        First element of the step, in units of 4.
    take : In(1)
        The cycle behind that of `unit`: take what was read.
    memory : Out(read_port)
        Activation buffer, in memory rows of `activation_row_bytes`.
    blocks : Out(ArrayLayout(128, 4))
        Block of 16 elements from which slots 2i and 2i + 1 choose.
    """

    sparse: Value
    windows: Value
    unit: Value
    take: Value
    memory: Any  # pyright knows no members of interfaces
    blocks: data.View

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        elements = spec.activation_rows * spec.lanes
        row = spec.activation_row_bytes
        super().__init__({
            "sparse": In(1),
            "windows": In(WINDOW_BLOCKS.bit_length()),
            "unit": In(exact_log2(elements // UNIT_ELEMENTS)),
            "take": In(1),
            "memory": Out(read_port(elements // row, 8 * row)),
            "blocks": Out(data.ArrayLayout(8 * BLOCK_ELEMENTS, WINDOW_BLOCKS)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        row = self.spec.activation_row_bytes
        unit_bits = exact_log2(row // UNIT_ELEMENTS)
        m.d.comb += self.memory.address.eq(self.unit[unit_bits:])
        unit = Signal(unit_bits, reset_less=True)
        m.d.sync += unit.eq(self.unit[:unit_bits])
        # Of the memory row, the blocks that hold the step.
        choices = {
            index: self.memory.data.word_select(index, 8 * BLOCK_ELEMENTS)
            for index in range(row // BLOCK_ELEMENTS)
        }
        for pair in range(WINDOW_BLOCKS):
            number = Signal(unit_bits - 2, name=f"number_{pair}")
            first = unit[2:]
            with m.Switch(self.windows):
                with m.Case(4):
                    m.d.comb += number.eq(Cat(Const(pair, 2), first[2:]))
                with m.Case(2):
                    m.d.comb += number.eq(Cat(Const(pair // 2, 1), first[1:]))
                with m.Default():
                    m.d.comb += number.eq(first)
            block = select_by(m, f"block_{pair}", number, choices)
            half = len(block) // 2
            moved = {place: Cat(block[32 * place :], Const(0, half))[:half] for place in range(4)}
            low = select_by(m, f"low_{pair}", Mux(self.sparse, 0, unit[:2]), moved)
            with m.If(self.take):
                m.d.sync += self.blocks[pair].eq(Cat(low, block[half:]))
        return m
