"""MPE's instruction stream: the matrix products of every layer and of the output head."""

from dataclasses import dataclass

from hw.spec.instructions import Condition, Opcode, Unit
from hw.spec.weight_format import KEPT, WIRES, StepFormat
from mapping.formats import ORDER_SUFFIX
from mapping.graph.ir import Graph, Node, Operator
from mapping.lowering.assembler import Assembler, Count, Place, fixed, tiled, units
from mapping.lowering.joined import FIRST
from mapping.lowering.levels import (
    DECODE,
    HEAD,
    HEAD_TILE,
    LAYER,
    PART,
    TILE,
    Phase,
    chunks,
    first_key_blocks,
    first_key_tiles,
    first_tokens,
    heads_of_tile,
    key_blocks,
    key_tiles,
    prefill_phase,
    product_tiles,
    products,
    rounds_of_heads,
    value_steps,
)
from mapping.lowering.plan import ACTIVATIONS, CACHE_STEP, QUERIES, Plan, Segment
from mapping.lowering.tiles import MatrixPlan

_LD, _SFU = units(Unit.LD), units(Unit.SFU)


@dataclass(frozen=True)
class Vectors:
    """How many activation vectors an instruction multiplies, and their pitches: activations in units of 4, result rows, scales."""

    count: Count
    activation: int = 0
    result: int = 0
    scale: int = 0


def lower_matrix(plan: Plan) -> Assembler:
    """Instruction stream of MPE."""
    a = Assembler(Unit.MPE)
    a.sync_times(plan.credits, signal=_LD)
    if plan.chunk:
        phase = prefill_phase(plan)
        with a.loop(chunks(plan)):
            phase.skip(a)
            a.emit(Opcode.INCREMENT, **phase.rows.fields("count"))
            _layers(a, plan, phase)
    with a.token_loop():
        with a.unless(Condition.PREFILL):
            a.sync(wait=_SFU)
            if plan.wired:
                _wired(a, plan, plan.head_matrix, Count(1, 1), "norm", "logits", signal=_SFU)
            else:
                _matrix(a, plan, plan.head_matrix, "norm", "logits", HEAD_TILE, DECODE, tokens=1)
        a.leave_at_end()
        _layers(a, plan, DECODE)
    return a


def _layers(a: Assembler, plan: Plan, phase: Phase) -> None:
    for segment in plan.segments:
        with a.loop(fixed(segment.layers)):
            _layer(a, plan, segment, phase)


def _layer(a: Assembler, plan: Plan, segment: Segment, phase: Phase) -> None:
    """The products of a layer: MPE waits for what SFU quantizes, and signals when all operands of an SFU node are there."""
    ready: set[str] = set()
    for node in segment.nodes:
        if node.operator is Operator.ATTENTION:
            _attention(a, plan, phase)
        elif node.operator is Operator.LINEAR:
            source = plan.graph.producers[node.inputs[0]]
            if source.output not in ready:
                a.sync(wait=_SFU)
                ready.add(source.output)
            name = node.attribute("matrix")
            matrix, activation = segment.matrices[name], ACTIVATIONS[source.operator]
            result = node.local(node.output)
            if name.endswith(ORDER_SUFFIX):
                result = "sorted"
            if plan.wired:
                number, step = plan.wired_number(segment, name), len(segment.matrices)
                count = Count(cap=number, offset=number, level=LAYER, step=step)
                _wired(a, plan, matrix, count, activation, result)
            elif name not in segment.streams:
                # Its products are those of the matrix that it is a part of.
                continue
            else:
                streamed = segment.streams[name]
                tokens = 0
                if name == QUERIES:
                    tokens = heads_of_tile(plan, streamed, phase)
                elif plan.joined and name == FIRST:
                    tokens = 1
                if completes(plan.graph, node) and products(plan, streamed, phase) == 1:
                    # Before the tokens of LD, which take their time.
                    tokens = tokens or 1
                _matrix(a, plan, streamed, activation, result, TILE, phase, tokens)
                if tokens:
                    continue
            if completes(plan.graph, node):
                a.sync(signal=_SFU)


