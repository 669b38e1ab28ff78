"""Control of what leaves the bottom of a systolic array, one cycle ahead of the first column."""

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.pe.array_layout import control_layout
from hw.pe.array_skew import delay_control
from hw.spec.systolic import SUM_CYCLES, SystolicSpec

__all__ = ["DrainControl"]


class DrainControl(wiring.Component):
    """Says when a sum is at the bottom, and to which entry and result it belongs.

    Output stationary, an accepted last beat becomes `rows` sums, that of the lowest row first. Weight
    stationary, every accepted beat becomes one. `o` is valid ``rows + SUM_CYCLES - 1`` cycles behind the
    beat, one cycle before the sum of the first column; each further column is one cycle later.

    Parameters
    ----------
    spec : SystolicSpec
        The array.

    Members
    -------
    i : In(control_layout(spec))
        Of an accepted beat. Output stationary, last beats only; `address` is that of the tile's first row.
    o : Out(control_layout(spec))
        Of a sum.
    start : Out(1)
        The first sum of a group.
    """

    i: data.View
    o: data.View
    start: Value

    def __init__(self, spec: SystolicSpec) -> None:
        self.spec = spec
        super().__init__({
            "i": In(control_layout(spec)),
            "o": Out(control_layout(spec)),
            "start": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        layout = control_layout(spec)
        late = delay_control(m, "control", self.i.as_value(), spec.rows + SUM_CYCLES - 1)
        arrived = layout(late)
        m.d.comb += self.start.eq(arrived.valid)
        if not spec.output_stationary:
            m.d.comb += self.o.eq(arrived)
            return m

        # At least one bit: Verilog has no empty vectors.
        left = Signal(range(max(spec.rows, 2)))
        row = Signal.like(left)
        held = Signal(layout)
        m.d.comb += [
            row.eq(Mux(arrived.valid, spec.rows - 1, left - 1)),
            self.o.eq(Mux(arrived.valid, arrived, held)),
            self.o.valid.eq(arrived.valid | left.any()),
            self.o.end.eq(~row.any()),
        ]
        if spec.dequantizes:
            m.d.comb += self.o.address.eq(Mux(arrived.valid, arrived.address, held.address) + row)
        m.d.sync += left.eq(Mux(self.o.valid, row, 0))
        with m.If(arrived.valid):
            m.d.sync += held.eq(arrived)
        return m
