"""The matrix engine: dot products of streamed integer weights with the activation buffer."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import exact_log2

from hw.core.matrix_activations import MatrixActivations, MatrixWindow
from hw.core.matrix_drain import MatrixDrain
from hw.core.matrix_mode import select_by
from hw.core.matrix_row import GROUP_SUM_BITS, MatrixRow
from hw.core.matrix_scaler import MatrixScaler, scaler_control_layout
from hw.core.matrix_sequence import MatrixSequence, step_layout
from hw.core.matrix_skew import MatrixSkew
from hw.core.matrix_wires import MatrixWires, check_wires
from hw.core.ports import operation_layout, read_port, unit_members, write_port
from hw.floating_values import named
from hw.sharing import repeated
from hw.spec.cascade import row_kinds, rows_together
from hw.spec.floating import FP32
from hw.spec.instructions import Unit
from hw.spec.latency import matrix_element_cycles
from hw.spec.machine import MachineSpec
from hw.spec.wires import Wires

__all__ = ["STREAM_PAIR", "MatrixEngine"]

STREAM_PAIR = 8
"""The `stream_alignment`, in quarters of a word, of machines whose steps always begin with even words."""

# Stages of a step, in cycles behind the address of its weights.
ALIGN = 1
LOAD = 2
MULTIPLY = 3
ADD = 4
GATHER = 5
SCALE = 6
PLACE = 7
ACCUMULATE = 8


class MatrixEngine(wiring.Component):
    """Computes blocks of `matrix_rows` outputs, a step of all rows a cycle, while the last pass drains.

    Accepts one instruction at a time; `docs/isa.md` states what it computes and when it ends. Stages
    of a step, by cycles after its address: 1 memories, 2 alignment of the words, 3 expansion of the weights and
    choice of their activations, 4 products, 5 adder tree, 6 group sum, 7 scale, 8 place, 9 accumulate; the last
    three take `rows_per_scaler` cycles, then the sums are handed over to the drain. From products to their sum a cascade
    of DSP slices takes `hw.spec.latency.matrix_element_cycles` more, its own length. The metadata of a sparse step
    are a cycle ahead of its weights, so that its rows know in time what they choose.

    Parameters
    ----------
    spec : MachineSpec
        The machine.
    vendor : bool
        DSP slices are primitives, for vendor tools, and not their behaviour.
    wires : Wires or None
        Weights of the machine's hardwired matrices.

    Members
    -------
    i : In(stream.Signature(operation_layout(Unit.MPE)))
        Instructions.
    done, checksum, illegal : Out
        See `hw.core.ports.unit_members`. An instruction of which only the steps show that it is
        illegal (a group that does not fit) is reported before it wrote anything.
    stream : Out(read_port)
        Stream ring: two consecutive words, the first in the low half. Addresses count words; pairs of words if
        the machine's `stream_alignment` is `STREAM_PAIR`.
    scales : Out(read_port)
        Scale ring.
    activations : Out(read_port), an array of `matrix_columns`
        Activation buffer, in memory rows of `activation_row_bytes`.
    output_scales : Out(read_port)
        Matrix scale file.
    results : Out(write_port)
        Result buffer, an enable bit for every `drain_lanes` elements.
    """

    i: stream.Interface
    done: Value
    checksum: Value
    illegal: Value
    # Buffer ports; pyright knows no members of interfaces.
    stream: Any
    scales: Any
    activations: list[Any]
    output_scales: Any
    results: Any

    def __init__(
        self, spec: MachineSpec, *, vendor: bool = False, wires: Wires | None = None
    ) -> None:
        self.spec = spec
        self.vendor = vendor
        self.wires = check_wires(spec, wires) if spec.wired_bits else None
        word_bits = 8 * spec.word_bytes
        row = spec.activation_row_bytes
        activation_depth = spec.activation_rows * spec.lanes // row
        words = 2 if spec.stream_alignment == STREAM_PAIR else 1
        super().__init__({
            "i": In(stream.Signature(operation_layout(Unit.MPE))),
            **unit_members(Unit.MPE),
            "stream": Out(read_port(spec.stream_words // words, 2 * word_bits)),
            "scales": Out(read_port(spec.scale_words, word_bits)),
            "activations": Out(read_port(activation_depth, 8 * row)).array(spec.matrix_columns),
            "output_scales": Out(read_port(spec.matrix_scales, FP32.width)),
            "results": Out(
                write_port(spec.result_rows, FP32.width * spec.lanes, FP32.width * spec.drain_lanes)
            ),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        m.submodules.sequence = sequence = MatrixSequence(spec)
        m.submodules.drain = drain = MatrixDrain(spec)
        operation = sequence.operation
        connect(m, flipped(self.i), sequence.i)
        connect(m, flipped(self.results), drain.results)
        connect(m, flipped(self.output_scales), drain.scales)
        m.d.comb += [
            self.illegal.eq(sequence.illegal),
            self.done.eq(sequence.done),
            self.checksum.eq(Mux(operation.sync, 0, drain.checksum)),
        ]

        # steps[n] is what happened n cycles ago.
        late = matrix_element_cycles(spec)
        accumulated = ACCUMULATE + late + spec.rows_per_scaler
        steps = [sequence.step]
        for age in range(1, accumulated + 1):
            later = Signal(step_layout(), name=f"step_{age}")
            m.d.sync += later.eq(steps[-1])
            steps.append(later)

        # A scale word stays on its port until all rows have had theirs.
        scaled = steps[GATHER + late - 2 + spec.rows_per_scaler]
        self._read_scales(m, sequence, scaled)
        group_sums = self._rows(m, platform, sequence, steps)
        scales: Value = self.scales.data
        if self.wires is not None:
            group_sums = [list(sums) for sums in group_sums]
            scales = self._wires(m, sequence, scaled, steps[GATHER + late], group_sums)
        self._scalers(m, platform, sequence, steps[late:], group_sums, scales, drain)
        m.d.comb += [
            sequence.drained.eq(drain.done),
            drain.start.eq(sequence.started),
            drain.result.eq(operation.result),
            drain.result_pitch.eq(operation.result_pitch),
            drain.scale.eq(operation.scale),
            drain.scale_pitch.eq(operation.scale_pitch),
            drain.single.eq(operation.vectors == 1),
            drain.write.eq(operation.last),
            drain.hand_over.eq(steps[accumulated].pass_last),
            drain.second.eq(steps[accumulated].second),
            drain.block_last.eq(steps[accumulated].block_last),
            drain.last.eq(steps[accumulated].last),
        ]
        return m

    def _read_scales(self, m: Module, sequence: MatrixSequence, step: data.View) -> None:
        """Read pointer of the scale ring; every pass of a block reads the same words.

        `step` is the one whose scales are not needed any more in the next cycle.
        """
        address = self.scales.address
        start, block, behind = Signal.like(address), Signal.like(address), Signal.like(address)
        m.d.comb += behind.eq(address + (step.group_last & sequence.operation.scaled))
        with m.If(sequence.restore):
            m.d.sync += address.eq(start)
        with m.Elif(sequence.started):
            m.d.sync += [start.eq(address), block.eq(address)]
        with m.Elif(step.pass_last & ~step.block_last):
            m.d.sync += address.eq(block)
        with m.Else():
            m.d.sync += address.eq(behind)
            with m.If(step.pass_last):
                m.d.sync += block.eq(behind)

    def _align(self, m: Module, sequence: MatrixSequence, steps: list[Any]) -> Value:
        """Words from the ring, shifted so that the step begins with bit 0; registered."""
        unit = self.spec.stream_alignment
        position = sequence.stream_position
        word_bits = 8 * self.spec.word_bytes
        offset_bits = exact_log2(max(4 // unit, 1))
        m.d.comb += self.stream.address.eq(position[offset_bits:])
        words = self.stream.data
        if offset_bits:
            offset = Signal(offset_bits, reset_less=True)
            m.d.sync += offset.eq(position[:offset_bits])
            shift = word_bits * unit // 4
            shifted = {index: words >> index * shift for index in range(1 << offset_bits)}
            words = select_by(
                m, "shifted", offset, {k: v[: len(words)] for k, v in shifted.items()}
            )
        aligned = Signal(len(self.stream.data), reset_less=True)
        with m.If(steps[ALIGN].valid | steps[ALIGN].metadata):
            m.d.sync += aligned.eq(words)
        return aligned

    def _select(
        self, m: Module, sequence: MatrixSequence, steps: list[Any]
    ) -> list[list[data.View]]:
        """What slots multiply, or choose from, by column and kind of rows."""
        operands = []
        for column in range(self.spec.matrix_columns):
            select = MatrixWindow(self.spec) if self.spec.sparse else MatrixActivations(self.spec)
            skew = MatrixSkew(self.spec)
            m.submodules[f"select_{column}"] = select
            m.submodules[f"skew_{column}"] = skew
            connect(m, flipped(self.activations[column]), select.memory)
            m.d.comb += [
                select.unit.eq(sequence.activation_units[column]),
                select.take.eq(steps[ALIGN].valid),
            ]
            if isinstance(select, MatrixWindow):
                m.d.comb += [
                    select.sparse.eq(sequence.mode.sparse),
                    select.windows.eq(sequence.mode.windows),
                    skew.i.eq(select.blocks),
                ]
            else:
                m.d.comb += [
                    select.wide.eq(sequence.mode.wide),
                    select.load.eq(steps[LOAD].valid),
                    skew.i.eq(select.slots),
                ]
            operands.append(skew.o)
        return operands

    def _rows(
        self, m: Module, platform: object, sequence: MatrixSequence, steps: list[Any]
    ) -> list[list[Value]]:
        """Group sums of all columns, by row."""
        aligned = self._align(m, sequence, steps)
        operands = self._select(m, sequence, steps)
        kinds = row_kinds(self.spec)
        late = steps[matrix_element_cycles(self.spec) :]
        group_sums: list[list[Value]] = []
        together = rows_together(self.spec)
        for first in range(0, self.spec.matrix_rows, together):
            logic_slots = self.spec.row_logic_slots(first)
            row = MatrixRow(self.spec, vendor=self.vendor, logic_slots=logic_slots)
            m.submodules[f"row_{first}"] = repeated(
                row, platform, self.spec.cores * self.spec.matrix_rows
            )
            group_sums += row.group_sums
            m.d.comb += [
                row.mode.eq(sequence.mode),
                row.control.choose.eq(steps[ALIGN].valid),
                row.control.load.eq(steps[LOAD].valid),
                row.control.multiply.eq(steps[MULTIPLY].valid),
                row.control.add.eq(late[ADD].valid),
                row.control.gather.eq(late[GATHER].valid),
                row.control.group_first.eq(late[GATHER].group_first),
            ]
            for index, weights in enumerate(row.weights, first):
                m.d.comb += [
                    weights[name].eq(aligned.word_select(index, len(weights[name])))
                    for name, _ in weights.shape()
                ]
            for column, own in enumerate(operands):
                m.d.comb += row.operands[column].eq(own[kinds.index(logic_slots)])
        return group_sums

    def _wires(
        self,
        m: Module,
        sequence: MatrixSequence,
        scaled: data.View,
        gathered: data.View,
        group_sums: list[list[Value]],
    ) -> Value:
        """Hardwired matrices: their sums take the place of group sums; returns the scales, theirs or the ring's."""
        m.submodules.wires = wires = MatrixWires(self.spec, self.wires)
        wired = sequence.wired
        m.d.comb += [
            wires.start.eq(sequence.started & wired),
            wires.number.eq(sequence.operation.steps),
            wires.activations.eq(self.activations[0].data),
            wires.take.eq(gathered.valid & wired),
            wires.next_scales.eq(scaled.group_last & wired),
        ]
        for row, sums in enumerate(group_sums):
            chosen = Signal(signed(GROUP_SUM_BITS), name=f"row_sum_{row}")
            m.d.comb += chosen.eq(Mux(wired, wires.sums[row], sums[0]))
            sums[0] = chosen
        return Mux(wired, wires.scales, self.scales.data)

    def _scalers(
        self,
        m: Module,
        platform: object,
        sequence: MatrixSequence,
        steps: list[Any],
        group_sums: list[list[Value]],
        scales: Value,
        drain: MatrixDrain,
    ) -> None:
        shared = self.spec.rows_per_scaler
        control = Signal(scaler_control_layout(self.spec))
        decode = steps[GATHER].group_last
        clear = steps[ACCUMULATE].clear
        if shared > 1:
            # A group has at least as many cycles as the scaler has rows, so turns of two groups never meet.
            turn = Signal(exact_log2(shared))
            decode = named(m, "decode", decode | (turn != 0))
            with m.If(decode):
                m.d.sync += turn.eq(turn + 1)
            m.d.comb += control.turn.eq(turn)
            kept = Signal(reset_less=True)
            clear = Mux(steps[ACCUMULATE].group_last, clear, kept)
            m.d.sync += kept.eq(clear)
        active = [decode]
        for name in ("scale", "place", "accumulate"):
            later = Signal(name=f"{name}_active")
            m.d.sync += later.eq(active[-1])
            active.append(later)
        m.d.comb += [
            control.decode.eq(active[0]),
            control.scale.eq(active[1]),
            control.first.eq(steps[SCALE].group_last),
            control.place.eq(active[2]),
            control.accumulate.eq(active[3]),
            control.clear.eq(clear),
        ]
        for begin in range(0, self.spec.matrix_rows, shared):
            scaler = MatrixScaler(self.spec)
            m.submodules[f"scaler_{begin}"] = repeated(
                scaler, platform, self.spec.cores * self.spec.matrix_rows
            )
            m.d.comb += [
                scaler.scaled.eq(sequence.mode.scaled),
                scaler.control.eq(control),
            ]
            for place in range(shared):
                index = begin + place
                m.d.comb += scaler.scales[place].eq(
                    scales.word_select(index, len(scaler.scales[place]))
                )
                m.d.comb += drain.sums[index].eq(scaler.sums[place])
                for column, group_sum in enumerate(group_sums[index]):
                    m.d.comb += scaler.group_sums[place][column].eq(group_sum)
