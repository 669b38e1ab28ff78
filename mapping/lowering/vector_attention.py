"""SFU's part of attention: RoPE, quantized keys, values and queries, softmax, heads side by side."""

import math
from collections.abc import Callable

from hw.spec.functions import Function
from hw.spec.instructions import Reduce, Register, Source, Target, Unit
from mapping.graph.ir import Node
from mapping.lowering.assembler import Count, Place, fixed, units
from mapping.lowering.levels import HEAD, UNBOUNDED, heads_of_tile, rounds_of_heads
from mapping.lowering.plan import QUERIES
from mapping.lowering.vector_program import Operand, constant
from mapping.lowering.vector_regions import INT8_MAXIMUM, LOG2_E, VectorRegions

_LD, _ST, _MPE = units(Unit.LD), units(Unit.ST), units(Unit.MPE)
_SCALE = constant(1 / INT8_MAXIMUM)

Heads = Callable[[Count, int], Operand]
"""Writes what makes the heads of keys or queries, given rows and what to wait for; their magnitudes go to `head_a`."""


def rotate(v: VectorRegions, node: Node) -> None:
    """RoPE of keys, to be stored, or of queries, for the matrix engine."""
    name = node.local(node.inputs[0])
    store = _key if name == "key" else _query
    store(v, lambda rows, wait: _rotate(v, name, rows, wait))


def attention(v: VectorRegions, node: Node) -> None:
    """From rotated queries and the caches to the activations `attention`."""
    if v.phase.prefill:
        _chunk_softmax(v)
    else:
        _softmax(v)
    _side_by_side(v)


def _sequence_length(v: VectorRegions) -> Count:
    """Tokens that the first row of this round attends to: POSITION + 1, without those that a mask skips."""
    register = Register.REST if v.phase.mask else Register.POSITION
    return Count(cap=UNBOUNDED, offset=1, register=register)


def _rotate(v: VectorRegions, name: str, rows: Count, wait: int) -> Operand:
    """RoPE of the heads of a result into `head_u`, and their largest magnitudes into `head_a`."""
    plan, p = v.plan, v.program
    pitch, half = plan.head_rows, plan.head_rows // 2
    turned = v.of_head(v.vector("head_t"), pitch)
    p.apply(v.head, v.of_head(v.result(name), pitch), v.rope(), rows=rows, target=Target.VECTOR,
            d=turned.place, d_pitch=turned.pitch, wait=wait)  # fmt: skip
    for own, other in ((0, half), (half, 0)):
        to = v.of_head(v.vector("head_u"), pitch, own)
        p.apply(fixed(plan.half), v.of_head(v.result(name), pitch, other), v.rope(pitch + own),
                v.of_head(v.vector("head_t"), pitch, own), rows=rows,
                target=Target.VECTOR, d=to.place, d_pitch=to.pitch)  # fmt: skip
    whole = v.of_head(v.vector("head_u"), pitch)
    p.magnitude(v.head, whole, rows=rows, to=v.entry("head_a"))
    return whole


def _biased(v: VectorRegions, node: Node, rows: Count, wait: int) -> Operand:
    """The heads of a result with their biases in `head_u`, and their largest magnitudes in `head_a`."""
    pitch = v.plan.head_rows
    to = v.of_head(v.vector("head_u"), pitch)
    bias, _, _ = v.bias(node.inputs[0])
    v.program.apply(v.head, v.of_head(v.result(node.local(node.inputs[0])), pitch), None,
                    v.of_head(bias, pitch) if bias else None, rows=rows, target=Target.VECTOR, d=to.place,
                    d_pitch=to.pitch, reduce=Reduce.MAGNITUDE, entry=v.entry("head_a"), wait=wait)  # fmt: skip
    return to


def _key(v: VectorRegions, take: Heads) -> None:
    with v.each_head(v.plan.kv_heads, wait=_MPE | _ST) as (rows, wait, _):
        _store(v, take(rows, wait), "k", "key_scale", rows)


def quantize_heads(v: VectorRegions, node: Node) -> None:
    """Values of the new tokens, to be stored; keys and queries too where they are not rotated."""
    name = node.local(node.inputs[0])
    bias, _, signal = v.bias(node.inputs[0])

    def take(rows: Count, wait: int) -> Operand:
        if bias is not None:
            return _biased(v, node, rows, wait)
        value = v.of_head(v.result(name), v.plan.head_rows)
        v.program.magnitude(v.head, value, rows=rows, to=v.entry("head_a"), wait=wait)
        return value

    if name == "key":
        _key(v, take)
    elif name == "query":
        _query(v, take, signal)
    else:
        with v.each_head(v.plan.kv_heads, wait=_MPE, signal=_ST) as (rows, wait, signal):
            _store(v, take(rows, wait), "v", "value_scale", rows, signal)


