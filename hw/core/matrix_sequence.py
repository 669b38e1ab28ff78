"""Loops of a matrix engine instruction: blocks, steps, groups, and where each step reads."""

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.core.matrix_row import PRODUCTS
from hw.core.ports import operation_layout
from hw.spec.instructions import COUNT_BITS, Unit
from hw.spec.machine import MachineSpec

__all__ = ["MatrixSequence", "step_layout"]


def step_layout() -> data.StructLayout:
    """What happens in a cycle of the sequence, to be carried down the pipeline."""
    return data.StructLayout({
        # A step is read; it is the first, or the last, of its group.
        "valid": 1,
        "group_first": 1,
        "group_last": 1,
        # Its group is the first that the accumulators take, from zero.
        "clear": 1,
        # The block is over, steps and waiting; it is the last block of the instruction.
        "block_last": 1,
        "last": 1,
    })


class MatrixSequence(wiring.Component):
    """Accepts an instruction, counts it out, and waits for its end.

    An instruction accepted in cycle s has step k of block b in cycle s + 1 + b*period + k, where
    period = max(steps, drain_cycles).

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
    started : Out(1)
        First cycle of an instruction that computes something.
    step : Out(step_layout())
        What happens in this cycle.
    stream_step : Out
        Address in the stream ring of the step, in steps.
    activation_unit : Out
        Address in the activation buffer of the step, in units of 4 elements.
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
    started: Value
    step: data.View
    stream_step: Value
    activation_unit: Value
    done: Value
    restore: Value
    illegal: Value

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        layout = operation_layout(Unit.MPE)
        activation_units = spec.activation_rows * spec.lanes // PRODUCTS
        super().__init__({
            "i": In(stream.Signature(layout)),
            "drained": In(1),
            "operation": Out(layout),
            "started": Out(1),
            "step": Out(step_layout()),
            "stream_step": Out(exact_log2(spec.stream_words // spec.step_words)),
            "activation_unit": Out(exact_log2(activation_units)),
            "done": Out(1),
            "restore": Out(1),
            "illegal": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        operation = self.operation
        accept = Signal()
        busy = Signal()
        counting = Signal()
        m.d.comb += [self.i.ready.eq(~busy), accept.eq(self.i.valid & self.i.ready)]

        steps_left = Signal(COUNT_BITS, reset_less=True)
        cycles_left = Signal(COUNT_BITS, reset_less=True)
        blocks_left = Signal(COUNT_BITS, reset_less=True)
        period = Signal(COUNT_BITS, reset_less=True)
        block_last = Signal()
        m.d.comb += block_last.eq(counting & (cycles_left == 1))
        misfit = self._count_groups(m, accept, counting, steps_left, block_last)
        m.d.comb += [
            self.step.valid.eq(counting & (steps_left != 0)),
            self.step.block_last.eq(block_last & ~misfit),
            self.step.last.eq(blocks_left == 1),
        ]

        # Addresses; a ring's own pointer survives the instruction, or goes back to where it was.
        stream_start = Signal.like(self.stream_step)
        with m.If(self.step.valid):
            m.d.sync += [
                steps_left.eq(steps_left - 1),
                self.stream_step.eq(self.stream_step + 1),
                self.activation_unit.eq(self.activation_unit + Mux(operation.wide, 1, 2)),
            ]
        with m.If(counting):
            m.d.sync += cycles_left.eq(cycles_left - 1)
        with m.If(block_last):
            m.d.sync += [
                steps_left.eq(operation.steps),
                cycles_left.eq(period),
                blocks_left.eq(blocks_left - 1),
                self.activation_unit.eq(operation.activation),
            ]

        payload = self.i.payload
        longer = Mux(payload.steps > self.spec.drain_cycles, payload.steps, self.spec.drain_cycles)
        refused = self._refused(m, payload)
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
                steps_left.eq(payload.steps),
                period.eq(longer),
                cycles_left.eq(longer),
                blocks_left.eq(payload.blocks),
                self.activation_unit.eq(payload.activation),
                stream_start.eq(self.stream_step),
            ]
        with m.If(misfit | (block_last & self.step.last)):
            m.d.sync += counting.eq(0)
        with m.If(self.done | misfit):
            m.d.sync += busy.eq(0)
        with m.If(self.restore):
            m.d.sync += self.stream_step.eq(stream_start)
        return m

    def _count_groups(
        self, m: Module, accept: Value, counting: Value, steps_left: Value, block_last: Value
    ) -> Value:
        """Ends of groups; returns whether a block ends inside a group, which is illegal."""
        operation, payload = self.operation, self.i.payload
        group_left = Signal.like(operation.group_steps, reset_less=True)
        group_first = Signal(reset_less=True)
        clear = Signal(reset_less=True)
        step_last, group_end, group_last, misfit = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            step_last.eq(steps_left == 1),
            group_end.eq(group_left == 1),
            group_last.eq(Mux(operation.scaled, group_end, step_last)),
            misfit.eq(counting & step_last & operation.scaled & ~group_end),
            self.step.group_first.eq(group_first),
            self.step.group_last.eq(self.step.valid & group_last & ~misfit),
            self.step.clear.eq(clear),
        ]
        with m.If(self.step.valid):
            m.d.sync += [
                group_first.eq(group_last),
                group_left.eq(Mux(group_last, operation.group_steps, group_left - 1)),
            ]
            with m.If(group_last):
                m.d.sync += clear.eq(0)
        with m.If(block_last):
            m.d.sync += clear.eq(operation.first)
        with m.If(accept):
            m.d.sync += [
                group_left.eq(payload.group_steps),
                group_first.eq(1),
                clear.eq(payload.first),
            ]
        return misfit

    @staticmethod
    def _refused(m: Module, payload: data.View) -> Value:
        """Whether an instruction's fields alone make it illegal."""
        none = ~payload.blocks.any() | ~payload.steps.any()
        many = (payload.blocks != 1) & ~(payload.first & payload.last)
        no_group = payload.scaled & ~payload.group_steps.any()
        # Eight elements a step are read from one row of the activation buffer.
        unaligned = ~payload.wide & payload.activation[0]
        refused = Signal()
        m.d.comb += refused.eq(~payload.sync & (none | many | no_group | unaligned))
        return refused
