"""Block-sparse attention in prefill: which keys the tokens of a prompt attend to.

The tokens of a block of queries see the keys of the first blocks and of a diagonal band of blocks, the last of which is
their own; causal within it. All other keys are neither loaded nor multiplied, and the softmax does not know of them.
Decoding attends to everything, as in FlightLLM (FPGA'24, arXiv 2401.03868), whose masks have blocks of 64 x 64 tokens
and keep 30 % of the causal pairs on average.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hw.spec.errors import InputError
from mapping.frontend.files import shown

__all__ = ["AttentionMask", "parse_mask"]

_MOST_BLOCK = 1 << 15
_MOST_BLOCKS = 1 << 20


@dataclass(frozen=True)
class AttentionMask:
    """Which keys each token of a prompt attends to, all heads and layers alike.

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

    def visible(self, queries: npt.ArrayLike, keys: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Whether each query position [T] sees each key position [P]: bool [T, P]."""
        query, key = np.asarray(queries)[:, None], np.asarray(keys)[None]
        hidden = (key >= self.first_tokens) & (key < self.first_tokens + self.skipped(query))
        return (key <= query) & ~hidden

    def density(self, tokens: int) -> float:
        """Share of the causal pairs of query and key that is seen in a prompt of so many tokens."""
        skipped = int(self.skipped(np.arange(tokens)).sum())
        return 1 - skipped / (tokens * (tokens + 1) // 2)

    def describe(self, tokens: int) -> str:
        """One line for a user."""
        return (
            f"attention mask: blocks of {self.block} tokens, the first {self.first_blocks} and a band of {self.band_blocks}; "
            f"a prompt of {tokens} tokens keeps {self.density(tokens):.1%} of the causal pairs"
        )


def parse_mask(content: Any, where: str) -> AttentionMask:
    """The mask of a recipe.

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
    for name, least, most in zip(known, (2, 0, 1), (_MOST_BLOCK, *2 * [_MOST_BLOCKS]), strict=True):
        value = content.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise InputError(
                f"{where}: {name}: expected a whole number from {least} to {most}, found {shown(value)}"
            )
    mask = AttentionMask(*(content[name] for name in known))
    if mask.block & (mask.block - 1):
        raise InputError(f"{where}: block: expected a power of two, found {mask.block}")
    return mask
