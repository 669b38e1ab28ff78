"""SFU's instruction stream: everything between matrix products."""

import math

from hw.spec.functions import Function
from hw.spec.instructions import Condition, Reduce, Source, Target, Unit
from mapping.lowering.assembler import Assembler, Count, Place, fixed, tiled, units
from mapping.lowering.levels import HEAD_TILE, sequence_length
from mapping.lowering.plan import INPUT_CREDITS, Plan, Segment
from mapping.lowering.regions import Regions
from mapping.lowering.vector_program import Operand, VectorProgram, constant

_LD, _ST, _MPE, _SYS = units(Unit.LD), units(Unit.ST), units(Unit.MPE), units(Unit.SYS)
_INT8_MAXIMUM = 127.0


def lower_vector(plan: Plan) -> Assembler:
    """Instruction stream of SFU."""
    a = Assembler(Unit.SFU)
    lowering = _Lowering(plan, a)
    a.sync(signal=_SYS)
    for _ in range(INPUT_CREDITS):
        a.sync(signal=_LD)
    with a.token_loop():
        lowering.embedding()
        for segment in plan.segments:
            with a.loop(fixed(segment.layers)):
                lowering.layer(segment)
        with a.unless(Condition.PREFILL):
            lowering.output_head()
        a.sync(signal=_SYS)
    return a


