"""Loop levels that the units of a compiled program agree on, and counts that follow the tokens seen so far."""

from dataclasses import dataclass

from hw.spec.instructions import Register
from mapping.lowering.assembler import Count, fixed
from mapping.lowering.plan import CACHE_STEP, Plan

TOKEN, LAYER, TILE = 0, 1, 2
HEAD, PART = 2, 3
"""In attention: the KV head, and the tile of keys or the block of value dimensions."""
HEAD_TILE = 1
"""The output head stands outside the layer loop."""

UNBOUNDED = (1 << 20) - 1


@dataclass(frozen=True)
class Phase:
    """Decode, a token a round of loop TOKEN; or prefill, a chunk of tokens a round.

    Attributes
    ----------
    tokens : int
        Tokens of a round, at most.
    rows : Count
        Tokens of this round.
    behind : int
        What POSITION of LD and MPE lacks to the number of tokens seen, this round's included: they count a chunk
        before they begin with it, and a decoded token after it.
    """

    tokens: int
    rows: Count
    behind: int

    @property
    def prefill(self) -> bool:
        """Many tokens at a time, of the prompt only."""
        return self.behind == 0

    def seen(self, unit: int, cap: int, scale: int = 1, level: int = 0, step: int = 0) -> Count:
        """Units of a power of two of tokens that hold all tokens seen: `cap` at most, `step` less each round of `level`."""
        return Count(
            cap=cap,
            offset=unit - 1 + self.behind,
            register=Register.POSITION,
            shift=unit.bit_length() - 1,
            scale=scale,
            level=level,
            step=step,
        )


DECODE = Phase(1, fixed(1), 1)


def prefill_phase(plan: Plan) -> Phase:
    """Chunks of `plan.chunk` tokens, the last of which may be smaller."""
    chunk = plan.chunk
    rows = Count(cap=chunk, offset=0, register=Register.PREFILL_LENGTH, level=TOKEN, step=chunk)
    return Phase(chunk, rows, 0)


def chunks(plan: Plan) -> Count:
    """Rounds of the prefill loop."""
    chunk = plan.chunk
    shift = chunk.bit_length() - 1
    return Count(UNBOUNDED, offset=chunk - 1, register=Register.PREFILL_LENGTH, shift=shift)


def key_tiles(plan: Plan, phase: Phase) -> Count:
    """Tiles of keys that hold the tokens seen."""
    return phase.seen(plan.key_tile_blocks * plan.spec.matrix_rows, UNBOUNDED)


def key_blocks(plan: Plan, phase: Phase, scale: int = 1) -> Count:
    """Blocks of keys in the tile of loop PART, times `scale`."""
    tile = plan.key_tile_blocks * scale
    return phase.seen(plan.spec.matrix_rows, tile, scale, PART, tile)


def value_steps(phase: Phase, scale: int = 1) -> Count:
    """Steps along the tokens of a block of values, times `scale`."""
    return phase.seen(CACHE_STEP.span, UNBOUNDED, scale)
