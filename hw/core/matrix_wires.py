"""Hardwired matrices beside the matrix engine: activations in digit by digit, sums of a block of rows out."""

from typing import Any

from amaranth.hdl import (
    Cat,
    ClockSignal,
    Const,
    Instance,
    Module,
    ResetSignal,
    Signal,
    Value,
    signed,
)
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.core.matrix_row import GROUP_SUM_BITS
from hw.hardwired.operator import OperatorSpec
from hw.spec.errors import InputError
from hw.spec.instructions import COUNT_BITS
from hw.spec.machine import MachineSpec
from hw.spec.wires import ACTIVATION_BITS, WiredMatrix, Wires

__all__ = ["MatrixWires", "check_wires", "network_name", "operator_spec"]

SCALE_BITS = 16


def network_name(number: int) -> str:
    """Verilog module of the network of hardwired matrix `number`, from 1."""
    return f"lpu_wires_{number}"


def operator_spec(spec: MachineSpec, matrix: WiredMatrix) -> OperatorSpec:
    """The matrix as `hw.hardwired` takes it."""
    rows = tuple(tuple(row) for row in matrix.values.tolist())
    return OperatorSpec(rows, bits=spec.wired_bits)


def check_wires(spec: MachineSpec, wires: Wires | None) -> Wires:
    """The weights of a machine's hardwired matrices, if they are the machine's.

    Raises
    ------
    InputError
        If they are missing, or those of another model.
    """
    if wires is None:
        raise InputError(
            f"target {spec.name}: wired_bits: the weights are part of this hardware; name a program with --program"
        )
    if wires.shapes != spec.wired_shapes or wires.digest != spec.wired_digest:
        raise InputError(
            f"target {spec.name}: wired_digest: expected weights of {spec.wired_digest or 'some model'}, "
            f"found {wires.digest}"
        )
    return wires


