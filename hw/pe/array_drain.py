"""Control of what leaves the bottom of a systolic array, one cycle ahead of the first column."""

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.pe.array_layout import control_layout
from hw.pe.array_skew import delay_control, is_number
from hw.spec.systolic import SystolicSpec
from hw.spec.systolic_parts import SUM_CYCLES

__all__ = ["DrainControl"]


class DrainControl(wiring.Component):
    """Says when a sum is at the bottom, and to which entry and result it belongs.

    Output stationary, an accepted last beat becomes `rows` sums, that of the lowest row first, and these again
    for each further column of a unit. Weight stationary, every accepted beat becomes one. `o` is valid ``rows + SUM_CYCLES - 1`` cycles behind the
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
    starts : Out(columns_per_unit)
        The first sum of a group, for each column of a unit.
    """

    i: data.View
    o: data.View
    starts: Value

    def __init__(self, spec: SystolicSpec) -> None:
        self.spec = spec
        super().__init__({
            "i": In(control_layout(spec)),
            "o": Out(control_layout(spec)),
            "starts": Out(spec.columns_per_unit),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        layout = control_layout(spec)
        late = delay_control(m, "control", self.i.as_value(), spec.rows + SUM_CYCLES - 1)
        arrived = layout(late)
        if not spec.output_stationary:
            m.d.comb += [self.o.eq(arrived), self.starts.eq(arrived.valid)]
            return m

        if spec.columns_per_unit > 1:
            self._columns(m, arrived)
            return m
        m.d.comb += self.starts.eq(arrived.valid)
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

    def _columns(self, m: Module, arrived: data.View) -> None:
        """Rows of one column of a unit behind those of the other."""
        spec = self.spec
        rows, columns = spec.rows, spec.columns_per_unit
        next_row = Signal(range(max(rows, 2)))
        next_column = Signal(range(columns))
        row = Signal.like(next_row)
        column = Signal.like(next_column)
        busy = Signal()
        held = Signal(control_layout(spec))
        now = Signal(control_layout(spec))
        lowest, last = is_number(row, 0), is_number(column, columns - 1)
        m.d.comb += [
            row.eq(Mux(arrived.valid, rows - 1, next_row)),
            column.eq(Mux(arrived.valid, 0, next_column)),
            now.eq(Mux(arrived.valid, arrived, held)),
            self.o.eq(now),
            self.o.valid.eq(arrived.valid | busy),
            self.o.end.eq(lowest & last),
            self.o.column.eq(column),
            self.o.address.eq(now.address + row),
        ]
        first = self.o.valid & is_number(row, rows - 1)
        m.d.comb += [self.starts[i].eq(first & is_number(column, i)) for i in range(columns)]
        m.d.sync += [
            busy.eq(self.o.valid & ~self.o.end),
            next_row.eq(Mux(lowest, rows - 1, row - 1)),
            next_column.eq(Mux(lowest, column + 1, column)),
        ]
        with m.If(arrived.valid):
            m.d.sync += held.eq(arrived)
