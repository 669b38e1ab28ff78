"""Scales that wait below a column, and FP16 scales as numbers."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In
from amaranth.utils import exact_log2

from hw.floating_values import delay, named
from hw.pe.array_layout import scale_layout, unit_scales_layout
from hw.spec.floating import FP32
from hw.spec.systolic import SystolicSpec
from hw.spec.systolic_parts import MANTISSA_BITS

__all__ = ["HALF_BIAS", "ScaleStore", "fp16_to_fp32", "scale_mantissa", "scale_shift"]

HALF_BIAS = 15
HALF_FRACTION_BITS = 10
HALF_EXPONENT_BITS = 5


def scale_mantissa(code: Value) -> Value:
    """Mantissa of an FP16 scale with its hidden bit, 11 bits."""
    return Cat(code[:HALF_FRACTION_BITS], code[HALF_FRACTION_BITS:-1].any())


def scale_shift(code: Value) -> Value:
    """Left shift of the mantissa, so that the scale is ``mantissa * 2**shift * 2**-24``."""
    exponent = code[HALF_FRACTION_BITS:-1]
    return Mux(exponent.any(), exponent - 1, 0)[:HALF_EXPONENT_BITS]


def fp16_to_fp32(m: Module, name: str, code: Value) -> Value:
    """An FP16 number as FP32, exact; an exponent of all ones is nothing special. Combinational."""
    fraction = code[:HALF_FRACTION_BITS]
    exponent = code[HALF_FRACTION_BITS:-1]
    # A subnormal number has its leading bit at some place of the fraction, and becomes normal.
    zeros = Signal(range(MANTISSA_BITS), name=f"{name}_zeros")
    normal = Signal(MANTISSA_BITS, name=f"{name}_normal")
    m.d.comb += normal.eq(fraction << 1)
    for place in range(HALF_FRACTION_BITS):
        with m.If(fraction[place]):
            leading = HALF_FRACTION_BITS - 1 - place
            m.d.comb += [zeros.eq(leading), normal.eq(fraction << (leading + 1))]
    subnormal = named(m, f"{name}_subnormal", ~exponent.any())
    offset = FP32.bias - HALF_BIAS
    wide = Signal(FP32.width - 1 - FP32.fraction_bits, name=f"{name}_exponent")
    m.d.comb += wide.eq(Mux(subnormal, offset - zeros, offset + exponent))
    kept = Mux(subnormal, normal[:HALF_FRACTION_BITS], fraction)
    zero = subnormal & ~fraction.any()
    padding = Const(0, FP32.fraction_bits - HALF_FRACTION_BITS)
    magnitude = Cat(padding, kept[:HALF_FRACTION_BITS], wide)
    return Cat(magnitude & ~zero.replicate(len(magnitude)), code[-1])


class ScaleStore(wiring.Component):
    """Scales of the groups that are under way in the columns of one unit, first in, first out.

    There is no flow control: `SystolicSpec.scale_entries` are enough. The stages of a unit read the entry
    of a group at different times; `read` gives the one of `cycles` stages behind the first.

    Parameters
    ----------
    spec : SystolicSpec
        The array.

    Members
    -------
    write : In(1)
        Take `i`.
    i : In(scales of each column of the unit)
        Scales of the next group.
    column : In
        Column of the sum in the unit's first stage, where columns share the unit.
    end : In(1)
        The sum in the unit's first stage is the last of its group.
    """

    write: Value
    i: data.View
    column: Value
    end: Value

    def __init__(self, spec: SystolicSpec) -> None:
        self.spec = spec
        layout = unit_scales_layout(spec)
        self.entries = Array(
            Signal(layout.size, name=f"entry_{i}", reset_less=True)
            for i in range(spec.scale_entries)
        )
        self.pointer = Signal(exact_log2(spec.scale_entries), name="read_pointer")
        members = {"write": In(1), "i": In(layout), "end": In(1)}
        if spec.columns_per_unit > 1:
            members["column"] = In(range(spec.columns_per_unit))
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # One bit an entry.
        place = Signal(len(self.entries), init=1, name="write_place")
        for entry, here in zip(self.entries, place, strict=True):
            with m.If(self.write & here):
                m.d.sync += entry.eq(self.i.as_value())
        with m.If(self.write):
            m.d.sync += place.eq(place.rotate_left(1))
        with m.If(self.end):
            m.d.sync += self.pointer.eq(self.pointer + 1)
        return m

    def read(self, m: Module, name: str, cycles: int) -> data.View:
        """Scales for the stage `cycles` behind the first; adds to the module of the unit."""
        pointer = delay(m, f"{name}_pointer", self.pointer, cycles)
        layout = scale_layout(self.spec)
        value = Signal(unsigned(layout.size), name=name)
        if self.spec.columns_per_unit == 1:
            m.d.comb += value.eq(self.entries[pointer])
        else:
            column = delay(m, f"{name}_column", self.column, cycles)
            entry = Signal(len(self.entries[0]), name=f"{name}_entry")
            columns = [entry.word_select(i, layout.size) for i in range(self.spec.columns_per_unit)]
            m.d.comb += [entry.eq(self.entries[pointer]), value.eq(Array(columns)[column])]
        return layout(value)
