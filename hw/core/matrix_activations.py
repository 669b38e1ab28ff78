"""Which activations meet which weights in a step of the matrix engine."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.core.matrix_row import PRODUCTS
from hw.core.ports import read_port
from hw.spec.machine import MachineSpec

__all__ = ["MatrixActivations"]

STEP_BYTES = 2 * PRODUCTS


class MatrixActivations(wiring.Component):
    """Reads the elements of a step from the activation buffer, for all rows at once.

    A step of INT8 weights takes 4 elements, each for both nibbles of a weight; one of INT4 weights
    takes 8, the even ones for low nibbles. No flow control; latency 2 from `unit`, one step a cycle.

    Parameters
    ----------
    spec : MachineSpec
        The machine.

    Members
    -------
    wide : In(1)
        Weights are INT8; constant during an instruction.
    unit : In
        First element of the step, in units of 4; even for INT4.
    load : In(1)
        The cycle after that of `unit`: take what was read.
    memory : Out(read_port)
        Activation buffer, in memory rows of `granule` bytes.
    low, high : Out(ArrayLayout(signed(8), 4))
        Activations of the low and the high nibbles of a row's bytes.
    """

    wide: Value
    unit: Value
    load: Value
    memory: Any  # pyright knows no members of interfaces
    low: data.View
    high: data.View

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        elements = spec.activation_rows * spec.lanes
        super().__init__({
            "wide": In(1),
            "unit": In(exact_log2(elements // PRODUCTS)),
            "load": In(1),
            "memory": Out(read_port(elements // spec.granule, 8 * spec.granule)),
            "low": Out(data.ArrayLayout(signed(8), PRODUCTS)),
            "high": Out(data.ArrayLayout(signed(8), PRODUCTS)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        unit_bits = exact_log2(self.spec.granule // PRODUCTS)
        m.d.comb += self.memory.address.eq(self.unit[unit_bits:])

        # Of the memory row, the 8 bytes that hold the step, then its half.
        unit = Signal(unit_bits, reset_less=True)
        m.d.sync += unit.eq(self.unit[:unit_bits])
        pair = Signal(data.ArrayLayout(signed(8), STEP_BYTES))
        pairs = self.spec.granule // STEP_BYTES
        with m.Switch(unit[1:]):
            for index in range(pairs):
                with m.Case(index) if index < pairs - 1 else m.Default():
                    m.d.comb += pair.eq(self.memory.data.word_select(index, 8 * STEP_BYTES))
        with m.If(self.load):
            for index in range(PRODUCTS):
                same = Mux(unit[0], pair[PRODUCTS + index], pair[index])
                m.d.sync += [
                    self.low[index].eq(Mux(self.wide, same, pair[2 * index])),
                    self.high[index].eq(Mux(self.wide, same, pair[2 * index + 1])),
                ]
        return m
