"""Loops of a matrix engine instruction: blocks, passes, steps, groups, and where each step reads."""

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.core.matrix_mode import UNIT_ELEMENTS, MatrixMode
from hw.core.ports import operation_layout
from hw.spec.instructions import COUNT_BITS, Unit
from hw.spec.latency import wired_lead_cycles
from hw.spec.machine import MachineSpec
from hw.spec.weight_format import WeightFormat

__all__ = ["MatrixSequence", "mode_layout", "step_layout"]


def step_layout() -> data.StructLayout:
    """What happens in a cycle of the sequence, to be carried down the pipeline."""
    return data.StructLayout({
        # The weights of a step are read; it is the first, or the last, of its group.
        "valid": 1,
        "group_first": 1,
        "group_last": 1,
        # The metadata of a sparse step are read; its weights follow.
        "metadata": 1,
        # The step's group is the first that the accumulators take, from zero.
        "clear": 1,
        # Of the columns, the second has a vector in this pass.
        "second": 1,
        # The pass is over; it is the last of its block, or of the instruction.
        "pass_last": 1,
        "block_last": 1,
        "last": 1,
    })


def mode_layout() -> data.StructLayout:
    """What the data path knows of the instruction under way; see `MatrixMode`."""
    return data.StructLayout({
        "format": len(WeightFormat).bit_length(),
        "quarters": 4,
        "wide": 1,
        "sparse": 1,
        "bitmap": 1,
        "windows": 3,
        "scaled": 1,
    })


