"""Block-sparse attention in prefill: which keys the tokens of a prompt attend to.

The tokens of a block of queries see the keys of the first blocks and of a diagonal band of blocks, the last of which is
their own; causal within it. How many of each may differ from head to head. The softmax does not know of other keys.
Those that no head sees are neither loaded nor multiplied, as far as they are whole blocks of the matrix engine's; what is left
of them is hidden, head by head, by a large number that is taken off their scores.
Decoding attends to everything, as in FlightLLM (FPGA'24, arXiv 2401.03868), whose masks have blocks of 64 x 64 tokens
and keep 30 % of the causal pairs on average.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hw.spec.errors import InputError
from mapping.frontend.files import shown

__all__ = ["HIDDEN", "AttentionMask", "HeadMasks", "parse_mask"]

_MOST_BLOCK = 1 << 15
_MOST_BLOCKS = 1 << 20
_MOST_HEADS = 1024
HIDDEN = np.float32(-(2.0**100))
"""Added to the score of a key that is not seen: its power of two, relative to that of a score below 2**76, is zero."""


@dataclass(frozen=True)
class AttentionMask:
    """Which keys each token of a prompt attends to in one head.

    Attributes
    ----------
    block : int
        Tokens of a block, a power of two.
    first_blocks, band_blocks : int
        Blocks at the beginning of the prompt, and up to the query's own, that are seen.
    """

    block: int
    first_blocks: int
    band_blocks: int

    @property
    def first_tokens(self) -> int:
        """Tokens at the beginning that are always seen."""
        return self.first_blocks * self.block

    @property
    def full_tokens(self) -> int:
        """Tokens before a query's own block that it sees at most."""
        return self.first_tokens + (self.band_blocks - 1) * self.block

    def skipped(self, position: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Tokens before each position that it does not see; they lie behind the first blocks."""
        own = np.asarray(position, np.int64) // self.block * self.block
        return np.maximum(0, own - self.full_tokens)

    def skips(self, tokens: int) -> bool:
        """Whether any of so many tokens does not see one before it."""
        return bool(self.skipped(tokens - 1) > 0)

    def hidden(self, queries: npt.ArrayLike, keys: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Whether each query position [T] skips each key position [P] before it: bool [T, P]."""
        query, key = np.asarray(queries)[:, None], np.asarray(keys)[None]
        return (key >= self.first_tokens) & (key < self.first_tokens + self.skipped(query))

    def visible(self, queries: npt.ArrayLike, keys: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Whether each query position [T] sees each key position [P]: bool [T, P]."""
        causal = np.asarray(keys)[None] <= np.asarray(queries)[:, None]
        return causal & ~self.hidden(queries, keys)


@dataclass(frozen=True)
class HeadMasks:
    """Masks of blocks of one size, dealt to the query heads of every layer in turn.

    Attributes
    ----------
    masks : tuple of AttentionMask
        Head h has that of number h modulo their number.
    """

    masks: tuple[AttentionMask, ...]

    @property
    def block(self) -> int:
        """Tokens of a block."""
        return self.masks[0].block

    def of_head(self, head: int) -> AttentionMask:
        """The mask of a query head of the model."""
        return self.masks[head % len(self.masks)]

    def skips(self, tokens: int) -> bool:
        """Whether any of so many tokens does not see one before it in some head."""
        return any(mask.skips(tokens) for mask in self.masks)

    def cover(self, rows: int) -> AttentionMask:
        """The smallest mask of whole blocks of `rows` keys that sees what any of these sees."""
        block = max(self.block, rows)
        first = max(-(-mask.first_tokens // block) for mask in self.masks)
        band = max(-(-(mask.band_blocks - 1) * mask.block // block) for mask in self.masks)
        return AttentionMask(block, first, band + 1)

    def visible(
        self, heads: int, queries: npt.ArrayLike, keys: npt.ArrayLike
    ) -> npt.NDArray[np.bool_]:
        """Whether each query position [T] sees each key position [P] in each of so many heads: bool [heads, T, P]."""
        found = [mask.visible(queries, keys) for mask in self.masks]
        return np.stack([found[head % len(found)] for head in range(heads)])

    def hiding(
        self, heads: range, cover: AttentionMask | None, tokens: int, keys: int
    ) -> npt.NDArray[np.float32]:
        """What is added to the scores of some heads: FP32 [blocks of `tokens` queries, heads, keys].

        The keys are the first `keys` of those that `cover` sees, or of all, in their order.
        """
        begin = np.arange(0, tokens, self.block)
        place = np.arange(keys)
        rows = np.zeros((len(begin), len(heads), keys), np.float32)
        for i, query in enumerate(begin):
            behind = place >= cover.first_tokens if cover else np.zeros(keys, bool)
            key = place + behind * (int(cover.skipped(query)) if cover else 0)
            for j, head in enumerate(heads):
                rows[i, j, self.of_head(head).hidden([query], key)[0]] = HIDDEN
        return rows

    def density(self, tokens: int) -> float:
        """Share of the causal pairs of query and key that is seen in a prompt of so many tokens, on average of the masks."""
        skipped = sum(int(mask.skipped(np.arange(tokens)).sum()) for mask in self.masks)
        return 1 - skipped / len(self.masks) / (tokens * (tokens + 1) // 2)

    def describe(self, tokens: int) -> str:
        """One line for a user."""

        def extent(blocks: list[int]) -> str:
            return " to ".join(str(n) for n in sorted({min(blocks), max(blocks)}))

        first = extent([mask.first_blocks for mask in self.masks])
        band = extent([mask.band_blocks for mask in self.masks])
        several = (
            f" ({len(self.masks)} masks, dealt to the heads in turn)" if self.masks[1:] else ""
        )
        return (
            f"attention mask: blocks of {self.block} tokens, the first {first} and a band of {band}{several}; "
            f"a prompt of {tokens} tokens keeps {self.density(tokens):.1%} of the causal pairs"
        )


def parse_mask(content: Any, where: str) -> HeadMasks:
    """The masks of a recipe; `first_blocks` and `band_blocks` are numbers, or lists of them, dealt to the heads in turn.

    Raises
    ------
    InputError
        If a field is missing, unknown or impossible.
    """
    known = ("block", "first_blocks", "band_blocks")
    if not isinstance(content, dict):
        raise InputError(f"{where}: expected {', '.join(known)}, found {shown(content)}")
    for name in content:
        if name not in known:
            raise InputError(f"{where}: {shown(name)}: unknown field (known: {', '.join(known)})")
    values: dict[str, list[Any]] = {}
    for name, least, most in zip(known, (2, 0, 1), (_MOST_BLOCK, *2 * [_MOST_BLOCKS]), strict=True):
        found = content.get(name)
        values[name] = found if isinstance(found, list) and name != "block" else [found]
        if not 1 <= len(values[name]) <= _MOST_HEADS:
            raise InputError(
                f"{where}: {name}: expected 1 to {_MOST_HEADS} numbers, found {len(values[name])}"
            )
        for value in values[name]:
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
                raise InputError(
                    f"{where}: {name}: expected a whole number from {least} to {most}, found {shown(value)}"
                )
    (block,) = values["block"]
    if block & (block - 1):
        raise InputError(f"{where}: block: expected a power of two, found {block}")
    first, band = values["first_blocks"], values["band_blocks"]
    if len(first) > 1 and len(band) > 1 and len(first) != len(band):
        raise InputError(
            f"{where}: band_blocks: expected as many numbers as first_blocks, {len(first)}, found {len(band)}"
        )
    count = max(len(first), len(band))
    pairs = [(first[i % len(first)], band[i % len(band)]) for i in range(count)]
    return HeadMasks(tuple(AttentionMask(block, *pair) for pair in pairs))
