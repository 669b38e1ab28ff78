"""SFU's instruction stream: everything between matrix products."""

from collections.abc import Callable

from hw.spec.functions import Function
from hw.spec.instructions import Condition, Opcode, Reduce, Source, Target, Unit
from mapping.graph.ir import Node, Operator
from mapping.lowering.assembler import Assembler, Count, Place, fixed, tiled, units
from mapping.lowering.joined import FIRST
from mapping.lowering.levels import DECODE, HEAD_TILE, chunks, gate_products, prefill_phase
from mapping.lowering.plan import INPUT_CREDITS, Plan
from mapping.lowering.vector_attention import attention, quantize_heads, rotate
from mapping.lowering.vector_norm import layer_norm
from mapping.lowering.vector_program import Operand, constant
from mapping.lowering.vector_regions import INT8_MAXIMUM, LOG2_E, VectorRegions
from mapping.passes.order_inputs import PERMUTED

_LD, _MPE, _SYS = units(Unit.LD), units(Unit.MPE), units(Unit.SYS)


def lower_vector(plan: Plan) -> Assembler:
    """Instruction stream of SFU."""
    a = Assembler(Unit.SFU)
    for _ in range(INPUT_CREDITS):
        a.sync(signal=_LD)
    if plan.chunk:
        phase = prefill_phase(plan)
        v = VectorRegions(plan, a, phase)
        with a.loop(chunks(plan)):
            phase.skip(a)
            _embedding(v)
            _layers(v)
            # Only now, as all layers read the chunk's rows of the RoPE table, which came with the embeddings.
            a.sync(signal=_LD)
            a.emit(Opcode.INCREMENT, **phase.rows.fields("count"))
            _keep_last(v)
    v = VectorRegions(plan, a, DECODE)
    if plan.chunk:
        _take_last(v)
    with a.token_loop():
        with a.unless(Condition.PREFILL):
            _output_head(v)
        a.sync(signal=_SYS)
        a.leave_at_end()
        _embedding(v)
        _layers(v)
    return a


def _keep_last(v: VectorRegions) -> None:
    """t = x of the chunk's last token: all write the same rows, one after another."""
    x, t = v.vector("x"), v.vector("t")
    v.program.apply(v.hidden, x, rows=v.phase.rows, target=Target.VECTOR, d=t.place, d_pitch=0)


def _take_last(v: VectorRegions) -> None:
    """x = t, of the prompt's last token, and its largest magnitude."""
    x, t = v.vector("x"), v.vector("t")
    v.program.apply(v.hidden, t, target=Target.VECTOR, d=x.place, reduce=Reduce.MAGNITUDE, entry=v.entry("amax"),
                    exchange=v.all_cores)  # fmt: skip


def _layers(v: VectorRegions) -> None:
    for segment in v.plan.segments:
        v.segment = segment
        with v.a.loop(fixed(segment.layers)):
            for node in segment.nodes:
                emit = _EMIT.get(node.operator)
                if emit:
                    emit(v, node)


def _embedding(v: VectorRegions) -> None:
    """x = embedding row, and the learned vector of its position if there is one; its largest magnitude for the first norm."""
    x = v.vector("x")
    row, position = v.input("embedding", v.plan.hidden_words), None
    if v.plan.config.opt:
        position = v.input(v.plan.position_table, v.plan.position_words)
    v.program.apply(v.hidden, row, None, position, rows=v.phase.rows, target=Target.VECTOR, d=x.place, d_pitch=x.pitch,
                    reduce=Reduce.MAGNITUDE, entry=v.entry("amax"), exchange=v.all_cores, wait=_LD,
                    signal=0 if v.phase.prefill else _LD)  # fmt: skip
    if v.plan.permutations:
        v.program.apply(fixed(1), v.scalar("amax"), constant(0.0), constant(1.0), rows=v.phase.rows,
                        target=Target.MATRIX_SCALE, d=v.scale_out("one"), d_pitch=1)  # fmt: skip


def _norm(v: VectorRegions, node: Node) -> None:
    """RMSNorm of x, quantized for the matrix engine; `amax` holds the largest magnitude of x.

    x is first divided by it, so that the sum of squares is a fixed-point sum of numbers up to one.
    """
    p, config, rows = v.program, v.plan.config, v.phase.rows
    amax, t = v.scalar("amax"), v.vector("t")
    p.scalar(amax, function=Function.RECIPROCAL, to=v.entry("a"), rows=rows)
    p.apply(
        v.hidden,
        v.vector("x"),
        v.scalar("a"),
        rows=rows,
        target=Target.VECTOR,
        d=t.place,
        d_pitch=t.pitch,
    )
    p.apply(v.hidden, t, t, rows=rows, reduce=Reduce.SUM, entry=v.entry("b"), exchange=v.all_cores)
    p.scalar(amax, amax, to=v.entry("c"), rows=rows)
    p.scalar(v.scalar("b"), v.scalar("c"), to=v.entry("d"), rows=rows)
    p.scalar(v.scalar("d"), constant(1.0 / config.hidden_size), constant(config.rms_norm_eps),
             function=Function.RECIPROCAL_SQUARE_ROOT, to=v.entry("b"), rows=rows)  # fmt: skip
    p.scalar(v.scalar("b"), amax, to=v.entry("c"), rows=rows)
    p.apply(v.hidden, t, v.parameter(node.local(node.inputs[1])), rows=rows, target=Target.VECTOR, d=t.place, d_pitch=t.pitch,
            reduce=Reduce.MAGNITUDE, entry=v.entry("d"), exchange=v.all_cores, wait=_LD, signal=_LD)  # fmt: skip
    p.scalar(v.scalar("d"), constant(1 / INT8_MAXIMUM), to=v.entry("a"), rows=rows)
    p.scalar(v.scalar("a"), function=Function.RECIPROCAL, to=v.entry("e"), rows=rows)
    p.apply(
        fixed(1),
        v.scalar("a"),
        v.scalar("c"),
        rows=rows,
        target=Target.MATRIX_SCALE,
        d=v.scale_out("x"),
        d_pitch=1,
    )
    v.activate(t, v.hidden, v.scalar("e"), "norm", signal=_MPE)


