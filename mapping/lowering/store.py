"""ST's instruction stream: the new key, value and their scales of every layer."""

from hw.spec.instructions import Pattern, Register, Unit
from mapping.lowering.assembler import Address, Assembler, Place, fixed, units
from mapping.lowering.levels import LAYER
from mapping.lowering.plan import CACHE_STEP, Plan, Segment


def lower_store(plan: Plan) -> Assembler:
    """Instruction stream of ST."""
    a = Assembler(Unit.ST)
    a.sync(signal=units(Unit.SFU))
    with a.token_loop():
        for segment in plan.segments:
            with a.loop(fixed(segment.layers)):
                _layer(a, plan, segment)
    return a


def _layer(a: Assembler, plan: Plan, segment: Segment) -> None:
    spec, heads = plan.spec, plan.kv_heads
    rows, elements = spec.matrix_rows, CACHE_STEP.span
    value_bytes = min(rows, plan.value_heads * plan.head)

    def store(name: str, source: str, pattern: Pattern, per_word: int, factor: int, count: int, pitch: int,
              source_pitch: int, steps: int = 1, wait: int = 0, signal: int = 0) -> None:  # fmt: skip
        base = plan.cache + segment.first * plan.cache_stride + plan.cache_offsets[name]
        shift = per_word.bit_length() - 1
        a.execute(
            wait,
            signal,
            pattern=int(pattern),
            rows=count,
            pitch=pitch,
            steps=steps,
            source_pitch=source_pitch,
            **Address(base, {LAYER: plan.cache_stride}, Register.POSITION, shift, factor).fields(),
            **Place(plan.store.taken[source][0] // 4).fields("source"),
        )

    store("key", "k", Pattern.COLUMN, rows, plan.key_block_words, heads, plan.key_head, plan.head // 4,
          plan.head // elements, wait=units(Unit.SFU))  # fmt: skip
    store(
        "value",
        "v",
        Pattern.SPREAD,
        elements,
        CACHE_STEP.block_words(1),
        plan.value_blocks,
        plan.value_words,
        value_bytes // 4,
    )
    store(
        "key_scale",
        "key_scale",
        Pattern.SCALAR,
        plan.word_elements,
        1,
        heads,
        plan.context_words,
        1,
    )
    store("value_scale", "value_scale", Pattern.SCALAR, plan.word_elements, 1, heads, plan.context_words, 1,
          signal=units(Unit.LD, Unit.SFU))  # fmt: skip
