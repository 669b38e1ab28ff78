"""What an array needs beside its elements, synthesized with the same flow: registers, units at the edges."""

from dataclasses import dataclass
from enum import Enum
from functools import partial

from amaranth.hdl import Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.floating import FloatAdd, FloatMultiply, IntegerToFloat
from hw.pe.edge import Aligner, FlintDecoder, OliveDecoder, RowSum, TermDecoder, ZeroSubtractor
from hw.spec.processing_element import Operand, ProcessingElementSpec, ZeroPoint
from sim_tests.liberty import Library
from sim_tests.pe_synthesis import synthesize, synthesize_all

__all__ = ["Charges", "Scaling", "charge"]

SRAM_BIT_REGISTERS = 0.25
"""Area of a bit of a sum's memory, in flip-flops; assumed."""


class Scaling(Enum):
    """What is done with the sum of a group."""

    FLOAT = "fp32"
    """To FP32, times the scale, added in FP32: as in the paper."""
    INTEGER = "int64"
    """Times an 11-bit mantissa, shifted, added to a 64-bit integer: free of order."""
    CHANNEL = "int32"
    """Times an integer scale of 8 bits, added to a 32-bit integer; one FP16 scale a channel."""


class ScalingUnit(wiring.Component):
    """Arithmetic of one dequantization unit; the memory of its sums is charged by the bit.

    Members
    -------
    sum : In(signed(bits))
        A group's sum, or an FP32 number if the element gives that.
    scale : In(32)
        Scale of the group; its lowest bits where it is shorter.
    row_sum, zero : In
        For zero points.
    old : In
        Sum over groups so far.
    o : Out
        The new one.
    """

    sum: Value
    scale: Value
    row_sum: Value
    zero: Value
    old: Value
    o: Value

    def __init__(self, spec: ProcessingElementSpec, scaling: Scaling) -> None:
        self.spec = spec
        self.scaling = scaling
        width = 64 if scaling is Scaling.INTEGER else 32
        super().__init__({
            "sum": In(signed(spec.accumulator_bits)),
            "scale": In(32),
            "row_sum": In(signed(16)),
            "zero": In(unsigned(4)),
            "old": In(signed(width)),
            "o": Out(signed(width)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        total: Value = self.sum
        if self.spec.zero_point is ZeroPoint.ROW_SUM:
            total = Signal(
                signed(self.spec.accumulator_bits + 1), name="symmetric", reset_less=True
            )
            m.d.sync += total.eq(self.sum - self.row_sum * self.zero)
        kept = Signal.like(self.o, reset_less=True)
        if self.scaling is Scaling.FLOAT:
            self._float(m, kept, total)
        elif self.scaling is Scaling.INTEGER:
            product = Signal(signed(len(total) + 12), reset_less=True)
            m.d.sync += product.eq(total * self.scale[:11])
            shifted = Signal(signed(64), reset_less=True)
            m.d.sync += shifted.eq(product << self.scale[11:16])
            m.d.sync += kept.eq(self.old + shifted)
        else:
            product = Signal(signed(len(total) + 9), reset_less=True)
            m.d.sync += product.eq(total * self.scale[:8])
            m.d.sync += kept.eq(self.old + product)
        m.d.comb += self.o.eq(kept)
        return m

    def _float(self, m: Module, kept: Signal, total: Value) -> None:
        m.submodules.multiply = multiply = FloatMultiply()
        m.submodules.add = add = FloatAdd()
        if self.spec.fp32:
            m.d.comb += multiply.a.eq(total)
        else:
            m.submodules.convert = convert = IntegerToFloat(len(total))
            m.d.comb += [convert.i.eq(total), multiply.a.eq(convert.o)]
        m.d.comb += [
            multiply.b.eq(self.scale),
            add.a.eq(multiply.o),
            add.b.eq(self.old),
            kept.eq(add.o),
        ]


class _Registers(wiring.Component):
    """Thirty-two flip-flops, or shadow registers that capture or shift."""

    i: Value
    above: Value
    capture: Value
    shift: Value
    o: Value

    def __init__(self, shadow: bool) -> None:
        self.shadow = shadow
        super().__init__({
            "i": In(32),
            "above": In(32),
            "capture": In(1),
            "shift": In(1),
            "o": Out(32),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        kept = Signal(32, reset_less=True)
        m.d.comb += self.o.eq(kept)
        if not self.shadow:
            m.d.sync += kept.eq(self.i)
            return m
        with m.If(self.capture | self.shift):
            m.d.sync += kept.eq(Mux(self.capture, self.i, self.above))
        return m


@dataclass(frozen=True)
class Charges:
    """Areas beside one kind of element, in the library's unit.

    Parameters
    ----------
    register, shadow_bit : float
        One flip-flop; one bit of a shadow register, its multiplexers included.
    row, column : float
        Units of a row and of a column.
    scaling : dict of Scaling to float
        A dequantization unit; empty where sums need none.
    """

    register: float
    shadow_bit: float
    row: float
    column: float
    scaling: dict[Scaling, float]


def charge(spec: ProcessingElementSpec, library: Library, grouped: bool) -> Charges:
    """Synthesize what an element needs around it; kept between runs.

    Parameters
    ----------
    grouped : bool
        Groups along K have scales.
    """
    row: list[tuple[str, wiring.Component]] = []
    column: list[tuple[str, wiring.Component]] = []
    match spec.activation:
        case Operand.DECODED_FLINT:
            row, column = [("flint", FlintDecoder())], [("flint", FlintDecoder())]
        case Operand.DECODED_OLIVE:
            row, column = [("olive", OliveDecoder())], [("olive", OliveDecoder())]
        case Operand.INT12 | Operand.INT14 | Operand.INT24:
            row = [(f"aligner-{spec.activation_bits}", Aligner(spec.activation_bits))]
    if spec.weight is Operand.BIT_TERM:
        column = [("terms", TermDecoder())] * 4
    if spec.zero_point is ZeroPoint.ROW_SUM:
        row = [*row, ("row-sum", RowSum())]
    if spec.zero_point is ZeroPoint.EDGE:
        column = [*column, ("zero", ZeroSubtractor())]
    kinds = [Scaling.FLOAT] if spec.fp32 else list(Scaling)
    units = [(kind, ScalingUnit(spec, kind)) for kind in kinds] if grouped else []
    tasks = [
        partial(synthesize, "register", _Registers(False), library),
        partial(synthesize, "shadow", _Registers(True), library),
        *[partial(synthesize, name, circuit, library) for name, circuit in [*row, *column]],
        *[partial(synthesize, f"scaling-{kind.value}", unit, library) for kind, unit in units],
    ]
    areas = [result.area for result in synthesize_all(tasks, lambda steps: None)]
    register, shadow = areas[0] / 32, areas[1] / 32
    edges = areas[2:]
    return Charges(
        register=register,
        shadow_bit=shadow,
        row=sum(edges[: len(row)]),
        column=sum(edges[len(row) : len(row) + len(column)]),
        scaling=dict(
            zip([kind for kind, _ in units], edges[len(row) + len(column) :], strict=True)
        ),
    )