def completes(graph: Graph, node: Node) -> bool:
    """Whether a reader of a product begins with it: it is the last operand that it lacks, or comes first."""
    order = [other.output for other in graph.nodes]
    for reader in graph.consumers[node.output]:
        if reader.operator is Operator.SILU_MULTIPLY:
            return True
        products = [name for name in reader.inputs if name in graph.producers]
        products = [n for n in products if graph.producers[n].operator is Operator.LINEAR]
        if max(products, key=order.index) == node.output:
            return True
    return False


def _attention(a: Assembler, plan: Plan, phase: Phase) -> None:
    if phase.prefill:
        _chunk_scores(a, plan, phase)
        _chunk_values(a, plan, phase)
    else:
        a.sync(wait=_SFU)
        # Where the cache is read more than once, all readings but the last are for nothing.
        for left in reversed(range(plan.spec.cache_reads)):
            _scores(a, plan, signal=0 if left else _SFU)
        a.sync(wait=_SFU)
        for left in reversed(range(plan.spec.cache_reads)):
            _values(a, plan, signal=0 if left else _SFU)


def _place(
    plan: Plan, buffer: str, name: str, offset: int = 0, strides: dict[int, int] | None = None
) -> Place:
    start = {"activation": plan.activation, "result": plan.result, "scale": plan.matrix_scales}[
        buffer
    ].taken[name][0]
    if buffer == "activation":
        start = start * plan.spec.lanes // 4
    return Place(start + offset, strides or {})


def _product(a: Assembler, step: StepFormat, group_steps: int, blocks: Count, steps: Count,
             activation: Place, result: Place, scale: Place, vectors: Vectors | None = None,
             pop: bool = True, first: bool = True, last: bool = True, wait: int = 0, signal: int = 0) -> None:  # fmt: skip
    vectors = vectors or Vectors(fixed(1))
    a.execute(
        wait,
        signal,
        format=int(step.weight),
        kept=KEPT.index(step.kept),
        bitmap=int(step.bitmap),
        scaled=int(group_steps > 0),
        first=int(first),
        last=int(last),
        pop=int(pop),
        group_steps=group_steps,
        activation_pitch=vectors.activation,
        result_pitch=vectors.result,
        scale_pitch=vectors.scale,
        **blocks.fields("blocks"),
        **steps.fields("steps"),
        **vectors.count.fields("vectors"),
        **activation.fields("activation"),
        **result.fields("result"),
        **scale.fields("scale"),
    )


