"""The matrix engine: dot products of streamed integer weights with the activation buffer."""

from typing import Any

from amaranth.hdl import Elaboratable, Module, Mux, ResetInserter, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.core.matrix_activations import MatrixActivations
from hw.core.matrix_drain import MatrixDrain
from hw.core.matrix_row import PRODUCTS, MatrixRow
from hw.core.matrix_sequence import MatrixSequence, step_layout
from hw.core.ports import operation_layout, read_port, unit_members, write_port
from hw.spec.floating import FP32
from hw.spec.instructions import Unit
from hw.spec.machine import MachineSpec

__all__ = ["MatrixEngine"]

ACCUMULATED = 8
"""Cycles from the address of a step to accumulators that include it."""


class MatrixEngine(wiring.Component):
    """Computes blocks of `matrix_rows` outputs, a step of all rows a cycle, while the last block drains.

    Accepts one instruction at a time; `docs/isa.md` states what it computes and when it ends. Stages
    of a step, by cycles after its address: 1 memories, 2 products, 3 adder tree, 4 group sum,
    5 scale, 6 place, 7 accumulate, 8 (last step of a block) hand-over to the drain.

    Parameters
    ----------
    spec : MachineSpec
        The machine.

    Members
    -------
    i : In(stream.Signature(operation_layout(Unit.MPE)))
        Instructions.
    done, checksum, illegal : Out
        See `hw.core.ports.unit_members`. An instruction of which only the steps show that it is
        illegal (a group that does not fit) is reported before it wrote anything.
    restart : In(1)
        Back to the state after reset: ring pointers and accumulators too.
    stream : Out(read_port)
        Stream ring, addressed in steps of two words; the even word is the low half.
    scales : Out(read_port)
        Scale ring.
    activations : Out(read_port)
        Activation buffer, in memory rows of `granule` bytes.
    output_scales : Out(read_port)
        Matrix scale file.
    results : Out(write_port)
        Result buffer, an enable bit for every `drain_lanes` elements.
    """

    i: stream.Interface
    done: Value
    checksum: Value
    illegal: Value
    restart: Value
    # Buffer ports; pyright knows no members of interfaces.
    stream: Any
    scales: Any
    activations: Any
    output_scales: Any
    results: Any

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        word_bits = 8 * spec.word_bytes
        activation_depth = spec.activation_rows * spec.lanes // spec.granule
        super().__init__({
            "i": In(stream.Signature(operation_layout(Unit.MPE))),
            **unit_members(Unit.MPE),
            "restart": In(1),
            "stream": Out(
                read_port(spec.stream_words // spec.step_words, spec.step_words * word_bits)
            ),
            "scales": Out(read_port(spec.scale_words, word_bits)),
            "activations": Out(read_port(activation_depth, 8 * spec.granule)),
            "output_scales": Out(read_port(spec.matrix_scales, FP32.width)),
            "results": Out(
                write_port(spec.result_rows, FP32.width * spec.lanes, FP32.width * spec.drain_lanes)
            ),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.sequence = sequence = MatrixSequence(self.spec)
        m.submodules.select = select = MatrixActivations(self.spec)
        m.submodules.drain = drain = MatrixDrain(self.spec)
        operation = sequence.operation
        connect(m, flipped(self.i), sequence.i)
        connect(m, flipped(self.activations), select.memory)
        connect(m, flipped(self.results), drain.results)
        m.d.comb += [
            self.stream.address.eq(sequence.stream_step),
            self.output_scales.address.eq(operation.scale),
            self.illegal.eq(sequence.illegal),
            self.done.eq(sequence.done),
            self.checksum.eq(Mux(operation.sync, 0, drain.checksum)),
        ]

        # steps[n] is what happened n cycles ago.
        steps = [sequence.step]
        for age in range(1, ACCUMULATED + 1):
            later = Signal(step_layout(), name=f"step_{age}")
            m.d.sync += later.eq(steps[-1])
            steps.append(later)

        self._read_scales(m, sequence, steps[3])
        m.d.comb += [
            select.wide.eq(operation.wide),
            select.unit.eq(sequence.activation_unit),
            select.load.eq(steps[1].valid),
            sequence.drained.eq(drain.done),
            drain.start.eq(sequence.started),
            drain.result.eq(operation.result),
            drain.hand_over.eq(steps[ACCUMULATED].block_last),
            drain.last.eq(steps[ACCUMULATED].last),
            drain.write.eq(operation.last),
            drain.scale.eq(self.output_scales.data),
        ]
        for index in range(self.spec.matrix_rows):
            m.submodules[f"row_{index}"] = row = MatrixRow()
            m.d.comb += [
                row.wide.eq(operation.wide),
                row.scaled.eq(operation.scaled),
                row.weights.eq(self.stream.data.word_select(index, 8 * PRODUCTS)),
                row.scale.eq(self.scales.data.word_select(index, len(row.scale))),
                row.low.eq(select.low),
                row.high.eq(select.high),
                row.control.load.eq(steps[1].valid),
                row.control.multiply.eq(steps[2].valid),
                row.control.add.eq(steps[3].valid),
                row.control.gather.eq(steps[4].valid),
                row.control.group_first.eq(steps[4].group_first),
                row.control.group_last.eq(steps[4].group_last),
                row.control.scale.eq(steps[5].group_last),
                row.control.place.eq(steps[6].group_last),
                row.control.accumulate.eq(steps[7].group_last),
                row.control.clear.eq(steps[7].clear),
                drain.sums[index].eq(row.sum),
            ]
        return ResetInserter(self.restart)(m)

    def _read_scales(self, m: Module, sequence: MatrixSequence, step: data.View) -> None:
        """Read pointer of the scale ring; `step` is the one whose sum is formed in the next cycle."""
        start = Signal.like(self.scales.address)
        with m.If(sequence.started):
            m.d.sync += start.eq(self.scales.address)
        with m.If(step.group_last & sequence.operation.scaled):
            m.d.sync += self.scales.address.eq(self.scales.address + 1)
        with m.If(sequence.restore):
            m.d.sync += self.scales.address.eq(start)
