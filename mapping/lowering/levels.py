"""Loop levels that the units of a compiled program agree on, and counts that follow POSITION."""

from hw.spec.instructions import Register
from mapping.lowering.assembler import Count
from mapping.lowering.plan import CACHE_STEP, Plan

TOKEN, LAYER, TILE = 0, 1, 2
HEAD, PART = 2, 3
"""In attention: the KV head, and the tile of keys or the block of value dimensions."""
HEAD_TILE = 1
"""The output head stands outside the layer loop."""

UNBOUNDED = (1 << 20) - 1


def sequence_length() -> Count:
    """Tokens that attention sees: POSITION + 1."""
    return Count(cap=UNBOUNDED, offset=1, register=Register.POSITION)


def key_tiles(plan: Plan) -> Count:
    """Tiles of keys that hold POSITION + 1 tokens."""
    tokens = plan.key_tile_blocks * plan.spec.matrix_rows
    return Count(
        cap=UNBOUNDED, offset=tokens, register=Register.POSITION, shift=tokens.bit_length() - 1
    )


def key_blocks(plan: Plan, scale: int = 1) -> Count:
    """Blocks of keys in the tile of loop PART, times `scale`."""
    rows, tile = plan.spec.matrix_rows, plan.key_tile_blocks * scale
    return Count(
        cap=tile,
        offset=rows,
        register=Register.POSITION,
        shift=rows.bit_length() - 1,
        scale=scale,
        level=PART,
        step=tile,
    )


def value_steps(plan: Plan, scale: int = 1) -> Count:
    """Steps along the tokens of a block of values, times `scale`."""
    elements = CACHE_STEP.span
    return Count(
        cap=UNBOUNDED,
        offset=elements,
        register=Register.POSITION,
        shift=elements.bit_length() - 1,
        scale=scale,
    )