def _matrix(a: Assembler, plan: Plan, matrix: MatrixPlan, activation: str, result: str, level: int,
            phase: Phase, tokens: int = 0) -> None:  # fmt: skip
    """All tiles of a matrix times the vectors of the tokens of this round; each product gives SFU so many tokens."""
    signal = _SFU if tokens else 0
    vectors = Vectors(phase.rows, plan.activation_pitch(activation), plan.result_rows[result], 1)
    # A permutation hands integers on as they are.
    scale = _place(plan, "scale", "one" if matrix.name.endswith(ORDER_SUFFIX) else "x")
    for part in matrix.parts:
        begin = part.first_block * plan.spec.block_rows
        together = product_tiles(plan, matrix, part, phase)
        strides = {level: together * part.tile_blocks * plan.spec.block_rows}
        blocks = tiled(part.blocks, together * part.tile_blocks, level)
        with a.loop(fixed(-(-part.tiles // together))):
            if len(part.pieces) == 1:
                piece = part.pieces[0]
                a.sync_times(together - 1, wait=_LD)
                _product(
                    a,
                    piece.format.step,
                    piece.group_steps,
                    blocks,
                    fixed(piece.steps),
                    _place(plan, "activation", activation),
                    _place(plan, "result", result, begin, strides),
                    scale,
                    vectors,
                    wait=_LD,
                    signal=_LD | signal,
                )
                a.sync_times(together * part.tile_credits - 1, signal=_LD)
                a.sync_times(tokens - 1, signal=_SFU)
                continue
            a.sync(wait=_LD)
            with a.loop(blocks) as block:
                for piece in part.pieces:
                    _product(
                        a,
                        piece.format.step,
                        piece.group_steps,
                        fixed(1),
                        fixed(piece.steps),
                        _place(plan, "activation", activation, piece.first // 4),
                        _place(plan, "result", result, begin, strides | {block: plan.spec.block_rows}),
                        scale,
                        vectors,
                        first=piece is part.pieces[0],
                        last=piece is part.pieces[-1],
                    )  # fmt: skip
            a.sync(signal=_LD | signal)
            a.sync_times(part.tile_credits - 1, signal=_LD)
            a.sync_times(tokens - 1, signal=_SFU)


def _wired(a: Assembler, plan: Plan, matrix: MatrixPlan, number: Count, activation: str, result: str,
           signal: int = 0) -> None:  # fmt: skip
    """A hardwired matrix times the vector of the token; waits for nothing but its activations."""
    a.execute(
        0,
        signal,
        format=WIRES,
        first=1,
        last=1,
        **fixed(matrix.blocks).fields("blocks"),
        **number.fields("steps"),
        **fixed(1).fields("vectors"),
        **_place(plan, "activation", activation).fields("activation"),
        **_place(plan, "result", result).fields("result"),
        **_place(plan, "scale", "x").fields("scale"),
    )


def _scores(a: Assembler, plan: Plan, signal: int) -> None:
    """Every query head of a group times the keys of its KV head, tile by tile."""
    heads, groups = plan.kv_heads, plan.groups
    each = _begin(a, plan.key_credits)
    with a.loop(fixed(heads)), a.loop(key_tiles(plan, DECODE)):
        _product(
            a,
            CACHE_STEP,
            0,
            key_blocks(plan, DECODE),
            fixed(plan.head // CACHE_STEP.span),
            _place(plan, "activation", "q", 0, {HEAD: groups * plan.head // 4}),
            _place(plan, "result", "scores", 0,
                   {HEAD: plan.context_rows, PART: plan.key_tile_blocks * plan.spec.block_rows}),
            _place(plan, "scale", "q", 0, {HEAD: groups}),
            Vectors(fixed(groups), plan.head // 4, heads * plan.context_rows, 1),
            wait=each,
            signal=each,
        )  # fmt: skip
    _tell(a, signal)
    a.sync_times(plan.key_credits, signal=_LD)


def _begin(a: Assembler, credits: int) -> int:
    """Wait for loads that share credits, if they do; what else each product waits for and signals."""
    a.sync_times(min(credits, 1), wait=_LD)
    return 0 if credits else _LD


def _values(a: Assembler, plan: Plan, signal: int) -> None:
    """Every query head's probabilities times the values of its KV head, block by block of dimensions.

    Where a block holds several KV heads, each head's probabilities meet all of them; the results of others are not used.
    """
    heads, groups, together = plan.kv_heads, plan.groups, plan.value_heads
    pitch = groups * plan.attention_pitch
    each = _begin(a, plan.value_credits)
    with a.loop(fixed(-(-heads // together))), a.loop(fixed(plan.head_blocks)):
        for g in range(groups):
            last = g == groups - 1
            _product(
                a,
                CACHE_STEP,
                0,
                fixed(1),
                value_steps(DECODE),
                _place(plan, "activation", "p", g * heads * plan.context // 4,
                       {HEAD: together * plan.context // 4}),
                _place(plan, "result", "attention", g * plan.attention_pitch,
                       {HEAD: together * pitch, PART: plan.spec.block_rows}),
                _place(plan, "scale", "p", g * heads, {HEAD: together}),
                Vectors(tiled(heads, together, HEAD), plan.context // 4, pitch, 1),
                pop=last,
                wait=0 if g else each,
                signal=each if last else 0,
            )  # fmt: skip
    _tell(a, signal)
    a.sync_times(plan.value_credits, signal=_LD)


def _tell(a: Assembler, signal: int) -> None:
    if signal:
        a.sync(signal=signal)


def _chunk_scores(a: Assembler, plan: Plan, phase: Phase) -> None:
    """As `_scores`, for the tokens of a chunk: all of them times the keys of one head, as its queries come from SFU.

    SFU may follow head by head. Of a mask: times the first keys, then times what is behind those skipped, which lies behind them in the scores.
    """
    phase.skip_first(a)
    with a.loop(fixed(plan.kv_heads)):
        a.sync_times(plan.groups, wait=_SFU)
        if first_tokens(phase):
            with a.loop(first_key_tiles(plan, phase)):
                _chunk_key_tile(a, plan, phase, first_key_blocks(plan, phase), 0)
        with a.loop(key_tiles(plan, phase)):
            begin = plan.first_key_blocks * plan.spec.block_rows
            _chunk_key_tile(a, plan, phase, key_blocks(plan, phase), begin)
        a.sync(signal=_SFU)
    phase.unskip_first(a)


def _chunk_key_tile(a: Assembler, plan: Plan, phase: Phase, blocks: Count, begin: int) -> None:
    """A tile of keys, whose scores lie from row `begin` on in the first round of loop PART."""
    groups, tokens = plan.groups, phase.tokens
    head_rows = plan.chunk_head_rows
    for g in range(groups):
        last = g == groups - 1
        _product(
            a,
            CACHE_STEP,
            0,
            blocks,
            fixed(plan.head // CACHE_STEP.span),
            _place(plan, "activation", "q", g * plan.head // 4, {HEAD: groups * plan.head // 4}),
            _place(plan, "result", "scores", g * head_rows + begin,
                   {HEAD: groups * head_rows, PART: plan.key_tile_blocks * plan.spec.block_rows}),
            _place(plan, "scale", "q", g * tokens, {HEAD: groups * tokens}),
            Vectors(phase.rows, plan.heads * plan.head // 4, plan.chunk_context // plan.spec.lanes, 1),
            pop=last,
            wait=0 if g else _LD,
            signal=_LD if last else 0,
        )  # fmt: skip


def _chunk_values(a: Assembler, plan: Plan, phase: Phase) -> None:
    """As `_values`, for the tokens of a chunk; waits for SFU's probabilities KV head by KV head."""
    groups, together, tokens = plan.groups, plan.value_heads, phase.tokens
    head_elements = plan.chunk_head_rows * plan.spec.lanes
    for begin, count, size in rounds_of_heads(plan):
        with a.loop(fixed(count)):
            for _ in range(size):
                a.sync(wait=_SFU)
            with a.loop(fixed(plan.head_blocks)):
                every = [(part, g) for part in range(size) for g in range(groups)]
                for part, g in every:
                    head = begin + part
                    first, last = (part, g) == every[0], (part, g) == every[-1]
                    _product(
                        a,
                        CACHE_STEP,
                        0,
                        fixed(1),
                        value_steps(phase),
                        _place(plan, "activation", "p", (head * groups + g) * head_elements // 4,
                               {HEAD: together * groups * head_elements // 4}),
                        _place(plan, "result", "attention", (head * groups + g) * plan.attention_pitch,
                               {HEAD: together * groups * plan.attention_pitch, PART: plan.spec.block_rows}),
                        _place(plan, "scale", "p", (head * groups + g) * tokens,
                               {HEAD: together * groups * tokens}),
                        Vectors(phase.rows, plan.chunk_context // 4, plan.result_rows["attention"], 1),
                        pop=last,
                        wait=_LD if first else 0,
                        signal=_LD if last else 0,
                    )  # fmt: skip
            if not plan.attention_whole:
                a.sync(signal=_SFU)
    if plan.attention_whole:
        a.sync(signal=_SFU)