def _sort(v: VectorRegions, node: Node) -> None:
    """Activations in another order: the integers that the matrix engine permuted, under the scale that they have."""
    x = v.result("sorted")
    _, width = v.plan.matrix_shape(node.local(node.inputs[0]).removesuffix(PERMUTED))
    v.program.apply(fixed(width), x, rows=v.phase.rows, target=Target.ACTIVATION, d=v.activation_out("sorted"),
                    d_pitch=v.plan.activation_rows["sorted"], wait=_MPE, signal=_MPE)  # fmt: skip


def _residual(v: VectorRegions, node: Node) -> None:
    """x += result, and the largest magnitude of the new x."""
    x = v.vector("x")
    added, awaited = v.result(node.local(node.inputs[1])), _MPE
    bias, wait, signal = v.bias(node.inputs[1])
    if bias is not None:
        t = v.vector("t")
        v.program.apply(v.hidden, added, None, bias, rows=v.phase.rows, target=Target.VECTOR, d=t.place,
                        d_pitch=t.pitch, wait=_MPE | wait, signal=signal)  # fmt: skip
        added, awaited = t, 0
    v.program.apply(v.hidden, x, None, added, rows=v.phase.rows, target=Target.VECTOR, d=x.place, d_pitch=x.pitch,
                    reduce=Reduce.MAGNITUDE, entry=v.entry("amax"), exchange=v.all_cores, wait=awaited)  # fmt: skip


def _relu(v: VectorRegions, node: Node) -> None:
    """The result where it is above zero."""
    plan, rows, u = v.plan, v.phase.rows, v.vector("up")
    bias, wait, signal = v.bias(node.inputs[0])
    length = fixed(plan.ffn_outputs)
    v.program.apply(length, v.result("up"), None, bias, rows=rows, function=Function.RELU,
                    target=Target.VECTOR, d=u.place, d_pitch=u.pitch, reduce=Reduce.MAGNITUDE, entry=v.entry("a"),
                    exchange=v.all_cores, wait=_MPE | wait, signal=signal)  # fmt: skip
    v.quantize(u, length, "ffn", signal=_MPE, known=True)


def _silu(v: VectorRegions, node: Node) -> None:
    """silu(gate) * up = gate / (1 + 2^(-gate*log2(e))) * up."""
    plan, p, rows = v.plan, v.program, v.phase.rows
    length, t, u = fixed(plan.ffn_outputs), v.vector("gate"), v.vector("up")
    gates, ups = 1, 1
    if plan.joined:
        gates, ups = gate_products(plan, v.segment.streams[FIRST], v.phase)

    v.await_products(gates)
    p.apply(length, v.result("gate"), constant(-LOG2_E), rows=rows, function=Function.EXPONENTIAL2,
            target=Target.VECTOR, d=t.place, d_pitch=t.pitch)  # fmt: skip
    p.apply(length, t, None, constant(1.0), rows=rows, function=Function.RECIPROCAL,
            target=Target.VECTOR, d=t.place, d_pitch=t.pitch)  # fmt: skip
    p.apply(
        length, t, v.result("gate"), rows=rows, target=Target.VECTOR, d=u.place, d_pitch=u.pitch
    )
    v.await_products(ups)
    p.apply(length, u, v.result("up"), rows=rows, target=Target.VECTOR, d=u.place, d_pitch=u.pitch,
            reduce=Reduce.MAGNITUDE, entry=v.entry("a"), exchange=v.all_cores)  # fmt: skip
    v.quantize(u, length, "ffn", signal=_MPE, known=True)


def _output_head(v: VectorRegions) -> None:
    """Final norm, then ARGMAX over the tiles of the logits."""
    plan = v.plan
    _EMIT[plan.tail[0].operator](v, plan.tail[0])
    head = plan.head_matrix.parts[0]
    tile = head.tile_blocks * plan.spec.matrix_rows
    length = tiled(plan.vocabulary_part, tile, HEAD_TILE)
    logits = plan.result.taken["logits"][0]
    after = head.tile_blocks * plan.spec.block_rows

    def argmax(level_length: Count, at: Place, index: Place, restart: int) -> None:
        v.program.apply(level_length, Operand(Source.RESULT, at), d=index, reduce=Reduce.ARGMAX,
                        restart=restart, wait=_MPE)  # fmt: skip

    # The first tile forgets the maximum of the token before.
    argmax(fixed(min(tile, plan.vocabulary_part)), Place(logits), Place(0), 1)
    if head.tiles > 1:
        stride = {HEAD_TILE: after}
        rest = Count(cap=length.cap, offset=length.offset - tile, level=HEAD_TILE, step=tile)
        with v.a.loop(fixed(head.tiles - 1)):
            argmax(rest, Place(logits + after, stride), Place(after, stride), 0)


_EMIT: dict[Operator, Callable[[VectorRegions, Node], None]] = {
    Operator.RMS_NORM: _norm,
    Operator.LAYER_NORM: layer_norm,
    Operator.ROPE: rotate,
    Operator.QUANTIZE: quantize_heads,
    Operator.ATTENTION: attention,
    Operator.SORT: _sort,
    Operator.ADD: _residual,
    Operator.SILU_MULTIPLY: _silu,
    Operator.RELU: _relu,
}
"""What SFU does for the nodes of a layer; matrix products are MPE's."""
