"""LD's instruction stream: weights, keys and values in the order of use, vectors for the vector unit."""

from hw.spec.instructions import Condition, Destination, Register, Unit
from mapping.lowering.assembler import Address, Assembler, Count, Place, fixed, tiled, units
from mapping.lowering.levels import (
    HEAD,
    HEAD_TILE,
    LAYER,
    PART,
    TILE,
    key_blocks,
    key_tiles,
    value_steps,
)
from mapping.lowering.plan import CACHE_STEP, LAYER_MATRICES, Plan, Segment
from mapping.lowering.tiles import MatrixPlan

_MPE, _SFU, _ST = units(Unit.MPE), units(Unit.SFU), units(Unit.ST)


def lower_load(plan: Plan) -> Assembler:
    """Instruction stream of LD."""
    a = Assembler(Unit.LD)
    with a.token_loop():
        _input(a, plan, "embedding", Address(plan.embedding, {}, Register.TOKEN, 0, plan.embedding_stride),
               plan.hidden_words, wait=_SFU, random=1)  # fmt: skip
        rope = Address(plan.rope, {}, Register.POSITION, 0, plan.rope_words)
        _input(a, plan, "rope", rope, plan.rope_words, signal=_SFU)
        for segment in plan.segments:
            with a.loop(fixed(segment.layers)):
                _layer(a, plan, segment)
        with a.unless(Condition.PREFILL):
            _input(a, plan, "norm", Address(plan.norm), plan.hidden_words, wait=_SFU, signal=_SFU)
            _matrix(a, plan.head_matrix, plan.head_base, {}, HEAD_TILE)
    return a


def _input(
    a: Assembler,
    plan: Plan,
    name: str,
    address: Address,
    words: int,
    wait: int = 0,
    signal: int = 0,
    random: int = 0,
) -> None:
    a.execute(
        wait,
        signal,
        destination=int(Destination.INPUT),
        random=random,
        **address.fields(),
        **fixed(words).fields("length"),
        **Place(plan.input.taken[name][0]).fields("buffer"),
    )


def _layer(a: Assembler, plan: Plan, segment: Segment) -> None:
    for name in LAYER_MATRICES:
        if name == "self_attn.k_proj":
            _norm(a, plan, segment, "input_layernorm")
        elif name == "self_attn.o_proj":
            _attention(a, plan, segment)
        elif name == "mlp.gate_proj":
            _norm(a, plan, segment, "post_attention_layernorm")
        base = segment.base + segment.offsets[name]
        _matrix(a, segment.matrices[name], base, {LAYER: segment.stride}, TILE)


def _norm(a: Assembler, plan: Plan, segment: Segment, name: str) -> None:
    address = Address(segment.base + segment.offsets[name], {LAYER: segment.stride})
    _input(a, plan, name, address, plan.hidden_words, wait=_SFU, signal=_SFU)


def _matrix(
    a: Assembler, matrix: MatrixPlan, base: int, strides: dict[int, int], level: int
) -> None:
    """Tiles of a matrix: the scales of a tile, then its weights."""
    tile, blocks = matrix.tile_blocks, matrix.blocks
    scale_words = tiled(blocks * matrix.block_scale_words, tile * matrix.block_scale_words, level)
    words = tiled(blocks * matrix.block_words, tile * matrix.block_words, level)
    strides = strides | {level: matrix.tile_words}
    scale_end = base + tile * matrix.block_scale_words
    with a.loop(fixed(matrix.tiles)):
        _ring(a, Destination.SCALE, Address(base, strides), scale_words, wait=_MPE)
        _ring(a, Destination.STREAM, Address(scale_end, strides), words, signal=_MPE)


def _ring(
    a: Assembler, ring: Destination, address: Address, words: Count, wait: int = 0, signal: int = 0
) -> None:
    a.execute(wait, signal, destination=int(ring), **address.fields(), **words.fields("length"))


def _attention(a: Assembler, plan: Plan, segment: Segment) -> None:
    """Scales of keys and values, then keys, then values, once this token's own are stored."""
    cache = plan.cache + segment.first * plan.cache_stride
    layer = {LAYER: plan.cache_stride}
    heads = fixed(plan.kv_heads)
    elements = plan.word_elements
    scale_words = Count(
        cap=plan.context_words,
        offset=elements,
        register=Register.POSITION,
        shift=elements.bit_length() - 1,
    )
    a.sync(wait=_ST | _SFU)
    with a.loop(heads):
        for name in ("key_scale", "value_scale"):
            a.execute(
                destination=int(Destination.INPUT),
                **Address(
                    cache + plan.cache_offsets[name], layer | {HEAD: plan.context_words}
                ).fields(),
                **scale_words.fields("length"),
                **Place(plan.input.taken[name][0], {HEAD: plan.context_words}).fields("buffer"),
            )
    a.sync(signal=_SFU)
    with a.loop(heads), a.loop(key_tiles(plan)):
        tile_words = plan.key_tile_blocks * plan.key_block_words
        address = Address(
            cache + plan.cache_offsets["key"], layer | {HEAD: plan.key_head, PART: tile_words}
        )
        _ring(a, Destination.STREAM, address, key_blocks(plan, plan.key_block_words), _MPE, _MPE)
    with a.loop(fixed(plan.value_blocks)):
        address = Address(cache + plan.cache_offsets["value"], layer | {HEAD: plan.value_words})
        _ring(
            a, Destination.STREAM, address, value_steps(plan, CACHE_STEP.block_words(1)), _MPE, _MPE
        )
