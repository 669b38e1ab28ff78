"""Loop levels that the units of a compiled program agree on, and counts that follow the tokens seen so far."""

from dataclasses import dataclass, replace

from hw.spec.instructions import COUNT_BITS, Opcode, Register
from mapping.attention_mask import AttentionMask
from mapping.lowering.assembler import Assembler, Count, fixed
from mapping.lowering.plan import CACHE_STEP, QUERIES, Plan
from mapping.lowering.tiles import MatrixPart, MatrixPlan

TOKEN, LAYER, TILE = 0, 1, 2
HEAD, PART = 2, 3
"""In attention: the KV head, and the tile of keys or the block of value dimensions."""
HEAD_TILE = 1
"""The output head stands outside the layer loop."""

UNBOUNDED = (1 << COUNT_BITS) - 1


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
    mask : AttentionMask or None
        Then REST, behind SKIP, is what POSITION is otherwise.
    """

    tokens: int
    rows: Count
    behind: int
    mask: AttentionMask | None = None

    @property
    def prefill(self) -> bool:
        """Many tokens at a time, of the prompt only."""
        return self.behind == 0

    def seen(self, unit: int, cap: int, scale: int = 1, level: int = 0, step: int = 0) -> Count:
        """Units of a power of two of tokens that hold all tokens seen: `cap` at most, `step` less each round of `level`.

        Of a mask: all tokens but those that SKIP says.
        """
        register = Register.REST if self.mask else Register.POSITION
        shift = unit.bit_length() - 1
        return Count(cap, unit - 1 + self.behind, register, shift, scale, level, step)

    def first(self, unit: int, scale: int = 1) -> Count:
        """Units that hold the first tokens of a mask, or all tokens while they are fewer; none without a mask."""
        tokens = first_tokens(self)
        shift = unit.bit_length() - 1
        return Count(-(-tokens // unit) * scale, unit - 1, Register.POSITION, shift, scale)

    def skip(self, a: Assembler) -> None:
        """SKIPPED = what the tokens of the chunk at POSITION do not see; nothing without a mask."""
        if self.mask:
            block = self.mask.block
            count = Count(UNBOUNDED, 0, Register.POSITION, block.bit_length() - 1, block)
            a.emit(Opcode.SKIP, less=self.mask.full_tokens, **count.fields("count"))

    def skip_first(self, a: Assembler) -> None:
        """Take the first tokens of a mask for skipped, too, so that REST is what is behind them."""
        if self.mask and self.mask.first_tokens:
            count = Count(UNBOUNDED, self.mask.first_tokens, Register.SKIPPED)
            a.emit(Opcode.SKIP, **count.fields("count"))

    def unskip_first(self, a: Assembler) -> None:
        """Undo `skip_first`."""
        if self.mask and self.mask.first_tokens:
            count = Count(UNBOUNDED, 0, Register.SKIPPED)
            a.emit(Opcode.SKIP, less=self.mask.first_tokens, **count.fields("count"))


DECODE = Phase(1, fixed(1), 1)


def prefill_phase(plan: Plan) -> Phase:
    """Chunks of `plan.chunk` tokens, the last of which may be smaller."""
    chunk = plan.chunk
    rows = Count(cap=chunk, offset=0, register=Register.PROMPT_LENGTH, level=TOKEN, step=chunk)
    return Phase(chunk, rows, 0, plan.mask)


def chunks(plan: Plan) -> Count:
    """Rounds of the prefill loop."""
    chunk = plan.chunk
    shift = chunk.bit_length() - 1
    return Count(UNBOUNDED, offset=chunk - 1, register=Register.PROMPT_LENGTH, shift=shift)


def key_tiles(plan: Plan, phase: Phase) -> Count:
    """Tiles of keys that hold the tokens seen."""
    return phase.seen(plan.key_tile_blocks * plan.spec.matrix_rows, UNBOUNDED)


def key_blocks(plan: Plan, phase: Phase, scale: int = 1) -> Count:
    """Blocks of keys in the tile of loop PART, times `scale`."""
    tile = plan.key_tile_blocks * scale
    return phase.seen(plan.spec.matrix_rows, tile, scale, PART, tile)


def first_tokens(phase: Phase) -> int:
    """Tokens that a mask always keeps; then what is seen is in two parts."""
    return phase.mask.first_tokens if phase.mask else 0


def first_key_tiles(plan: Plan, phase: Phase) -> Count:
    """Tiles of the first keys of a mask."""
    return phase.first(plan.key_tile_blocks * plan.spec.matrix_rows)


def first_key_blocks(plan: Plan, phase: Phase, scale: int = 1) -> Count:
    """Blocks of the first keys of a mask in the tile of loop PART, times `scale`."""
    first = phase.first(plan.spec.matrix_rows, scale)
    tile = plan.key_tile_blocks * scale
    if first.cap <= tile:
        return first
    return replace(first, cap=tile, level=PART, step=tile)


def value_steps(phase: Phase, scale: int = 1) -> Count:
    """Steps along the tokens of a block of values, times `scale`."""
    return phase.seen(CACHE_STEP.span, UNBOUNDED, scale)


def product_tiles(plan: Plan, matrix: MatrixPlan, part: MatrixPart, phase: Phase) -> int:
    """Tiles of one product; the last one's may be fewer, and then LD gives tokens for empty tiles.

    In decode a tile is multiplied as soon as it has come. In prefill it meets several passes, and comes early: up to half of
    the rings are multiplied at a time, while the other half is loaded.
    """
    alone = matrix.name == QUERIES and heads_of_tile(plan, matrix, phase)
    if not phase.prefill or len(part.pieces) > 1 or alone:
        return 1
    most = max(1, plan.credits // 2 // part.tile_credits)
    return -(-part.tiles // -(-part.tiles // most))


def products(plan: Plan, matrix: MatrixPlan, phase: Phase) -> int:
    """Products of a matrix, each of one or several tiles."""
    return sum(-(-part.tiles // product_tiles(plan, matrix, part, phase)) for part in matrix.parts)


def heads_of_tile(plan: Plan, queries: MatrixPlan, phase: Phase) -> int:
    """Heads of each tile of the queries, with which SFU begins while MPE goes on; 0: it waits for all of them."""
    outputs = {part.tile_blocks * plan.spec.matrix_rows for part in queries.parts}
    if not phase.prefill or len(outputs) > 1:
        return 0
    (each,) = outputs
    tiles = sum(part.tiles for part in queries.parts)
    return (
        each // plan.head if each % plan.head == 0 and tiles * each == plan.heads * plan.head else 0
    )


def gate_products(plan: Plan, joined: MatrixPlan, phase: Phase) -> tuple[int, int]:
    """Products of gate and up projection, which are one matrix, until all gates are there; and the others."""
    (part,) = joined.parts
    together = product_tiles(plan, joined, part, phase)
    outputs = together * part.tile_blocks * plan.spec.matrix_rows
    gates = -(-plan.ffn_outputs // outputs)
    return gates, products(plan, joined, phase) - gates


def rounds_of_heads(plan: Plan) -> list[tuple[int, int, int]]:
    """KV heads in prefill by blocks of values: the first of them, rounds of a loop, heads of each."""
    rounds, rest = divmod(plan.kv_heads, plan.value_heads)
    groups = ((0, rounds, plan.value_heads), (rounds * plan.value_heads, 1, rest))
    # The heads that are left over stand behind the loop, where its index is zero again.
    return [(first, count, size) for first, count, size in groups if size and count]