class MatrixSequence(wiring.Component):
    """Accepts an instruction, counts it out, and waits for its end.

    An instruction accepted in cycle s has the last step of pass p, counted from 1 over all blocks, in cycle
    s + p*period, and its other steps in the cycles before, one every c, where c is 1, or 2 if sparse: then the metadata
    are read in the first and the weights in the second. period = max(steps*c, columns*drain_cycles),
    columns = min(matrix_columns, vectors). A hardwired product has a single step for each block, and a lead in which
    its activations are read, row by row from the first cycle on, and multiplied.

    Parameters
    ----------
    spec : MachineSpec
        The machine.

    Members
    -------
    i : In(stream.Signature(operation_layout(Unit.MPE)))
        Instructions; ready when none is under way.
    drained : In(1)
        The results of the instruction have been written.
    operation : Out(operation_layout(Unit.MPE))
        The instruction under way.
    mode : Out(mode_layout())
        Its format, decoded.
    wired : Out(1)
        It is a product with a hardwired matrix.
    started : Out(1)
        First cycle of an instruction that computes something.
    step : Out(step_layout())
        What happens in this cycle.
    stream_position : Out
        Where the step is in the stream ring, in units of `stream_alignment` quarters of a word.
    activation_units : Out, an array of `matrix_columns`
        Address in the activation buffer of the step of each column, in units of 4 elements.
    done : Out(1)
        The instruction ends.
    restore : Out(1)
        The instruction ends and wants its reading of the rings undone.
    illegal : Out(1)
        The instruction accepted last cannot be executed, and is no longer under way.
    """

    i: stream.Interface
    drained: Value
    operation: data.View
    mode: data.View
    wired: Value
    started: Value
    step: data.View
    stream_position: Value
    activation_units: list[Value]
    done: Value
    restore: Value
    illegal: Value

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        layout = operation_layout(Unit.MPE)
        activation_units = spec.activation_rows * spec.lanes // UNIT_ELEMENTS
        super().__init__({
            "i": In(stream.Signature(layout)),
            "drained": In(1),
            "operation": Out(layout),
            "mode": Out(mode_layout()),
            "wired": Out(1),
            "started": Out(1),
            "step": Out(step_layout()),
            "stream_position": Out(exact_log2(4 * spec.stream_words // spec.stream_alignment)),
            "activation_units": Out(exact_log2(activation_units)).array(spec.matrix_columns),
            "done": Out(1),
            "restore": Out(1),
            "illegal": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        operation, payload = self.operation, self.i.payload
        accept = Signal()
        busy = Signal()
        counting = Signal()
        m.d.comb += [self.i.ready.eq(~busy), accept.eq(self.i.valid & self.i.ready)]
        asked = MatrixMode.decode(m, payload, self.spec)
        mode = asked.registered(m, accept)
        for name in ("format", "quarters", "wide", "sparse", "bitmap", "windows"):
            m.d.comb += self.mode[name].eq(getattr(mode, name))
        m.d.comb += [
            self.mode.scaled.eq(operation.scaled),
            self.wired.eq(mode.wired),
        ]
        if self.spec.wired_matrices:
            # The scales of hardwired matrices are constants; those of the ring stay where they are.
            m.d.comb += self.mode.scaled.eq(operation.scaled | mode.wired)

        steps_left = Signal(COUNT_BITS, reset_less=True)
        over = self._count_cycles(m, asked, mode, accept, counting, steps_left)
        misfit = self._count_groups(m, accept, over)
        m.d.comb += self.step.pass_last.eq(over & ~misfit)
        self._count_passes(m, accept, over)
        self._walk_stream(m, mode, accept, over)
        self._walk_activations(m, mode, accept, over)

        refused = self._refused(m, payload, asked)
        sync_done = Signal()
        m.d.comb += [
            self.done.eq(sync_done | self.drained),
            self.restore.eq(self.drained & ~operation.pop),
        ]
        m.d.sync += [
            self.started.eq(accept & ~payload.sync & ~refused),
            sync_done.eq(accept & payload.sync),
            self.illegal.eq((accept & refused) | misfit),
        ]
        with m.If(accept):
            m.d.sync += [
                operation.eq(payload),
                busy.eq(~refused),
                counting.eq(~payload.sync & ~refused),
            ]
        with m.If(misfit | (over & self.step.last)):
            m.d.sync += counting.eq(0)
        with m.If(self.done | misfit):
            m.d.sync += busy.eq(0)
        return m

    def _count_cycles(
        self,
        m: Module,
        asked: MatrixMode,
        mode: MatrixMode,
        accept: Value,
        counting: Value,
        steps_left: Signal,
    ) -> Value:
        """Waits, then counts steps; returns whether this cycle is the last of a pass."""
        payload, spec = self.i.payload, self.spec
        drain = spec.drain_cycles
        cycles = Signal(COUNT_BITS + spec.sparse)
        asked_steps, own_steps = payload.steps, self.operation.steps
        if spec.wired_matrices:
            asked_steps = Mux(asked.wired, 1, asked_steps)
            own_steps = Mux(mode.wired, 1, own_steps)
        m.d.comb += cycles.eq(Mux(asked.sparse, payload.steps << 1, asked_steps))
        drained: Value | int = drain
        if spec.matrix_columns > 1:
            drained = Mux(payload.vectors == 1, drain, spec.matrix_columns * drain)
        pause = Signal(range(max(spec.matrix_columns * drain, 2)), reset_less=True)
        pause_left = Signal.like(pause, reset_less=True)
        paused = Signal()
        over = Signal()
        active = Signal()
        with_weights = Signal()
        pausing = counting & pause_left.any()
        leading = self._count_lead(m, asked, accept, counting) if spec.wired_matrices else None
        m.d.comb += [
            paused.eq(pause_left.any()),
            active.eq(counting & ~paused),
            with_weights.eq(1),
            self.step.valid.eq(active & with_weights),
            self.step.metadata.eq(active & ~with_weights),
            over.eq(self.step.valid & (steps_left == 1)),
        ]
        if leading is not None:
            m.d.comb += paused.eq(pause_left.any() | leading)
            pausing &= ~leading
        if spec.sparse:
            metadata_read = Signal()
            m.d.comb += with_weights.eq(~mode.sparse | metadata_read)
            m.d.sync += metadata_read.eq(self.step.metadata)
        with m.If(self.step.valid):
            m.d.sync += steps_left.eq(steps_left - 1)
        with m.If(pausing):
            m.d.sync += pause_left.eq(pause_left - 1)
        with m.If(over):
            m.d.sync += [steps_left.eq(own_steps), pause_left.eq(pause)]
        with m.If(accept):
            short = Mux(cycles < drained, drained - cycles, 0)
            m.d.sync += [steps_left.eq(asked_steps), pause.eq(short), pause_left.eq(short)]
        return over

    def _count_lead(self, m: Module, asked: MatrixMode, accept: Value, counting: Value) -> Value:
        """Whether a hardwired product is still in its lead."""
        spec = self.spec
        leads = [wired_lead_cycles(spec, matrix.inputs) for matrix in spec.wired_matrices]
        left = Signal(range(max(leads) + 1), reset_less=True)
        with m.If(counting & left.any()):
            m.d.sync += left.eq(left - 1)
        with m.If(accept):
            m.d.sync += left.eq(0)
            with m.If(asked.wired):
                with m.Switch(self.i.payload.steps):
                    for number, lead in enumerate(leads, 1):
                        with m.Case(number):
                            m.d.sync += left.eq(lead)
        return left.any()

    def _count_groups(self, m: Module, accept: Value, over: Value) -> Value:
        """Ends of groups; returns whether a block ends inside a group, which is illegal."""
        operation, payload = self.operation, self.i.payload
        group_left = Signal.like(operation.group_steps, reset_less=True)
        group_first = Signal(reset_less=True)
        clear = Signal(reset_less=True)
        group_end = Signal()
        group_last = Signal()
        misfit = Signal()
        m.d.comb += [
            group_end.eq(group_left == 1),
            group_last.eq(Mux(operation.scaled, group_end, over)),
            misfit.eq(over & operation.scaled & ~group_end),
            self.step.group_first.eq(group_first),
            self.step.group_last.eq(self.step.valid & group_last),
            self.step.clear.eq(clear),
        ]
        with m.If(self.step.valid):
            m.d.sync += [
                group_first.eq(group_last),
                group_left.eq(Mux(group_last, operation.group_steps, group_left - 1)),
            ]
            with m.If(group_last):
                m.d.sync += clear.eq(0)
        with m.If(over):
            m.d.sync += clear.eq(operation.first)
        with m.If(accept):
            m.d.sync += [
                group_left.eq(payload.group_steps),
                group_first.eq(1),
                clear.eq(payload.first),
            ]
        return misfit

    def _count_passes(self, m: Module, accept: Value, over: Value) -> None:
        """Vectors of a block, taken `matrix_columns` at a time, and blocks."""
        columns = self.spec.matrix_columns
        vectors_left = Signal(COUNT_BITS, reset_less=True)
        blocks_left = Signal(COUNT_BITS, reset_less=True)
        m.d.comb += [
            self.step.second.eq(vectors_left != 1),
            self.step.block_last.eq(vectors_left <= columns),
            self.step.last.eq(self.step.block_last & (blocks_left == 1)),
        ]
        with m.If(over):
            m.d.sync += vectors_left.eq(vectors_left - columns)
            with m.If(self.step.block_last):
                m.d.sync += [
                    vectors_left.eq(self.operation.vectors),
                    blocks_left.eq(blocks_left - 1),
                ]
        with m.If(accept):
            m.d.sync += [
                vectors_left.eq(self.i.payload.vectors),
                blocks_left.eq(self.i.payload.blocks),
            ]

    def _walk_stream(self, m: Module, mode: MatrixMode, accept: Value, over: Value) -> None:
        """Every pass of a block reads it from its beginning; the next block begins with a whole word."""
        position = self.stream_position
        start, block = Signal.like(position), Signal.like(position)
        moved, behind = Signal.like(position), Signal.like(position)
        units = max(4 // self.spec.stream_alignment, 1)
        m.d.comb += [
            moved.eq(position),
            # Up to the next whole word.
            behind.eq((moved + (units - 1)) & -units),
        ]
        with m.If(self.step.metadata):
            m.d.comb += moved.eq(position + mode.metadata_units)
        with m.If(self.step.valid):
            m.d.comb += moved.eq(position + mode.weight_units)
        m.d.sync += position.eq(moved)
        with m.If(over):
            m.d.sync += position.eq(Mux(self.step.block_last, behind, block))
            with m.If(self.step.block_last):
                m.d.sync += block.eq(behind)
        # The instruction's own pointer, in case that it does not pop.
        with m.If(accept):
            m.d.sync += [start.eq(position), block.eq(position)]
        with m.If(self.restore):
            m.d.sync += position.eq(start)

    def _walk_activations(self, m: Module, mode: MatrixMode, accept: Value, over: Value) -> None:
        """Every block begins again with the first vectors."""
        columns = self.spec.matrix_columns
        payload, operation = self.i.payload, self.operation
        for column, unit in enumerate(self.activation_units):
            vector = Signal.like(unit, name=f"vector_{column}", reset_less=True)
            begin = Signal.like(unit, name=f"begin_{column}")
            later = operation.activation_pitch << (columns - 1)
            first = operation.activation + column * operation.activation_pitch
            m.d.comb += begin.eq(Mux(self.step.block_last, first, vector + later))
            with m.If(self.step.valid):
                m.d.sync += unit.eq(unit + mode.span_units)
            if self.spec.wired_matrices:
                with m.If(mode.wired):
                    m.d.sync += unit.eq(unit + self.spec.activation_row_bytes // UNIT_ELEMENTS)
            with m.If(over):
                m.d.sync += [unit.eq(begin), vector.eq(begin)]
            with m.If(accept):
                first = payload.activation + column * payload.activation_pitch
                m.d.sync += [unit.eq(first), vector.eq(first)]

    def _refused(self, m: Module, payload: data.View, asked: MatrixMode) -> Value:
        """Whether an instruction's fields alone make it illegal."""
        spec = self.spec
        none = ~payload.blocks.any() | ~payload.steps.any() | ~payload.vectors.any()
        several = (payload.blocks != 1) | (payload.vectors > spec.matrix_columns)
        many = several & ~(payload.first & payload.last)
        # A scaler serves its rows one after the other.
        group_cycles = Mux(asked.sparse, payload.group_steps << 1, payload.group_steps)
        no_group = payload.scaled & (group_cycles < spec.rows_per_scaler)
        # What a step needs is read from one row of the activation buffer.
        unaligned = ((payload.activation | payload.activation_pitch) & asked.misaligned).any()
        wrong = ~asked.legal | none | many | no_group | unaligned
        refused = Signal()
        if spec.wired_matrices:
            wrong = Mux(asked.wired, self._refused_wires(m, payload), wrong)
        m.d.comb += refused.eq(~payload.sync & wrong)
        return refused

    def _refused_wires(self, m: Module, payload: data.View) -> Value:
        """The same for a hardwired product: one vector, all blocks of a matrix that there is."""
        spec = self.spec
        fits = Signal()
        with m.Switch(payload.steps):
            for number, matrix in enumerate(spec.wired_matrices, 1):
                with m.Case(number):
                    m.d.comb += fits.eq(payload.blocks == matrix.outputs // spec.matrix_rows)
            with m.Default():
                m.d.comb += fits.eq(0)
        units = spec.activation_row_bytes // UNIT_ELEMENTS - 1
        unaligned = ((payload.activation | payload.activation_pitch) & units).any()
        whole = payload.first & payload.last & (payload.vectors == 1)
        return ~(fits & whole) | payload.scaled | payload.pop | unaligned
