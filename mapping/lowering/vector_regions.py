"""Operands of vector instructions by the name of their region: a row a token, or a row a head."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from hw.spec.functions import Function
from hw.spec.instructions import Source, Target, Unit
from mapping.lowering.assembler import Assembler, Count, Place, fixed, units
from mapping.lowering.levels import HEAD, Phase
from mapping.lowering.plan import Plan
from mapping.lowering.vector_program import Operand, VectorProgram, constant

INT8_MAXIMUM = 127.0
LOG2_E = math.log2(math.e)


class VectorRegions:
    """Writes vector instructions of one phase of a model.

    In decode there is one token, so that the rows of an instruction are free for heads; in prefill rows are tokens,
    and heads are rounds of a loop.
    """

    def __init__(self, plan: Plan, a: Assembler, phase: Phase) -> None:
        self.plan, self.a, self.phase = plan, a, phase
        self.segment = plan.segments[0]
        """The layers that are written."""
        self.program = VectorProgram(a)
        self.hidden = fixed(plan.hidden_outputs)
        self.head = fixed(plan.head)
        self.own_heads = fixed(plan.heads * plan.head)

    # A row a token.

    def input(self, name: str, pitch: int = 0) -> Operand:
        """Input buffer; `pitch` in words, like its regions."""
        rows = self.plan.spec.word_rows
        return Operand(Source.INPUT, Place(self.plan.input.taken[name][0] * rows), pitch * rows)

    def parameter(self, name: str) -> Operand:
        """A gain or bias in the input buffer, the same for every token."""
        group = self.plan.parameter_group[name]
        place = self.input(group.name).place + group.offsets[name] * self.plan.spec.word_rows
        return Operand(Source.INPUT, place)

    def waits(self, name: str) -> int:
        """LD, if this gain or bias is the first of its group that is read."""
        return units(Unit.LD) if self.plan.parameter_group[name].first == name else 0

    def signals(self, name: str) -> int:
        """LD, if this gain or bias is the last of its group that is read."""
        return units(Unit.LD) if self.plan.parameter_group[name].last == name else 0

    def bias(self, product: str) -> tuple[Operand | None, int, int]:
        """The bias of a matrix product, if it has one; what its first reader waits for, and its last one signals."""
        node = self.plan.graph.producers[product]
        if len(node.inputs) == 2:
            return None, 0, 0
        name = node.local(node.inputs[2])
        return self.parameter(name), self.waits(name), self.signals(name)

    def vector(self, name: str) -> Operand:
        """Vector buffer."""
        pitch = self.plan.vector_rows[name]
        return Operand(Source.VECTOR, Place(self.plan.vector.taken[name][0]), pitch)

    def result(self, name: str) -> Operand:
        """Result buffer."""
        pitch = self.plan.result_rows[name]
        return Operand(Source.RESULT, Place(self.plan.result_start(name)), pitch)

    def scalar(self, name: str, offset: int = 0) -> Operand:
        """Scalar file, an entry a row."""
        return Operand(Source.SCALAR, Place(self.entry(name) + offset), 1)

    def entry(self, name: str) -> int:
        """First entry of a region of the scalar file."""
        return self.plan.scalars.taken[name][0]

    def scale_out(self, name: str) -> Place:
        """Matrix scale file."""
        return Place(self.plan.matrix_scales.taken[name][0])

    def activation_out(self, name: str) -> Place:
        """Activation buffer."""
        return Place(self.plan.activation.taken[name][0])

    @property
    def all_cores(self) -> int | None:
        """For reductions of what each core has a part of."""
        return self.exchange(0)

    def exchange(self, pitch: int) -> int | None:
        """Pitch of the cores' parts of a vector that every core needs; nothing to exchange if there is one core."""
        return pitch if self.plan.cores > 1 else None

    def activate(self, value: Operand, length: Count, factor: Operand, activation: str, signal: int = 0) -> None:  # fmt: skip
        """INT8 activations of all cores in every core."""
        plan = self.plan
        part = {"norm": plan.hidden_part // plan.spec.lanes, "ffn": plan.ffn_part // plan.spec.lanes,
                "attention": plan.heads * plan.head_rows}[activation]  # fmt: skip
        self.program.apply(length, value, factor, rows=self.phase.rows, target=Target.ACTIVATION,
                           d=self.activation_out(activation), d_pitch=plan.activation_rows[activation],
                           exchange=self.exchange(part), signal=signal)  # fmt: skip

    def quantize(self, value: Operand, length: Count, activation: str, wait: int = 0, signal: int = 0,
                 known: bool = False) -> None:  # fmt: skip
        """INT8 activations with one scale a token; `known`: the largest magnitudes are in `a` already."""
        p, rows = self.program, self.phase.rows
        if not known:
            p.magnitude(length, value, rows=rows, to=self.entry("a"), exchange=self.all_cores, wait=wait)  # fmt: skip
        a, scale = self.scalar("a"), constant(1 / INT8_MAXIMUM)
        p.scalar(a, scale, function=Function.RECIPROCAL, to=self.entry("b"), rows=rows)
        p.apply(
            fixed(1),
            a,
            scale,
            rows=rows,
            target=Target.MATRIX_SCALE,
            d=self.scale_out("x"),
            d_pitch=1,
        )
        self.activate(value, length, self.scalar("b"), activation, signal)

    # A row a head, or a round of a loop.

    def await_products(self, count: int) -> None:
        """Wait for so many tokens of MPE."""
        if count > 1:
            with self.a.loop(fixed(count)):
                self.a.sync(wait=units(Unit.MPE))
        elif count:
            self.a.sync(wait=units(Unit.MPE))

    @contextmanager
    def each_head(
        self, count: int, wait: int = 0, signal: int = 0, each: bool = False
    ) -> Iterator[tuple[Count, int, int]]:
        """The body sees every head: yields the rows of its instructions, and what its first waits for and its last signals.

        `each`: heads that are rounds of a loop wait one by one.
        """
        if not self.phase.prefill:
            yield fixed(count), wait, signal
            return
        if wait and not each:
            self.a.sync(wait=wait)
        with self.a.loop(fixed(count)):
            yield self.phase.rows, wait if each else 0, 0
        if signal:
            self.a.sync(signal=signal)

    def of_head(self, operand: Operand, head_pitch: int, offset: int = 0) -> Operand:
        """What of a token's row belongs to a head; heads lie `head_pitch` apart."""
        if not self.phase.prefill:
            return Operand(operand.source, operand.place + offset, head_pitch)
        place = Place(operand.place.base + offset, {HEAD: head_pitch})
        return Operand(operand.source, place, operand.pitch)

    def rope(self, offset: int = 0) -> Operand:
        """The RoPE table's row of each token, the same for all heads."""
        operand = self.input("rope", self.plan.position_words)
        return Operand(
            operand.source, operand.place + offset, operand.pitch if self.phase.prefill else 0
        )
