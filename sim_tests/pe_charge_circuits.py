"""Circuits that an array has beside its elements, as `hw.pe` generates them: registers, and parts of dequantization units."""

from enum import Enum

from amaranth.hdl import Array, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.floating import FloatAdd, FloatMultiply, IntegerToFloat
from hw.pe.dequantization_scale import fp16_to_fp32
from hw.spec.processing_element import ProcessingElementSpec, ZeroPoint

__all__ = [
    "CHOICE_BITS",
    "STORE_BITS",
    "STORE_ENTRIES",
    "Choice",
    "Output",
    "Registers",
    "Scaling",
    "ScalingUnit",
    "Store",
]

STORE_ENTRIES = 4
STORE_BITS = 24
"""Of the store of scales that is synthesized; others are as large for each of their bits."""
CHOICE_BITS = 32
"""Of the multiplexer that is synthesized, likewise."""


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


class Registers(wiring.Component):
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


class Store(wiring.Component):
    """Scales of the columns of one unit, as `hw.pe.dequantization_scale.ScaleStore` keeps and reads them."""

    i: Value
    place: Value
    entry: Value
    column: Value
    o: Value

    def __init__(self, columns: int) -> None:
        self.columns = columns
        super().__init__({
            "i": In(STORE_BITS * columns),
            "place": In(STORE_ENTRIES),
            "entry": In(range(STORE_ENTRIES)),
            "column": In(range(columns)),
            "o": Out(STORE_BITS),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        entries = [Signal.like(self.i, name=f"entry_{i}") for i in range(STORE_ENTRIES)]
        for entry, here in zip(entries, self.place, strict=True):
            with m.If(here):
                m.d.sync += entry.eq(self.i)
        chosen = Signal.like(self.i)
        m.d.comb += chosen.eq(Array(entries)[self.entry])
        own = Array(chosen.word_select(i, STORE_BITS) for i in range(self.columns))
        m.d.comb += self.o.eq(own[self.column])
        return m


class Choice(wiring.Component):
    """The sum of one of the columns of a unit."""

    i: Value
    column: Value
    o: Value

    def __init__(self, columns: int) -> None:
        self.columns = columns
        super().__init__({
            "i": In(CHOICE_BITS * columns),
            "column": In(range(columns)),
            "o": Out(CHOICE_BITS),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        sums = Array(self.i.word_select(i, CHOICE_BITS) for i in range(self.columns))
        m.d.comb += self.o.eq(sums[self.column])
        return m


class Output(wiring.Component):
    """What a unit does once an output: an integer sum becomes FP32 and is multiplied by a column's scale, any sum by a row's."""

    i: Value
    channel: Value
    token: Value
    o: Value

    def __init__(self, integer: bool) -> None:
        self.integer = integer
        super().__init__({
            "i": In(signed(32)),
            "channel": In(16),
            "token": In(32),
            "o": Out(32),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        value: Value = self.i
        if self.integer:
            m.submodules.convert = convert = IntegerToFloat(32)
            m.d.comb += convert.i.eq(self.i)
            value = convert.o
            m.submodules.by_channel = by_channel = FloatMultiply()
            scale = fp16_to_fp32(m, "channel", self.channel)
            m.d.comb += [by_channel.a.eq(value), by_channel.b.eq(scale)]
            value = by_channel.o
        m.submodules.by_token = by_token = FloatMultiply()
        m.d.comb += [by_token.a.eq(value), by_token.b.eq(self.token), self.o.eq(by_token.o)]
        return m
