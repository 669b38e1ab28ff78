"""ST's instruction stream: the new keys, values and their scales of every layer."""

from hw.spec.instructions import Opcode, Pattern, Register, Unit
from mapping.lowering.assembler import Address, Assembler, Place, fixed, units
from mapping.lowering.levels import DECODE, LAYER, Phase, chunks, prefill_phase
from mapping.lowering.plan import CACHE_STEP, Plan, Segment

_TOKEN_OF_CHUNK = 2
"""Level of the loop over the tokens of a chunk, within a layer."""


def lower_store(plan: Plan) -> Assembler:
    """Instruction stream of ST."""
    a = Assembler(Unit.ST)
    a.sync(signal=units(Unit.SFU))
    if plan.chunk:
        phase = prefill_phase(plan)
        with a.loop(chunks(plan)):
            _layers(a, plan, phase)
            a.emit(Opcode.INCREMENT, **phase.rows.fields("count"))
    with a.token_loop():
        a.leave_at_end()
        _layers(a, plan, DECODE)
    return a


def _layers(a: Assembler, plan: Plan, phase: Phase) -> None:
    for segment in plan.segments:
        with a.loop(fixed(segment.layers)):
            a.sync(wait=units(Unit.SFU))
            if phase.prefill:
                with a.loop(phase.rows):
                    _token(a, plan, segment, {_TOKEN_OF_CHUNK: 1})
                    a.emit(Opcode.INCREMENT, **fixed(1).fields("count"))
                a.emit(Opcode.INCREMENT, backward=1, **phase.rows.fields("count"))
            else:
                _token(a, plan, segment, {})
            a.sync(signal=units(Unit.LD, Unit.SFU))


def _token(a: Assembler, plan: Plan, segment: Segment, strides: dict[int, int]) -> None:
    """Key, value and scales of one token; `strides` has the loop that goes through the store buffer, if there is one."""
    spec, heads = plan.spec, plan.kv_heads
    rows, elements = spec.matrix_rows, CACHE_STEP.span
    value_bytes = min(rows, plan.value_heads * plan.head)

    def store(name: str, source: str, pattern: Pattern, per_word: int, factor: int, count: int, pitch: int,
              source_pitch: int, steps: int = 1) -> None:  # fmt: skip
        base = plan.cache + segment.first * plan.cache_stride + plan.cache_offsets[name]
        shift = per_word.bit_length() - 1
        pitches = {level: plan.store_pitch[source] // 4 for level in strides}
        a.execute(
            pattern=int(pattern),
            rows=count,
            pitch=pitch,
            steps=steps,
            source_pitch=source_pitch,
            **Address(base, {LAYER: plan.cache_stride}, Register.POSITION, shift, factor).fields(),
            **Place(plan.store.taken[source][0] // 4, pitches).fields("source"),
        )

    store("key", "k", Pattern.COLUMN, rows, plan.key_block_words, heads, plan.key_head, plan.head // 4,
          plan.head // elements)  # fmt: skip
    store("value", "v", Pattern.SPREAD, elements, CACHE_STEP.block_words(1), plan.value_blocks,
          plan.value_words, value_bytes // 4)  # fmt: skip
    for name in ("key_scale", "value_scale"):
        store(name, name, Pattern.SCALAR, plan.word_elements, 1, heads, plan.context_words, 1)