class MatrixWires(wiring.Component):
    """All hardwired matrices of a machine, one of which works at a time.

    The rows of the activation vector come in cycle by cycle into registers that all matrices share. Then these move
    down, `wired_bits` a cycle, into the network of the matrix, which computes all its rows at once and keeps the
    sums; the engine takes them block by block, each with the constant scales of its rows.

    `start` in cycle t: activations are taken in t + 1 ... t + rows, digits go in until t + rows + digits, and
    blocks can be taken from the cycle behind on.

    Parameters
    ----------
    spec : MachineSpec
        The machine, with its hardwired matrices.
    wires : Wires
        Their weights.

    Members
    -------
    start : In(1)
        A product begins: the first row of the activations is being read in this cycle.
    number : In(20)
        Which matrix, from 1; constant until the next start.
    activations : In(8 * activation_row_bytes)
        What was read in the cycle before; consecutive rows in consecutive cycles.
    take : In(1)
        Give the sums of the next block in the cycle behind this one.
    sums : Out(ArrayLayout(signed(32), matrix_rows))
        Of the block that was taken last.
    next_scales : In(1)
        The scales of the next block are needed in the cycle after the next.
    scales : Out(16 * matrix_rows)
        FP16 scales of a block, two cycles behind `start` those of the first.
    """

    start: Value
    number: Value
    activations: Value
    take: Value
    sums: data.View
    next_scales: Value
    scales: Value

    def __init__(self, spec: MachineSpec, wires: Wires | None) -> None:
        self.spec = spec
        self.wires = check_wires(spec, wires)
        super().__init__({
            "start": In(1),
            "number": In(COUNT_BITS),
            "activations": In(8 * spec.activation_row_bytes),
            "take": In(1),
            "sums": Out(data.ArrayLayout(signed(GROUP_SUM_BITS), spec.matrix_rows)),
            "next_scales": In(1),
            "scales": Out(SCALE_BITS * spec.matrix_rows),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows, gathering, digit, feeding = self._sequence(m)
        elements = self._elements(m, rows, gathering, feeding)
        first = Signal()
        last = Signal()
        m.d.comb += [first.eq(digit == 0), last.eq(digit == self.spec.wired_digits - 1)]
        networks = self._networks(m, elements, feeding, first, last)
        self._blocks(m, networks)
        return m

    def _sequence(self, m: Module) -> tuple[Signal, Signal, Signal, Signal]:
        """Row of activations that is there, and whether one is; digit that is fed, and whether one is."""
        matrices = self.spec.wired_matrices
        row_bytes = self.spec.activation_row_bytes
        most = max(matrix.inputs for matrix in matrices) // row_bytes
        row = Signal(range(max(most, 2)), reset_less=True)
        digit = Signal(range(self.spec.wired_digits))
        gathering = Signal()
        feeding = Signal()
        ends = Signal()
        with m.Switch(self.number):
            for number, matrix in enumerate(matrices, 1):
                with m.Case(number):
                    m.d.comb += ends.eq(row == matrix.inputs // row_bytes - 1)
        with m.If(self.start):
            m.d.sync += [gathering.eq(1), row.eq(0)]
        with m.Elif(gathering):
            m.d.sync += row.eq(row + 1)
            with m.If(ends):
                m.d.sync += [gathering.eq(0), feeding.eq(1), digit.eq(0)]
        with m.If(feeding):
            m.d.sync += digit.eq(digit + 1)
            with m.If(digit == self.spec.wired_digits - 1):
                m.d.sync += [feeding.eq(0), digit.eq(0)]
        return row, gathering, digit, feeding

    def _elements(self, m: Module, row: Value, gathering: Value, feeding: Value) -> list[Signal]:
        """Registers of the activation vector; the lowest bits are the digit that is fed."""
        row_bytes, bits = self.spec.activation_row_bytes, self.spec.wired_bits
        inputs = max(matrix.inputs for matrix in self.spec.wired_matrices)
        elements = []
        for number in range(inputs):
            element = Signal(ACTIVATION_BITS, name=f"element_{number}", reset_less=True)
            elements.append(element)
        for begin in range(0, inputs, row_bytes):
            mine = elements[begin : begin + row_bytes]
            with m.If(gathering & (row == begin // row_bytes)):
                m.d.sync += Cat(mine).eq(self.activations)
            with m.Elif(feeding):
                m.d.sync += [element.eq(element >> bits) for element in mine]
        return elements

    def _networks(
        self, m: Module, elements: list[Signal], feeding: Value, first: Value, last: Value
    ) -> list[tuple[Signal, int]]:
        """Sums of each matrix, and bits of each sum."""
        bits = self.spec.wired_bits
        networks = []
        # Numbers are offset by half their range: the sign is flipped, and counts like any other bit.
        digits = Signal(bits * len(elements))
        m.d.comb += digits.eq(
            Cat(Cat(element[: bits - 1], element[bits - 1] ^ last) for element in elements)
        )
        for number, matrix in enumerate(self.wires.matrices, 1):
            width = operator_spec(self.spec, matrix).result_bits
            result = Signal(width * matrix.shape.outputs, name=f"result_{number}")
            mine = Signal(name=f"feeds_{number}")
            m.d.comb += mine.eq(feeding & (self.number == number))
            m.submodules[f"wires_{number}"] = Instance(
                network_name(number),
                i_clk=ClockSignal(),
                i_enable=mine | ResetSignal(),
                i_clear=(mine & last) | ResetSignal(),
                i_first=first,
                i_x=digits[: bits * matrix.shape.inputs],
                o_y=result,
            )
            networks.append((result, width))
        return networks

    def _blocks(self, m: Module, networks: list[tuple[Signal, int]]) -> None:
        """Blocks of all matrices under one count: its sums, and its scales."""
        rows = self.spec.matrix_rows
        total = sum(matrix.shape.outputs for matrix in self.wires.matrices) // rows
        block = Signal(range(total + 1))
        scale_block = Signal(range(total + 1))
        first = Signal(range(total + 1))
        begin = 0
        with m.Switch(self.number):
            for number, matrix in enumerate(self.wires.matrices, 1):
                with m.Case(number):
                    m.d.comb += first.eq(begin)
                begin += matrix.shape.outputs // rows
        with m.If(self.start):
            m.d.sync += [block.eq(first), scale_block.eq(first)]
        with m.Else():
            m.d.sync += [
                block.eq(block + self.take),
                scale_block.eq(scale_block + self.next_scales),
            ]
        place = 0
        chosen = Signal(GROUP_SUM_BITS * rows)
        scales = Signal(SCALE_BITS * rows)
        with m.Switch(block):
            for (result, width), matrix in zip(networks, self.wires.matrices, strict=True):
                for at in range(0, matrix.shape.outputs, rows):
                    with m.Case(place + at // rows):
                        m.d.comb += chosen.eq(Cat(_sums(result, width, at, rows)))
                place += matrix.shape.outputs // rows
        place = 0
        with m.Switch(scale_block):
            for matrix in self.wires.matrices:
                codes = matrix.scales.astype("<f2").view("<u2").tolist()
                for at in range(0, matrix.shape.outputs, rows):
                    word = sum(
                        code << SCALE_BITS * i for i, code in enumerate(codes[at : at + rows])
                    )
                    with m.Case(place + at // rows):
                        m.d.comb += scales.eq(Const(word, SCALE_BITS * rows))
                place += matrix.shape.outputs // rows
        m.d.sync += self.scales.eq(scales)
        with m.If(self.take):
            m.d.sync += self.sums.as_value().eq(chosen)


def _sums(result: Any, width: int, first: int, rows: int) -> list[Value]:
    """Sums of a block, as wide as group sums."""
    sums = [result[width * row : width * (row + 1)] for row in range(first, first + rows)]
    return [Cat(value, value[-1].replicate(GROUP_SUM_BITS - width)) for value in sums]