class _Lowering:
    def __init__(self, plan: Plan, a: Assembler) -> None:
        self.plan, self.a = plan, a
        self.program = VectorProgram(a)
        config = plan.config
        self.hidden = fixed(config.hidden_size)
        self.head = fixed(plan.head)
        self.all_heads = fixed(plan.cores * plan.heads * plan.head)

    # Operands by region name.

    def _buffer(
        self, source: Source, regions: Regions, name: str, offset: int = 0, pitch: int = 0
    ) -> Operand:
        return Operand(source, Place(regions.taken[name][0] + offset), pitch)

    def _input(self, name: str, offset: int = 0, pitch: int = 0) -> Operand:
        """Rows of the input buffer, whose regions are in words."""
        start = self.plan.input.taken[name][0] * self.plan.spec.word_rows
        return Operand(Source.INPUT, Place(start + offset), pitch)

    def _vector(self, name: str, offset: int = 0, pitch: int = 0) -> Operand:
        return self._buffer(Source.VECTOR, self.plan.vector, name, offset, pitch)

    def _result(self, name: str, offset: int = 0, pitch: int = 0) -> Operand:
        return self._buffer(Source.RESULT, self.plan.result, name, offset, pitch)

    def _scalar(self, name: str, offset: int = 0, pitch: int = 0) -> Operand:
        return self._buffer(Source.SCALAR, self.plan.scalars, name, offset, pitch)

    def _entry(self, name: str, offset: int = 0) -> int:
        return self.plan.scalars.taken[name][0] + offset

    def _scale_out(self, name: str, offset: int = 0) -> Place:
        return Place(self.plan.matrix_scales.taken[name][0] + offset)

    def _activation_out(self, name: str) -> Place:
        return Place(self.plan.activation.taken[name][0])

    def _exchange(self, pitch: int) -> int | None:
        """Pitch of the cores' parts of a vector that every core needs; nothing to exchange if there is one core."""
        return pitch if self.plan.cores > 1 else None

    # Parts of a layer.

    def embedding(self) -> None:
        """x = embedding row; its largest magnitude for the first norm."""
        self.program.apply(self.hidden, self._input("embedding"), target=Target.VECTOR, d=self._vector("x").place,
                           reduce=Reduce.MAGNITUDE, entry=self._entry("amax"), wait=_LD, signal=_LD)  # fmt: skip

    def layer(self, segment: Segment) -> None:
        """One transformer layer."""
        del segment  # every layer's vector work is the same
        self._norm("input_layernorm")
        self._key()
        self._value()
        self._query()
        self._softmax()
        self._attention()
        self._residual("o")
        self._norm("post_attention_layernorm")
        self._silu()
        self._residual("down")

    def output_head(self) -> None:
        """Final norm, then ARGMAX over the tiles of the logits."""
        plan = self.plan
        self._norm("norm")
        head = plan.head_matrix
        rows = plan.spec.block_rows
        tile = head.tile_blocks * plan.spec.matrix_rows
        length = tiled(plan.vocabulary_part, tile, HEAD_TILE)
        logits = plan.result.taken["logits"][0]
        stride = {HEAD_TILE: head.tile_blocks * rows}

        def argmax(level_length: Count, at: Place, index: Place, restart: int) -> None:
            self.program.apply(level_length, Operand(Source.RESULT, at), d=index, reduce=Reduce.ARGMAX,
                               restart=restart, wait=_MPE)  # fmt: skip

        # The first tile forgets the maximum of the token before.
        first = fixed(min(tile, plan.vocabulary_part))
        argmax(first, Place(logits), Place(0), 1)
        if head.tiles > 1:
            rest = Count(cap=length.cap, offset=length.offset - tile, level=HEAD_TILE, step=tile)
            with self.a.loop(fixed(head.tiles - 1)):
                after = head.tile_blocks * rows
                argmax(rest, Place(logits + after, stride), Place(after, stride), 0)

    def _norm(self, weight: str) -> None:
        """RMSNorm of x, quantized for the matrix engine; `amax` holds the largest magnitude of x.

        x is first divided by it, so that the sum of squares is a fixed-point sum of numbers up to one.
        """
        p, one = self.program, fixed(1)
        config = self.plan.config
        p.scalar(self._scalar("amax"), function=Function.RECIPROCAL, to=self._entry("a"))
        p.apply(
            self.hidden,
            self._vector("x"),
            self._scalar("a"),
            target=Target.VECTOR,
            d=self._vector("t").place,
        )
        p.apply(
            self.hidden,
            self._vector("t"),
            self._vector("t"),
            reduce=Reduce.SUM,
            entry=self._entry("b"),
        )
        p.scalar(self._scalar("amax"), self._scalar("amax"), to=self._entry("c"))
        p.scalar(self._scalar("b"), self._scalar("c"), to=self._entry("d"))
        p.scalar(self._scalar("d"), constant(1.0 / config.hidden_size), constant(config.rms_norm_eps),
                 function=Function.RECIPROCAL_SQUARE_ROOT, to=self._entry("b"))  # fmt: skip
        p.scalar(self._scalar("b"), self._scalar("amax"), to=self._entry("c"))
        p.apply(self.hidden, self._vector("t"), self._input(weight), target=Target.VECTOR, d=self._vector("t").place,
                reduce=Reduce.MAGNITUDE, entry=self._entry("d"), wait=_LD, signal=_LD)  # fmt: skip
        p.scalar(self._scalar("d"), constant(1 / _INT8_MAXIMUM), to=self._entry("a"))
        p.scalar(self._scalar("a"), function=Function.RECIPROCAL, to=self._entry("e"))
        p.apply(
            one,
            self._scalar("a"),
            self._scalar("c"),
            target=Target.MATRIX_SCALE,
            d=self._scale_out("x"),
        )
        p.apply(self.hidden, self._vector("t"), self._scalar("e"), target=Target.ACTIVATION,
                d=self._activation_out("norm"), signal=_MPE)  # fmt: skip

    def _rotate(self, name: str, heads: int, wait: int) -> None:
        """RoPE of the heads of a result into `head_u`, and their largest magnitudes into `head_a`."""
        plan, p = self.plan, self.program
        pitch, half = plan.head_rows, plan.head_rows // 2
        part = fixed(plan.half)
        p.apply(self.head, self._result(name, 0, pitch), self._input("rope"), rows=heads, target=Target.VECTOR,
                d=self._vector("head_t").place, d_pitch=pitch, wait=wait)  # fmt: skip
        for own, other in ((0, half), (half, 0)):
            sine = self._input("rope", pitch + own)
            p.apply(part, self._result(name, other, pitch), sine, self._vector("head_t", own, pitch), rows=heads,
                    target=Target.VECTOR, d=self._vector("head_u", own).place, d_pitch=pitch)  # fmt: skip
        p.apply(self.head, self._vector("head_u", 0, pitch), rows=heads, reduce=Reduce.MAGNITUDE,
                entry=self._entry("head_a"))  # fmt: skip

    def _key(self) -> None:
        heads, pitch = self.plan.kv_heads, self.plan.head_rows
        self._rotate("k", heads, _MPE | _ST)
        self._store_heads(self._vector("head_u", 0, pitch), "k", "key_scale")

    def _value(self) -> None:
        heads, pitch = self.plan.kv_heads, self.plan.head_rows
        value = self._result("v", 0, pitch)
        self.program.apply(
            self.head,
            value,
            rows=heads,
            reduce=Reduce.MAGNITUDE,
            entry=self._entry("head_a"),
            wait=_MPE,
        )
        self._store_heads(value, "v", "value_scale", signal=_ST)

    def _store_heads(self, heads: Operand, name: str, scale_name: str, signal: int = 0) -> None:
        """INT8 rows and their scales to the store buffer; magnitudes are in `head_a`."""
        plan, p = self.plan, self.program
        rows = plan.kv_heads
        one = constant(1 / _INT8_MAXIMUM)
        magnitude = self._scalar("head_a", 0, 1)
        p.scalar(magnitude, one, to=self._entry("head_b"), rows=rows)
        p.apply(fixed(1), magnitude, one, rows=rows, target=Target.STORE_FLOAT,
                d=Place(plan.store.taken[scale_name][0] // 4), d_pitch=1)  # fmt: skip
        p.scalar(
            self._scalar("head_b", 0, 1),
            function=Function.RECIPROCAL,
            to=self._entry("head_c"),
            rows=rows,
        )
        p.apply(self.head, heads, self._scalar("head_c", 0, 1), rows=rows, target=Target.STORE_INTEGER,
                d=Place(plan.store.taken[name][0] // plan.spec.lanes), d_pitch=plan.head_rows, signal=signal)  # fmt: skip

    def _query(self) -> None:
        plan, p = self.plan, self.program
        heads, pitch = plan.heads, plan.head_rows
        self._rotate("q", heads, _MPE)
        magnitude = self._scalar("head_a", 0, 1)
        # Scores come out in units of log2, so that softmax needs a power of two only.
        factor = math.log2(math.e) / math.sqrt(plan.config.head_dim)
        p.scalar(
            magnitude,
            constant(1 / _INT8_MAXIMUM),
            function=Function.RECIPROCAL,
            to=self._entry("head_c"),
            rows=heads,
        )
        p.apply(fixed(1), magnitude, constant(factor / _INT8_MAXIMUM), rows=heads, target=Target.MATRIX_SCALE,
                d=self._scale_out("q"), d_pitch=1)  # fmt: skip
        p.apply(self.head, self._vector("head_u", 0, pitch), self._scalar("head_c", 0, 1), rows=heads,
                target=Target.ACTIVATION, d=self._activation_out("q"), d_pitch=pitch, signal=_MPE)  # fmt: skip

    def _softmax(self) -> None:
        """Probabilities times the values' scales, quantized; one over their sum goes into the output's scale."""
        plan, p = self.plan, self.program
        heads, kv_heads, pitch = plan.heads, plan.kv_heads, plan.context_rows
        length = sequence_length()
        scale_pitch = plan.context_words * plan.spec.word_rows
        scores = self._vector("scores", 0, pitch)
        for g in range(plan.groups):
            first = g * kv_heads
            p.apply(length, self._result("scores", first * pitch, pitch), self._input("key_scale", 0, scale_pitch),
                    rows=kv_heads, target=Target.VECTOR, d=self._vector("scores", first * pitch).place, d_pitch=pitch,
                    reduce=Reduce.MAXIMUM, entry=self._entry("head_a", first), wait=0 if g else _MPE | _LD)  # fmt: skip
        p.scalar(self._scalar("head_a", 0, 1), constant(-1.0), to=self._entry("head_b"), rows=heads)
        p.apply(length, scores, None, self._scalar("head_b", 0, 1), rows=heads, function=Function.EXPONENTIAL2,
                target=Target.VECTOR, d=scores.place, d_pitch=pitch, reduce=Reduce.SUM, entry=self._entry("head_c"))  # fmt: skip
        for g in range(plan.groups):
            first = g * kv_heads
            p.apply(length, self._vector("scores", first * pitch, pitch), self._input("value_scale", 0, scale_pitch),
                    rows=kv_heads, target=Target.VECTOR, d=self._vector("scores", first * pitch).place, d_pitch=pitch,
                    reduce=Reduce.MAGNITUDE, entry=self._entry("head_a", first),
                    signal=_LD if g == plan.groups - 1 else 0)  # fmt: skip
        scale = constant(1 / _INT8_MAXIMUM)
        p.scalar(self._scalar("head_a", 0, 1), scale, to=self._entry("head_b"), rows=heads)
        p.scalar(
            self._scalar("head_c", 0, 1),
            function=Function.RECIPROCAL,
            to=self._entry("head_d"),
            rows=heads,
        )
        p.scalar(
            self._scalar("head_b", 0, 1),
            function=Function.RECIPROCAL,
            to=self._entry("head_c"),
            rows=heads,
        )
        p.apply(fixed(1), self._scalar("head_b", 0, 1), self._scalar("head_d", 0, 1), rows=heads,
                target=Target.MATRIX_SCALE, d=self._scale_out("p"), d_pitch=1)  # fmt: skip
        p.apply(length, scores, self._scalar("head_c", 0, 1), rows=heads, target=Target.ACTIVATION,
                d=self._activation_out("p"), d_pitch=pitch, signal=_MPE)  # fmt: skip

    def _attention(self) -> None:
        """Attention of all heads side by side, quantized."""
        plan = self.plan
        pitch, heads = plan.attention_pitch, plan.kv_heads
        if pitch == plan.head_rows and plan.cores == 1:
            self._quantize(
                self._result("attention"), self.all_heads, "attention", wait=_MPE, signal=_MPE
            )
            return
        # Every query head has a whole block of results, of which its own KV head's part counts.
        round_heads = plan.value_heads * plan.groups
        for part in range(min(plan.value_heads, heads)):
            for g in range(plan.groups):
                head = part * plan.groups + g
                own = self._result(
                    "attention", head * pitch + part * plan.head_rows, round_heads * pitch
                )
                place = self._vector("head_t", head * plan.head_rows).place
                self.program.apply(self.head, own, rows=-(-(heads - part) // plan.value_heads),
                                   target=Target.VECTOR, d=place, d_pitch=round_heads * plan.head_rows,
                                   exchange=self._exchange(plan.heads * plan.head_rows), wait=0 if head else _MPE)  # fmt: skip
        self._quantize(self._vector("head_t"), self.all_heads, "attention", signal=_MPE)

    def _quantize(self, value: Operand, length: Count, activation: str, wait: int = 0, signal: int = 0,
                  known: bool = False) -> None:  # fmt: skip
        """INT8 activations with one scale; `known`: the largest magnitude is in `a` already."""
        p = self.program
        if not known:
            p.apply(length, value, reduce=Reduce.MAGNITUDE, entry=self._entry("a"), wait=wait)
        scale = constant(1 / _INT8_MAXIMUM)
        p.scalar(self._scalar("a"), scale, function=Function.RECIPROCAL, to=self._entry("b"))
        p.apply(
            fixed(1), self._scalar("a"), scale, target=Target.MATRIX_SCALE, d=self._scale_out("x")
        )
        p.apply(
            length,
            value,
            self._scalar("b"),
            target=Target.ACTIVATION,
            d=self._activation_out(activation),
            signal=signal,
        )

    def _residual(self, name: str) -> None:
        """x += result, and the largest magnitude of the new x."""
        plan, x, added, wait = self.plan, self._vector("x"), self._result(name), _MPE
        if plan.cores > 1:
            whole = self._vector("t")
            part = plan.hidden_part // plan.spec.lanes
            self.program.apply(fixed(plan.hidden_part), added, target=Target.VECTOR, d=whole.place,
                               exchange=self._exchange(part), wait=wait)  # fmt: skip
            added, wait = whole, 0
        self.program.apply(self.hidden, x, None, added, target=Target.VECTOR, d=x.place,
                           reduce=Reduce.MAGNITUDE, entry=self._entry("amax"), wait=wait)  # fmt: skip

    def _silu(self) -> None:
        """silu(gate) * up = gate / (1 + 2^(-gate*log2(e))) * up."""
        plan, p, length = self.plan, self.program, fixed(self.plan.ffn_outputs)
        t, u = self._vector("gate"), self._vector("up")
        p.apply(length, self._result("gate"), constant(-math.log2(math.e)), function=Function.EXPONENTIAL2,
                target=Target.VECTOR, d=t.place, wait=_MPE)  # fmt: skip
        p.apply(
            length,
            t,
            None,
            constant(1.0),
            function=Function.RECIPROCAL,
            target=Target.VECTOR,
            d=t.place,
        )
        p.apply(length, t, self._result("gate"), target=Target.VECTOR, d=u.place)
        if plan.cores == 1:
            p.apply(length, u, self._result("up"), target=Target.VECTOR, d=u.place, reduce=Reduce.MAGNITUDE,
                    entry=self._entry("a"))  # fmt: skip
            self._quantize(u, length, "ffn", signal=_MPE, known=True)
            return
        p.apply(length, u, self._result("up"), target=Target.VECTOR, d=t.place,
                exchange=self._exchange(plan.ffn_part // plan.spec.lanes))  # fmt: skip
        self._quantize(t, fixed(plan.cores * plan.ffn_part), "ffn", signal=_MPE)