def _store(
    v: VectorRegions, heads: Operand, name: str, scale_name: str, rows: Count, signal: int = 0
) -> None:
    """INT8 rows and their scales to the store buffer; magnitudes are in `head_a`."""
    plan, p = v.plan, v.program
    magnitude = v.scalar("head_a")

    def place(region: str, unit: int, head_pitch: int) -> Operand:
        pitch = plan.store_pitch[region] // unit
        start = Operand(Source.NONE, Place(plan.store.taken[region][0] // unit), pitch)
        return v.of_head(start, head_pitch)

    p.scalar(magnitude, _SCALE, to=v.entry("head_b"), rows=rows)
    to = place(scale_name, 4, 1)
    p.apply(
        fixed(1),
        magnitude,
        _SCALE,
        rows=rows,
        target=Target.STORE_FLOAT,
        d=to.place,
        d_pitch=to.pitch,
    )
    p.scalar(v.scalar("head_b"), function=Function.RECIPROCAL, to=v.entry("head_c"), rows=rows)
    to = place(name, plan.spec.lanes, plan.head_rows)
    p.apply(v.head, heads, v.scalar("head_c"), rows=rows, target=Target.STORE_INTEGER,
            d=to.place, d_pitch=to.pitch, signal=signal)  # fmt: skip


def _query(v: VectorRegions, take: Heads, through: int = 0) -> None:
    plan, p = v.plan, v.program
    # Scores come out in units of log2, so that softmax needs a power of two only.
    factor = LOG2_E / math.sqrt(plan.config.head_dim)
    each = heads_of_tile(plan, v.segment.matrices[QUERIES], v.phase) > 0
    with v.each_head(plan.heads, _MPE, through, each) as (rows, wait, signal):
        heads = take(rows, wait)
        magnitude = v.scalar("head_a")
        p.scalar(magnitude, _SCALE, function=Function.RECIPROCAL, to=v.entry("head_c"), rows=rows)
        p.apply(fixed(1), magnitude, constant(factor / INT8_MAXIMUM), rows=rows, target=Target.MATRIX_SCALE,
                d=_scales(v, "q"), d_pitch=1)  # fmt: skip
        pitch = plan.activation_rows["q"]
        to = v.of_head(Operand(Source.NONE, v.activation_out("q"), pitch), plan.head_rows)
        p.apply(v.head, heads, v.scalar("head_c"), rows=rows, target=Target.ACTIVATION,
                d=to.place, d_pitch=to.pitch, signal=signal | _MPE)  # fmt: skip


def _scales(v: VectorRegions, name: str) -> Place:
    """Scales of a head's tokens, or of all heads of the token."""
    strides = {HEAD: v.phase.tokens} if v.phase.prefill else {}
    return Place(v.scale_out(name).base, strides)


def _scores(v: VectorRegions, offset: int, head_pitch: int) -> tuple[Operand, Operand]:
    """Scores of a head's tokens, or of several heads of the token, as results and as vectors."""
    plan, places = v.plan, []
    pitch = (plan.chunk_context if v.phase.prefill else plan.context) // plan.spec.lanes
    for source, regions in ((Source.RESULT, plan.result), (Source.VECTOR, plan.vector)):
        start = regions.taken["scores"][0] + offset
        strides = {HEAD: head_pitch} if v.phase.prefill else {}
        places.append(Operand(source, Place(start, strides), pitch))
    return places[0], places[1]


def _softmax(v: VectorRegions) -> None:
    """Probabilities times the values' scales, quantized; one over their sum goes into the output's scale."""
    plan, p, length = v.plan, v.program, _sequence_length(v)
    kv_heads, heads, pitch = plan.kv_heads, fixed(plan.heads), plan.context_rows
    for g in range(plan.groups):
        found, scores = _scores(v, g * kv_heads * pitch, 0)
        p.apply(length, found, v.input("key_scale", plan.context_words), rows=kv_heads, target=Target.VECTOR,
                d=scores.place, d_pitch=pitch, reduce=Reduce.MAXIMUM, entry=v.entry("head_a") + g * kv_heads,
                wait=0 if g else _MPE | _LD)  # fmt: skip
    _, scores = _scores(v, 0, 0)
    _powers(v, length, scores, heads)
    for g in range(plan.groups):
        _, own = _scores(v, g * kv_heads * pitch, 0)
        p.apply(length, own, v.input("value_scale", plan.context_words), rows=kv_heads, target=Target.VECTOR,
                d=own.place, d_pitch=pitch, reduce=Reduce.MAGNITUDE, entry=v.entry("head_a") + g * kv_heads,
                signal=_LD if g == plan.groups - 1 else 0)  # fmt: skip
    _quantize_probabilities(v, length, scores, heads, v.scale_out("p"), v.activation_out("p"), _MPE)


def _chunk_softmax(v: VectorRegions) -> None:
    """As `_softmax`, for the tokens of a chunk, query head by query head; row r sees r tokens more than the first."""
    plan, p, length, rows = v.plan, v.program, _sequence_length(v), v.phase.rows
    head_rows, groups = plan.chunk_head_rows, plan.groups
    tokens, pitch = v.phase.tokens, plan.chunk_context // plan.spec.lanes
    scale_pitch = {HEAD: plan.context_words * plan.spec.word_rows}
    key_scale = Operand(Source.INPUT, Place(v.input("key_scale").place.base, scale_pitch))
    value_scale = Operand(Source.INPUT, Place(v.input("value_scale").place.base, scale_pitch))
    v.a.sync(wait=_LD)
    with v.a.loop(fixed(plan.kv_heads)):
        for g in range(groups):
            found, scores = _scores(v, g * head_rows, groups * head_rows)
            p.apply(length, found, key_scale, _hiding(v, g), rows=rows, causal=1, target=Target.VECTOR, d=scores.place, d_pitch=pitch,
                    reduce=Reduce.MAXIMUM, entry=v.entry("head_a"), wait=0 if g else _MPE)  # fmt: skip
            _powers(v, length, scores, rows)
            p.apply(length, scores, value_scale, rows=rows, causal=1, target=Target.VECTOR, d=scores.place,
                    d_pitch=pitch, reduce=Reduce.MAGNITUDE, entry=v.entry("head_a"))  # fmt: skip
            scale = Place(v.scale_out("p").base + g * tokens, {HEAD: groups * tokens})
            base = v.activation_out("p").base + g * head_rows
            activation = Place(base, {HEAD: groups * head_rows})
            last = g == groups - 1
            _quantize_probabilities(v, length, scores, rows, scale, activation, _MPE if last else 0)
    v.a.sync(signal=_LD)


def _hiding(v: VectorRegions, g: int) -> Operand | None:
    """What hides keys from query head `g` of a KV head, if anything does."""
    plan = v.plan
    if plan.hiding is None:
        return None
    rows = plan.hiding_words * plan.spec.word_rows
    base = v.input("attention_mask").place.base
    return Operand(Source.INPUT, Place(base + g * rows, {HEAD: plan.groups * rows}))


def _powers(v: VectorRegions, length: Count, scores: Operand, rows: Count) -> None:
    """Scores to powers of two of their distance to the largest, in `head_a`; their sum to `head_c`."""
    p = v.program
    p.scalar(v.scalar("head_a"), constant(-1.0), to=v.entry("head_b"), rows=rows)
    p.apply(length, scores, None, v.scalar("head_b"), rows=rows, causal=int(v.phase.prefill),
            function=Function.EXPONENTIAL2, target=Target.VECTOR, d=scores.place, d_pitch=scores.pitch,
            reduce=Reduce.SUM, entry=v.entry("head_c"))  # fmt: skip


def _quantize_probabilities(v: VectorRegions, length: Count, scores: Operand, rows: Count, scale: Place,
                            activation: Place, signal: int) -> None:  # fmt: skip
    p = v.program
    p.scalar(v.scalar("head_a"), _SCALE, to=v.entry("head_b"), rows=rows)
    p.scalar(v.scalar("head_c"), function=Function.RECIPROCAL, to=v.entry("head_d"), rows=rows)
    p.scalar(v.scalar("head_b"), function=Function.RECIPROCAL, to=v.entry("head_c"), rows=rows)
    p.apply(
        fixed(1),
        v.scalar("head_b"),
        v.scalar("head_d"),
        rows=rows,
        target=Target.MATRIX_SCALE,
        d=scale,
        d_pitch=1,
    )
    p.apply(length, scores, v.scalar("head_c"), rows=rows, causal=int(v.phase.prefill), target=Target.ACTIVATION,
            d=activation, d_pitch=scores.pitch, signal=signal)  # fmt: skip


def _side_by_side(v: VectorRegions) -> None:
    """Attention of all heads side by side, quantized."""
    plan = v.plan
    if plan.attention_whole:
        v.quantize(v.result("attention"), v.own_heads, "attention", wait=_MPE, signal=_MPE)
        return
    # Every query head has a whole block of results, of which its own KV head's part counts.
    together = plan.value_heads
    if v.phase.prefill:
        # As MPE gives a token for each block of values.
        for first, rounds, size in rounds_of_heads(plan):
            with v.a.loop(fixed(rounds)):
                v.a.sync(wait=_MPE)
                for part in range(size):
                    _beside(v, first, part, v.phase.rows)
    else:
        v.a.sync(wait=_MPE)
        for part in range(min(together, plan.kv_heads)):
            _beside(v, 0, part, fixed(-(-(plan.kv_heads - part) // together)))
    v.quantize(v.vector("head_t"), v.own_heads, "attention", signal=_MPE)


def _beside(v: VectorRegions, first: int, part: int, rows: Count) -> None:
    """KV head `part` of a block of values, the first of which is head `first`: its query heads' attention to its place."""
    plan = v.plan
    heads = plan.value_heads * plan.groups
    for g in range(plan.groups):
        head = (first + part) * plan.groups + g
        at = head * plan.attention_pitch + part * plan.head_rows
        own = v.of_head(v.result("attention"), heads * plan.attention_pitch, at)
        to = v.of_head(v.vector("head_t"), heads * plan.head_rows, head * plan.head_rows)
        v.program.apply(v.head, own, rows=rows, target=Target.VECTOR, d=to.place, d_pitch=to.pitch)
