"""The vector unit (SFU): function(A*B + C) over rows, with reductions."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.core.exchange import received_layout, result_layout, sent_layout
from hw.core.ports import operation_layout, unit_members
from hw.core.vector_lane import (
    ELEMENT_LATENCY,
    INTEGER_LATENCY,
    NO_ADDEND,
    NO_FACTOR,
    VectorLane,
)
from hw.core.vector_operand import VectorOperand, operand_ports
from hw.core.vector_reduce import (
    INDEX_BITS,
    KEY_BITS,
    VectorMaximum,
    VectorSum,
    float_key,
    key_float,
)
from hw.core.vector_walk import VectorWalk, beat_layout
from hw.core.vector_write import VectorWrite, vector_write_ports
from hw.sharing import repeated
from hw.spec.floating import FLOAT_MULTIPLY_LATENCY, FROM_INTEGER_LATENCY
from hw.spec.functions import Function
from hw.spec.instructions import Reduce, Source, Target, Unit
from hw.spec.latency import VECTOR_READ_CYCLES, vector_latency, vector_tree_cycles
from hw.spec.machine import MachineSpec

__all__ = ["VectorUnit"]

OPERANDS = ("a", "b", "c")


def exchange_members(spec: MachineSpec) -> dict[str, wiring.Member]:
    """Members towards other cores; none if there is one core."""
    if spec.cores == 1:
        return {}
    return {
        "offer": Out(1),
        "go": In(1),
        "sent": Out(sent_layout(spec)),
        "received": In(received_layout(spec)),
        "sent_result": Out(result_layout()),
        "received_result": In(result_layout()),
    }


class VectorUnit(wiring.Component):
    """Executes SFU operations one after the other, each fully pipelined: one beat a cycle.

    An operation accepted in cycle s ends in cycle s + vector_latency(spec) + its beats, whatever it
    does (`hw.spec.latency.vector_cycles`); the next one is accepted in the cycle after that.
    `docs/isa.md` has the meaning of the fields.

    Parameters
    ----------
    spec : MachineSpec
        Lanes and buffer depths.

    Members
    -------
    i : In(stream.Signature(operation_layout(Unit.SFU)))
        Operations, operands evaluated.
    done, checksum, illegal : Out
        See `unit_members`.
    best_index : Out(INDEX_BITS)
        Index of the largest element that ARGMAX has seen.
    best_key : Out(KEY_BITS)
        Its rank.
    offer, go, sent, received
        With several cores: see `hw.core.exchange.Exchange`.
    sent_result, received_result
        With several cores: see `hw.core.exchange.RowResults`.
    a_input, a_vector, a_result, a_scalar, b_..., c_... : Out(read_port(...))
        Buffers, read for each operand.
    vector, scalar, activation, store, matrix_scale : Out(write_port(...))
        Buffers, written.
    """

    i: stream.Interface
    done: Value
    checksum: Value
    illegal: Value
    best_index: Value
    best_key: Value
    # With several cores.
    offer: Value
    go: Value
    sent: data.View
    received: data.View
    sent_result: data.View
    received_result: data.View

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        reads = {
            f"{operand}_{buffer}": Out(port)
            for operand in OPERANDS
            for buffer, port in operand_ports(spec).items()
        }
        writes = {name: Out(port) for name, port in vector_write_ports(spec).items()}
        super().__init__({
            "i": In(stream.Signature(operation_layout(Unit.SFU))),
            **unit_members(Unit.SFU),
            "best_index": Out(INDEX_BITS),
            "best_key": Out(KEY_BITS),
            **exchange_members(spec),
            **reads,
            **writes,
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        new = self.i.payload
        operation = Signal(operation_layout(Unit.SFU), reset_less=True)
        busy = Signal()
        accept = Signal()
        start = Signal()
        illegal = self._illegal(m, new)
        held = Signal()
        if self.spec.cores > 1:
            # An exchange begins in all cores at once.
            exchanges = new.exchange & ~new.sync
            m.d.comb += [
                self.offer.eq(self.i.valid & ~busy & exchanges),
                held.eq(exchanges & ~self.go),
            ]
        m.d.comb += [
            self.i.ready.eq(~busy & ~held),
            accept.eq(self.i.valid & self.i.ready),
            start.eq(accept & ~new.sync & ~illegal),
        ]
        m.d.sync += self.illegal.eq(accept & ~new.sync & illegal)
        with m.If(accept):
            m.d.sync += [operation.eq(new), busy.eq(new.sync | ~illegal)]
        with m.Elif(self.done):
            m.d.sync += busy.eq(0)

        beats = self._beats(m, start, new, operation)
        # `beats[n]` is the beat whose address went out n cycles ago.
        final = self._after_exchange(m, operation, beats[-1].final)
        m.d.sync += self.done.eq((accept & new.sync) | final)
        elements, integers, fixed = self._lanes(m, platform, start, new, operation, beats)
        result_valid, result = self._reductions(m, start, new, operation, beats, elements, fixed)

        m.submodules.write = write = VectorWrite(self.spec)
        m.d.comb += [
            write.start.eq(accept),
            write.base.eq(new.d),
            write.entry.eq(new.reduce_entry),
            # D of an ARGMAX is an index, so nothing is written.
            write.target.eq(Mux(operation.reduce == Reduce.ARGMAX, Target.NONE, operation.target)),
            write.pitch.eq(operation.d_pitch),
            write.element.eq(beats[VECTOR_READ_CYCLES + ELEMENT_LATENCY]),
            write.elements.eq(elements),
            write.integer.eq(beats[VECTOR_READ_CYCLES + INTEGER_LATENCY]),
            write.integers.eq(integers),
            write.result_valid.eq(result_valid),
            write.result.eq(result),
            self.checksum.eq(write.checksum),
        ]
        if self.spec.cores > 1:
            m.d.comb += [
                write.exchange.eq(operation.exchange & ~operation.reduce.any()),
                write.exchange_pitch.eq(operation.exchange_pitch),
                write.received.eq(self.received),
                self.sent.eq(write.sent),
            ]
        for name in vector_write_ports(self.spec):
            connect(m, flipped(getattr(self, name)), getattr(write, name))
        return m

    def _after_exchange(self, m: Module, operation: data.View, final: Value) -> Value:
        """The end of an instruction, later by what an exchange takes beyond its beats."""
        latency = self.spec.exchange_latency
        later = latency + self.spec.cores - 1
        left = Signal(range(later + 1))
        with m.If(final & operation.exchange):
            m.d.sync += left.eq(Mux(operation.reduce.any(), latency, later))
        with m.Elif(left.any()):
            m.d.sync += left.eq(left - 1)
        return Mux(operation.exchange, left == 1, final)

    def _illegal(self, m: Module, new: data.View) -> Signal:
        """Whether the fields of an EXECUTE do not go together."""
        illegal = Signal()
        reduces = Signal()
        m.d.comb += [
            # Reduce NONE is 0.
            reduces.eq(new.reduce.any() & (new.reduce != Reduce.ARGMAX)),
            illegal.eq(
                ~new.rows.any()
                | ~new.length.any()
                # Source NONE is 0.
                | ~new.a_source.any()
                | (new.a_source > Source.SCALAR)
                | (new.b_source > Source.CONSTANT)
                | (new.c_source > Source.CONSTANT)
                | (new.reduce > Reduce.ARGMAX)
                | (new.target > Target.MATRIX_SCALE)
                | ((new.reduce == Reduce.ARGMAX) & (new.rows != 1))
                | ((new.target == Target.SCALAR) & reduces)
                | (
                    new.exchange
                    & Mux(
                        new.reduce.any(),
                        new.reduce == Reduce.ARGMAX,
                        (new.target != Target.VECTOR) & (new.target != Target.ACTIVATION),
                    )
                )
                | (new.function > Function.RELU.value)
            ),
        ]
        return illegal

    def _beats(
        self,
        m: Module,
        start: Signal,
        new: data.View,
        operation: data.View,
    ) -> list[data.View]:
        """The beats of the last cycles: as many as an operation takes beyond its beats."""
        m.submodules.walk = walk = VectorWalk(self.spec)
        m.d.comb += [
            walk.start.eq(start),
            walk.rows.eq(Mux(start, new.rows, operation.rows)),
            walk.length.eq(Mux(start, new.length, operation.length)),
            walk.causal.eq(Mux(start, new.causal, operation.causal)),
            walk.slow.eq(operation.exchange & ~operation.reduce.any()),
        ]
        beats = [walk.o]
        for age in range(1, vector_latency(self.spec)):
            beat = Signal(beat_layout(self.spec), name=f"beat_{age}")
            m.d.sync += beat.eq(beats[-1])
            beats.append(beat)
        return beats

    def _lanes(
        self,
        m: Module,
        platform: object,
        start: Signal,
        new: data.View,
        operation: data.View,
        beats: list[data.View],
    ) -> tuple[Value, Value, Value]:
        """Operands and arithmetic; returns elements, integers and fixed-point forms of all lanes."""
        operands: dict[str, Value] = {}
        for name in OPERANDS:
            neutral = {"a": 0, "b": NO_FACTOR, "c": NO_ADDEND}[name]
            m.submodules[name] = operand = VectorOperand(self.spec, neutral)
            # C is read as much later as the sum comes after the product.
            beat = beats[FLOAT_MULTIPLY_LATENCY if name == "c" else 0]
            m.d.comb += [
                operand.start.eq(start),
                operand.base.eq(new[name]),
                operand.source.eq(operation[f"{name}_source"]),
                operand.pitch.eq(operation[f"{name}_pitch"]),
                operand.constant.eq(0 if name == "a" else operation[f"{name}_constant"]),
                operand.valid.eq(beat.valid),
                operand.last.eq(beat.last),
            ]
            for buffer in operand_ports(self.spec):
                connect(m, flipped(getattr(self, f"{name}_{buffer}")), getattr(operand, buffer))
            operands[name] = operand.o
        lanes: list[VectorLane] = []
        for index in range(self.spec.lanes):
            lane = VectorLane()
            m.submodules[f"lane_{index}"] = repeated(
                lane, platform, self.spec.cores * self.spec.lanes
            )
            m.d.comb += [
                *(getattr(lane, n).eq(o.word_select(index, 32)) for n, o in operands.items()),
                Value.cast(lane.operation).eq(operation.function),
            ]
            lanes.append(lane)
        elements, integers, fixed = (
            Cat(getattr(lane, form) for lane in lanes) for form in ("element", "rounded", "fixed")
        )
        return elements, integers, fixed

    def _reductions(
        self,
        m: Module,
        start: Signal,
        new: data.View,
        operation: data.View,
        beats: list[data.View],
        elements: Value,
        fixed: Value,
    ) -> tuple[Value, Value]:
        """Largest element, sum and ARGMAX; returns the result of each row as it is ready."""
        tree = vector_tree_cycles(self.spec)
        m.submodules.maximum = maximum = VectorMaximum(self.spec)
        m.submodules.sum = total = VectorSum(self.spec)
        element_age = VECTOR_READ_CYCLES + ELEMENT_LATENCY
        fixed_age = VECTOR_READ_CYCLES + INTEGER_LATENCY
        maximum_last = beats[element_age + tree + 1].last
        total_last = beats[fixed_age + tree + 1].last
        sum_last = beats[fixed_age + tree + 1 + FROM_INTEGER_LATENCY].last
        m.d.comb += [
            maximum.elements.eq(elements),
            maximum.mask.eq(beats[element_age].mask),
            maximum.magnitude.eq(operation.reduce == Reduce.MAGNITUDE),
            maximum.valid.eq(beats[element_age + tree].valid),
            maximum.first.eq(beats[element_age + tree].first),
            maximum.forget.eq(start & (new.reduce == Reduce.ARGMAX) & new.restart),
            maximum.start.eq(start),
            maximum.base.eq(new.d),
            maximum.keep.eq(operation.reduce == Reduce.ARGMAX),
            self.best_index.eq(maximum.best_index),
            self.best_key.eq(maximum.best_key),
            total.fixed.eq(fixed),
            total.mask.eq(beats[fixed_age].mask),
            total.valid.eq(beats[fixed_age + tree].valid),
            total.first.eq(beats[fixed_age + tree].first),
        ]
        result_valid = Signal()
        result = Signal(32)
        with m.Switch(operation.reduce):
            with m.Case(Reduce.SUM):
                m.d.comb += [result_valid.eq(sum_last), result.eq(total.o)]
            with m.Case(Reduce.MAXIMUM, Reduce.MAGNITUDE):
                m.d.comb += [result_valid.eq(maximum_last), result.eq(maximum.o)]
            with m.Default():
                m.d.comb += [result_valid.eq(0), result.eq(0)]
        if self.spec.cores > 1:
            is_sum = operation.reduce == Reduce.SUM
            sent, shared = self.sent_result, self.received_result
            m.d.comb += [
                sent.is_sum.eq(is_sum),
                sent.valid.eq(
                    operation.exchange
                    & operation.reduce.any()
                    & Mux(is_sum, total_last, maximum_last)
                ),
                sent.value.eq(Mux(is_sum, total.total, float_key(maximum.o))),
                total.is_shared.eq(operation.exchange),
                total.shared.eq(shared.value),
            ]
            # Elements that are exchanged are not reduced, and ARGMAX is not exchanged.
            ready: Value = shared.valid & shared.is_sum
            for age in range(FROM_INTEGER_LATENCY):
                after = Signal(name=f"shared_sum_{age}")
                m.d.sync += after.eq(ready)
                ready = after
            with m.If(operation.exchange):
                m.d.comb += [
                    result_valid.eq(Mux(is_sum, ready, shared.valid)),
                    result.eq(Mux(is_sum, total.o, key_float(shared.value[:KEY_BITS]))),
                ]
        return result_valid, result
