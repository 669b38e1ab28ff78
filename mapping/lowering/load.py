"""LD's instruction stream: weights, keys and values in the order of use, vectors for the vector unit."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from hw.spec.instructions import Condition, Destination, Opcode, Register, Unit
from mapping.graph.ir import Operator
from mapping.lowering.assembler import Address, Assembler, Count, Place, fixed, if_any, tiled, units
from mapping.lowering.levels import (
    DECODE,
    HEAD,
    HEAD_TILE,
    LAYER,
    PART,
    TILE,
    TOKEN,
    UNBOUNDED,
    Phase,
    chunks,
    first_key_blocks,
    first_key_tiles,
    first_tokens,
    key_blocks,
    key_tiles,
    prefill_phase,
    product_tiles,
    value_steps,
)
from mapping.lowering.parameters import ParameterGroup
from mapping.lowering.plan import CACHE_STEP, Plan, Segment
from mapping.lowering.tiles import MatrixPlan

_MPE, _SFU, _ST, _SYS = units(Unit.MPE), units(Unit.SFU), units(Unit.ST), units(Unit.SYS)
_TOKEN_OF_CHUNK = 1
"""Level of the loop over the embeddings of a chunk."""


def lower_load(plan: Plan) -> Assembler:
    """Instruction stream of LD."""
    a = Assembler(Unit.LD)
    if plan.chunk:
        phase = prefill_phase(plan)
        with a.loop(chunks(plan)):
            phase.skip(a)
            phase.skip_first(a)
            a.sync(wait=_SFU)
            _hiding(a, plan)
            a.emit(Opcode.INCREMENT, **phase.rows.fields("count"))
            _chunk_vectors(a, plan, phase)
            _layers(a, plan, phase)
    with a.token_loop():
        with a.unless(Condition.PREFILL):
            words = fixed(plan.parameters["norm"].words)
            _input(a, plan, "norm", Address(plan.norm), words, wait=_SFU, signal=_SFU)
            if not plan.wired:
                _matrix(a, plan, plan.head_matrix, plan.head_base, {}, HEAD_TILE, DECODE)
        a.leave_at_end()
        _embedding(a, plan, {}, wait=_SFU)
        row = Address(plan.positions, {}, Register.POSITION, 0, plan.position_words)
        _input(a, plan, plan.position_table, row, fixed(plan.position_words), signal=_SFU)
        _layers(a, plan, DECODE)
    return a


def _hiding(a: Assembler, plan: Plan) -> None:
    """What hides keys from the heads in the block of queries at POSITION, if anything does."""
    if plan.hiding is not None:
        words = plan.heads * plan.hiding_words
        shift = plan.hiding.block.bit_length() - 1
        address = Address(plan.hiding_base, {}, Register.POSITION, shift, words)
        _input(a, plan, "attention_mask", address, fixed(words))


def _chunk_vectors(a: Assembler, plan: Plan, phase: Phase) -> None:
    """Embeddings of a chunk, one token after another, and its rows of the table of positions."""
    with a.loop(phase.rows):
        _embedding(a, plan, {_TOKEN_OF_CHUNK: plan.hidden_words}, wait=_SYS, signal=_SYS)
    first = Address(plan.positions, {TOKEN: plan.chunk * plan.position_words})
    rows = phase.rows
    words = Count(
        cap=rows.cap * plan.position_words,
        offset=rows.offset,
        register=rows.register,
        scale=plan.position_words,
        level=TOKEN,
        step=rows.step * plan.position_words,
    )
    _input(a, plan, plan.position_table, first, words, signal=_SFU)


def _embedding(
    a: Assembler, plan: Plan, strides: dict[int, int], wait: int, signal: int = 0
) -> None:
    address = Address(plan.embedding, {}, Register.TOKEN, 0, plan.embedding_stride)
    _input(a, plan, "embedding", address, fixed(plan.hidden_words), wait, signal, strides, random=1)


def _input(
    a: Assembler,
    plan: Plan,
    name: str,
    address: Address,
    words: Count,
    wait: int = 0,
    signal: int = 0,
    strides: dict[int, int] | None = None,
    random: int = 0,
    place: Place | None = None,
) -> None:
    a.execute(
        wait,
        signal,
        destination=int(Destination.INPUT),
        random=random,
        **address.fields(),
        **words.fields("length"),
        **(place or Place(plan.input.taken[name][0], strides or {})).fields("buffer"),
    )


def _layers(a: Assembler, plan: Plan, phase: Phase) -> None:
    for segment in plan.segments:
        with a.loop(fixed(segment.layers)):
            _layer(a, plan, segment, phase)


def _layer(a: Assembler, plan: Plan, segment: Segment, phase: Phase) -> None:
    loaded: set[str] = set()
    for node in segment.nodes:
        for group in plan.groups_of(node):
            if group.name not in loaded:
                loaded.add(group.name)
                _parameters(a, plan, segment, group)
        if node.operator is Operator.ATTENTION:
            _attention(a, plan, segment, phase)
        elif node.operator is Operator.LINEAR and not plan.wired:
            name = node.attribute("matrix")
            if name not in segment.streams:
                continue
            base = segment.base + segment.offsets[name]
            _matrix(a, plan, segment.streams[name], base, {LAYER: segment.stride}, TILE, phase)


def _parameters(a: Assembler, plan: Plan, segment: Segment, group: ParameterGroup) -> None:
    """Gains and biases that are read one after another."""
    address = Address(segment.base + segment.offsets[group.name], {LAYER: segment.stride})
    _input(a, plan, group.name, address, fixed(group.words), wait=_SFU, signal=_SFU)


def _matrix(
    a: Assembler,
    plan: Plan,
    matrix: MatrixPlan,
    base: int,
    strides: dict[int, int],
    level: int,
    phase: Phase,
) -> None:
    """Tiles of a matrix: the scales of a tile, then its weights."""
    for part in matrix.parts:
        tile, blocks, begin = part.tile_blocks, part.blocks, base + part.offset
        scale_words = tiled(blocks * part.block_scale_words, tile * part.block_scale_words, level)
        words = tiled(blocks * part.block_words, tile * part.block_words, level)
        part_strides = strides | {level: part.tile_words}
        scale_end = begin + tile * part.block_scale_words
        with a.loop(fixed(part.tiles)):
            a.sync_times(part.tile_credits - 1, wait=_MPE)
            _ring(a, Destination.SCALE, Address(begin, part_strides), scale_words, wait=_MPE)
            _ring(a, Destination.STREAM, Address(scale_end, part_strides), words, signal=_MPE)
        for _ in range(-part.tiles % product_tiles(plan, matrix, part, phase)):
            # Empty tiles, so that all products are of equally many.
            a.sync_times(part.tile_credits - 1, wait=_MPE)
            a.sync(wait=_MPE, signal=_MPE)


def _ring(
    a: Assembler, ring: Destination, address: Address, words: Count, wait: int = 0, signal: int = 0
) -> None:
    a.execute(wait, signal, destination=int(ring), **address.fields(), **words.fields("length"))


def _attention(a: Assembler, plan: Plan, segment: Segment, phase: Phase) -> None:
    """Scales of keys and values, then keys, then values, once the newest are stored."""
    cache = plan.cache + segment.first * plan.cache_stride
    layer = {LAYER: plan.cache_stride}
    heads = fixed(plan.kv_heads)
    a.sync(wait=_ST | _SFU)
    _cache_scales(a, plan, phase, cache, layer)
    a.sync(signal=_SFU)
    tile_words = plan.key_tile_blocks * plan.key_block_words
    strides = layer | {HEAD: plan.key_head, PART: tile_words}
    first = Address(cache + plan.cache_offsets["key"], strides)
    address = _behind(phase, first, plan.spec.matrix_rows, plan.key_block_words)
    words = key_blocks(plan, phase, plan.key_block_words)
    reads = 1 if phase.prefill else plan.spec.cache_reads
    for _ in range(reads):
        with _credits(a, 0 if phase.prefill else plan.key_credits) as each:
            with a.loop(heads):
                if first_tokens(phase):
                    first_words = first_key_blocks(plan, phase, plan.key_block_words)
                    with a.loop(first_key_tiles(plan, phase)):
                        _ring(a, Destination.STREAM, first, first_words, each, each)
                with a.loop(key_tiles(plan, phase)):
                    _ring(a, Destination.STREAM, address, words, each, each)
    first = Address(cache + plan.cache_offsets["value"], layer | {HEAD: plan.value_words})
    for _ in range(reads):
        with _credits(a, 0 if phase.prefill else plan.value_credits) as each:
            with a.loop(fixed(plan.value_blocks)):
                _values(a, phase, first, each)


def _cache_scales(
    a: Assembler, plan: Plan, phase: Phase, cache: int, layer: dict[int, int]
) -> None:
    """Scales of the keys and values seen, of all heads."""
    strides = {HEAD: plan.context_words}
    names = ("key_scale", "value_scale")
    first = {n: Address(cache + plan.cache_offsets[n], layer | strides) for n in names}
    unit = plan.word_elements
    words = phase.seen(unit, UNBOUNDED)
    with a.loop(fixed(plan.kv_heads)):
        if not first_tokens(phase):
            for name in names:
                address = _behind(phase, first[name], unit, 1)
                _input(a, plan, name, address, words, strides=strides)
            return
        for name in names:
            _input(a, plan, name, first[name], phase.first(unit), strides=strides)
        with a.loop(if_any(Register.REST)):
            for name in names:
                address = _behind(phase, first[name], unit, 1)
                place = Place(plan.input.taken[name][0] + first_tokens(phase) // unit, strides)
                _input(a, plan, name, address, words, place=place)


def _values(a: Assembler, phase: Phase, first: Address, each: int) -> None:
    """A block of values: those seen, one behind the other."""
    unit, unit_words = CACHE_STEP.span, CACHE_STEP.block_words(1)
    address = _behind(phase, first, unit, unit_words)
    words = value_steps(phase, unit_words)
    if not first_tokens(phase):
        _ring(a, Destination.STREAM, address, words, each, each)
        return
    # Either way the matrix engine waits for one token, and gives one credit back.
    first_words = phase.first(unit, unit_words)
    with a.loop(if_any(Register.REST)):
        _ring(a, Destination.STREAM, first, first_words, wait=each)
        _ring(a, Destination.STREAM, address, words, signal=each)
    with a.unless(Condition.REST):
        _ring(a, Destination.STREAM, first, first_words, each, each)


def _behind(phase: Phase, first: Address, unit: int, words: int) -> Address:
    """Where the tokens behind those skipped begin, if `unit` tokens take so many words from `first` on."""
    if phase.mask is None:
        return first
    return replace(first, register=Register.SKIPPED, shift=unit.bit_length() - 1, factor=words)


@contextmanager
def _credits(a: Assembler, credits: int) -> Iterator[int]:
    """Loads that share so many credits and one token for MPE; 0: each has its own. Yields what each waits for and signals."""
    a.sync_times(credits, wait=_MPE)
    yield 0 if credits else _MPE
    a.sync_times(min(credits, 1), signal=_MPE)
