"""A systolic array of processing elements, with a dequantization unit below each column or below several."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from hw.floating_values import delay, register
from hw.pe.array_cell import OutputStationaryCell, WeightStationaryCell
from hw.pe.array_drain import DrainControl
from hw.pe.array_gate import BeatGate, WeightGate
from hw.pe.array_layout import beat_layout, result_layout, scales_layout, weights_layout
from hw.pe.array_row_sum import output_stationary_row_sums, weight_stationary_row_sums
from hw.pe.array_skew import delay_control, delay_enabled, is_number, skew
from hw.pe.dequantization import DequantizationUnit
from hw.spec.floating import FLOAT_MULTIPLY_LATENCY
from hw.spec.processing_element import PRODUCT_LATENCY
from hw.spec.systolic import SystolicSpec
from hw.spec.systolic_parts import RESULT_BITS, SUM_CYCLES

__all__ = ["SystolicArray"]


class SystolicArray(wiring.Component):
    """Products of matrices with one scale for each group along K; see `hw.spec.systolic`.

    Output stationary, a beat of `i` has one index of K: the activations of all rows and the weights of all
    columns. Weight stationary, a beat of `i` has one row of X, and `weights` the rows of a tile of W, the
    lowest row of the array first. `scales` has a word for each group (os) or each tile of weights (ws),
    which is taken with its first beat of `i` or `weights`. `token_scales` has the FP32 scale of each row of
    outputs in the order of the outputs: of a tile, the lowest row first (os). Rows and columns that a
    matrix does not fill are given zeros, and their results are dropped by whoever takes them.

    Latency and throughput: one beat a cycle while nothing waits; a row of results is offered
    `spec.output_latency` cycles behind the beat that completed it (os: the last beat of the tile, for the
    lowest row; the other rows follow one a cycle). The array never stops inside; a beat that might overflow
    something is not accepted.

    Parameters
    ----------
    spec : SystolicSpec
        The array.

    Members
    -------
    i : In(stream.Signature(beat_layout(spec)))
        Beats.
    weights : In(stream.Signature(weights_layout(spec)))
        Weight stationary only: rows of weights.
    scales : In(stream.Signature(scales_layout(spec)))
        With dequantization only: scales and zero points.
    token_scales : In(stream.Signature(32))
        With dequantization only: FP32 scales of rows of outputs.
    o : Out(stream.Signature(result_layout(spec)))
        Rows of outputs: FP32, or sums without dequantization.
    """

    i: stream.Interface
    weights: stream.Interface
    scales: stream.Interface
    token_scales: stream.Interface
    o: stream.Interface

    def __init__(self, spec: SystolicSpec) -> None:
        self.spec = spec
        members = {
            "i": In(stream.Signature(beat_layout(spec))),
            "o": Out(stream.Signature(result_layout(spec))),
        }
        if not spec.output_stationary:
            members["weights"] = In(stream.Signature(weights_layout(spec)))
        if spec.dequantizes:
            members["scales"] = In(stream.Signature(scales_layout(spec)))
            members["token_scales"] = In(stream.Signature(32))
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        m.submodules.gate = gate = BeatGate(spec)
        beat = self.i.payload
        m.d.comb += [
            gate.valid.eq(self.i.valid),
            gate.first.eq(beat.first),
            gate.last.eq(beat.last),
            gate.close.eq(beat.close if spec.dequantizes else 1),
            gate.taken.eq(self.o.valid & self.o.ready),
            self.i.ready.eq(gate.ready),
        ]
        if spec.dequantizes:
            m.d.comb += gate.address.eq(beat.address)

        m.submodules.drain = drain = DrainControl(spec)
        event = beat.last if spec.output_stationary else 1
        m.d.comb += [drain.i.valid.eq(gate.accepted & event), drain.i.end.eq(beat.last)]
        if spec.dequantizes:
            for field in ("open", "close", "address"):
                m.d.comb += drain.i[field].eq(beat[field])

        if spec.output_stationary:
            sums, row_sum, scales_write = self._output_stationary(m, gate, drain.starts)
        else:
            sums, row_sum, scales_write = self._weight_stationary(m, gate)
        units = self._units(m, drain, sums, row_sum, scales_write)
        if spec.dequantizes:
            self._token_scales(m, gate, drain, units)
        self._results(m, units)
        return m

    def _output_stationary(
        self, m: Module, gate: BeatGate, starts: Value
    ) -> tuple[list[Value], Value | None, Value]:
        """The cells; bottom of each column, of the row sums, and when scales are taken."""
        spec = self.spec
        beat = self.i.payload
        accepted = gate.accepted
        begins = accepted & beat.first
        codes = list(beat.weights)
        if spec.dequantizes:
            m.d.comb += [gate.prepared.eq(self.scales.valid), self.scales.ready.eq(begins)]
            codes = self._without_zeros(m, codes, beat.first, begins)
        else:
            m.d.comb += gate.prepared.eq(1)

        activations = skew(m, "activation", list(beat.activations))
        clears = skew(m, "clear", [beat.first] * spec.rows)
        valids = [
            delay_control(m, f"valid_{row}", Value.cast(accepted), row) for row in range(spec.rows)
        ]
        # A sum is complete when the registers of product and sum have seen the last operands.
        last = delay_control(m, "last", accepted & beat.last, PRODUCT_LATENCY + 1)
        captures = [delay_control(m, f"capture_{row}", last, row) for row in range(spec.rows)]
        weights = skew(m, "weight", codes)
        shifts: list[Value] = []
        cells: list[list[OutputStationaryCell]] = []
        for row in range(spec.rows):
            cells.append([OutputStationaryCell(spec, row == 0) for _ in range(spec.columns)])
            for column, cell in enumerate(cells[row]):
                m.submodules[f"cell_{row}_{column}"] = cell
                if row == 0:
                    shifts.append(self._shift(m, starts, shifts, column))
                    m.d.comb += cell.weight.eq(weights[column])
                else:
                    above = cells[row - 1][column]
                    m.d.comb += [
                        cell.weight.eq(above.weight_o),
                        cell.above.eq(above.shadow),
                        cell.above_moves.eq(above.moves),
                        cell.shift.eq(shifts[column]),
                    ]
                entering = (activations[row], valids[row], clears[row], captures[row])
                if column:
                    left = cells[row][column - 1]
                    entering = (left.activation_o, left.valid_o, left.clear_o, left.capture_o)
                for port, value in zip(
                    (cell.activation, cell.valid, cell.clear, cell.capture), entering, strict=True
                ):
                    m.d.comb += port.eq(value)

        row_sum = None
        if spec.row_sums:
            first = [(row[0].activation_o, row[0].valid_o, row[0].clear_o) for row in cells]
            row_sum = output_stationary_row_sums(m, spec, first, captures, starts)
        return [cell.shadow for cell in cells[-1]], row_sum, begins

    def _shift(self, m: Module, starts: Value, shifts: list[Value], column: int) -> Value:
        """When a column begins to shift: as its unit's first column, or when the unit is done with the ones before."""
        shared = self.spec.columns_per_unit
        before = starts[column % shared] if column < shared else shifts[column - shared]
        return delay_control(m, f"start_{column}", before, 1 if column < shared else shared)

    def _weight_stationary(
        self, m: Module, gate: BeatGate
    ) -> tuple[list[Value], Value | None, Value]:
        """The cells; bottom of each column, of the row sums, and when scales are taken."""
        spec = self.spec
        beat = self.i.payload
        begins = gate.accepted & beat.first
        m.submodules.weight_gate = weight_gate = WeightGate(spec)
        taken = weight_gate.accepted & weight_gate.first
        m.d.comb += [
            weight_gate.valid.eq(self.weights.valid),
            weight_gate.prepared.eq(self.scales.valid),
            weight_gate.begins.eq(begins),
            self.weights.ready.eq(weight_gate.ready),
            self.scales.ready.eq(taken),
            gate.prepared.eq(weight_gate.loaded),
        ]
        codes = self._without_zeros(m, list(self.weights.payload), weight_gate.first, taken)
        weights = skew(m, "weight", codes)
        loads = [
            delay_control(m, f"load_{column}", Value.cast(weight_gate.accepted), column)
            for column in range(spec.columns)
        ]
        activations = skew(m, "activation", list(beat.activations))
        swaps = [delay_control(m, f"swap_{row}", begins, row) for row in range(spec.rows)]

        cells: list[list[WeightStationaryCell]] = []
        for row in range(spec.rows):
            cells.append([WeightStationaryCell(spec) for _ in range(spec.columns)])
            for column, cell in enumerate(cells[row]):
                m.submodules[f"cell_{row}_{column}"] = cell
                m.d.comb += cell.load.eq(loads[column])
                if row == 0:
                    m.d.comb += cell.weight.eq(weights[column])
                else:
                    above = cells[row - 1][column]
                    m.d.comb += [cell.weight.eq(above.weight_o), cell.above.eq(above.shadow)]
                left = cells[row][column - 1] if column else None
                m.d.comb += [
                    cell.activation.eq(left.activation_o if left else activations[row]),
                    cell.swap.eq(left.swap_o if left else swaps[row]),
                ]
        row_sum = None
        if spec.row_sums:
            first = [row[0].activation_o for row in cells]
            row_sum = weight_stationary_row_sums(m, spec, first)
        return [cell.shadow for cell in cells[-1]], row_sum, taken

    def _without_zeros(
        self, m: Module, codes: list[Value], first: Value, taken: Value
    ) -> list[Value]:
        """Weights less their zero points, where the edge of the array subtracts them."""
        spec = self.spec
        if not spec.edge_zeros:
            return codes
        result = []
        for column, code in enumerate(codes):
            now = self.scales.payload[column]["zero"]
            held = Signal.like(now, name=f"zero_{column}", reset_less=True)
            with m.If(taken):
                m.d.sync += held.eq(now)
            zero = Mux(first, now, held)
            weight, control = code[: spec.code_bits], code[spec.code_bits :]
            difference = (weight - zero)[: spec.processing_element.weight_bits]
            result.append(Cat(difference, control))
        return result

    def _units(
        self,
        m: Module,
        drain: DrainControl,
        sums: list[Value],
        row_sum: Value | None,
        scales_write: Value,
    ) -> list[DequantizationUnit]:
        """The units; control and row sums pass from one to the next."""
        spec = self.spec
        shared = spec.columns_per_unit
        control: Value = drain.o.as_value()
        units = []
        for number in range(spec.units):
            m.submodules[f"unit_{number}"] = unit = DequantizationUnit(spec)
            control = delay_control(m, f"control_{number}", control, shared if number else 1)
            own = range(number * shared, (number + 1) * shared)
            below = Array(sums[column] for column in own)
            m.d.comb += unit.control.eq(control)
            m.d.comb += unit.sum.eq(below[unit.control.column] if shared > 1 else sums[number])
            if row_sum is not None:
                row_sum = register(m, f"row_sum_at_{number}", row_sum)
                m.d.comb += unit.row_sum.eq(row_sum)
            if spec.dequantizes:
                scales = Cat(self.scales.payload[column].as_value() for column in own)
                m.d.comb += [unit.scales_write.eq(scales_write), unit.scales.eq(scales)]
            units.append(unit)
        return units

    def _token_scales(
        self, m: Module, gate: BeatGate, drain: DrainControl, units: list[DequantizationUnit]
    ) -> None:
        """Scales of rows: kept until their row reaches the last multiplier, then from unit to unit."""
        spec = self.spec
        m.submodules.token_buffer = buffer = SyncFIFOBuffered(width=32, depth=spec.token_scale_rows)
        closes = drain.o.valid & drain.o.close
        m.d.comb += [
            buffer.w_data.eq(self.token_scales.payload),
            buffer.w_en.eq(self.token_scales.valid),
            self.token_scales.ready.eq(buffer.w_rdy),
            gate.token.eq(self.token_scales.valid & buffer.w_rdy),
        ]
        cycles = spec.unit_latency - FLOAT_MULTIPLY_LATENCY
        used = delay_control(m, "closes", closes, cycles)
        scale: Value = buffer.r_data
        if spec.columns_per_unit > 1:
            # Those of a tile come round again for each further column of a unit.
            first = ~delay(m, "token_column", drain.o.column, cycles).any()
            scale = Signal(32, name="token_scale")
            kept = delay_enabled(m, "token_kept", scale, spec.rows, used)
            m.d.comb += scale.eq(Mux(first, buffer.r_data, kept))
            m.d.comb += buffer.r_en.eq(used & first)
        else:
            m.d.comb += buffer.r_en.eq(used)
        for number, unit in enumerate(units):
            scale = delay(m, f"token_scale_{number}", scale, spec.columns_per_unit if number else 1)
            m.d.comb += unit.token_scale.eq(scale)

    def _results(self, m: Module, units: list[DequantizationUnit]) -> None:
        """A buffer below each column, so that results leave row by row without registers to straighten them."""
        ready: Value = Const(1)
        shared = self.spec.columns_per_unit
        for column in range(self.spec.columns):
            m.submodules[f"results_{column}"] = buffer = SyncFIFOBuffered(
                width=RESULT_BITS, depth=self.spec.result_rows
            )
            ready = buffer.r_rdy
            unit = units[column // shared]
            own = is_number(unit.o_column, column % shared) if shared > 1 else 1
            m.d.comb += [
                buffer.w_data.eq(unit.o),
                buffer.w_en.eq(unit.o_valid & own),
                buffer.r_en.eq(self.o.valid & self.o.ready),
                self.o.payload[column].eq(buffer.r_data),
            ]
        # The last column is the last to have a row.
        m.d.comb += self.o.valid.eq(ready)


assert SUM_CYCLES == PRODUCT_LATENCY + 2, "the registers of a cell are part of the spec"
