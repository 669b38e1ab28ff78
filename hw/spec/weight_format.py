"""Number formats of weights in the stream of the matrix engine, and how many words a step of each takes.

`docs/isa.md` states the order of bits; `hw.spec.layout` packs matrices by it.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["BLOCK_ELEMENTS", "KEPT", "WIRES", "StepFormat", "WeightFormat", "step_formats"]

BLOCK_ELEMENTS = 16
"""Elements along K of which a sparse block keeps N: the M of N:M."""
KEPT = (0, 8, 4, 2)
"""Elements kept of each block, by the code of the `kept` field; 0 is dense."""
WIRES = 7
"""Code of the `format` field for a product with a hardwired matrix; `steps` is the number of the matrix."""


class WeightFormat(enum.IntEnum):
    """Formats of weights; the values are the codes of the `format` field of MPE's instructions."""

    INT8 = 0
    INT4 = 1
    INT2 = 2
    INT3 = 3
    INT5 = 4
    FP4 = 5
    """E2M1 of the OCP Microscaling specification, taken as an integer: twice its value."""

    @property
    def bits(self) -> int:
        """Bits of a weight."""
        return {"INT8": 8, "INT4": 4, "INT2": 2, "INT3": 3, "INT5": 5, "FP4": 4}[self.name]

    @property
    def step_weights(self) -> int:
        """Weights of one row in a step."""
        return 4 if self.bits > 4 else 8

    @property
    def largest(self) -> int:
        """Largest magnitude of a weight as the matrix engine sees it."""
        return 12 if self is WeightFormat.FP4 else 1 << self.bits - 1


@dataclass(frozen=True)
class StepFormat:
    """What a step of the matrix engine takes from the stream.

    Attributes
    ----------
    weight : WeightFormat
    kept : int
        Elements kept of every 16 (8, 4, 2), or 0: dense.
    bitmap : bool
        Metadata are bitmaps, not indices.

    Raises
    ------
    ValueError
        If there is no such combination.
    """

    weight: WeightFormat
    kept: int = 0
    bitmap: bool = False

    def __post_init__(self) -> None:
        if self.kept not in KEPT:
            raise ValueError(f"kept must be one of {KEPT}, not {self.kept}")
        if self.bitmap and (self.kept != 8 or self.weight.step_weights != 8):
            raise ValueError("bitmaps need 8 kept of 16, and weights of at most 4 bits")

    @property
    def span(self) -> int:
        """Elements along K that a step covers."""
        weights = self.weight.step_weights
        return weights * BLOCK_ELEMENTS // self.kept if self.kept else weights

    @property
    def alignment(self) -> int:
        """Elements of which activation vectors begin at a multiple."""
        return max(self.span, BLOCK_ELEMENTS) if self.kept else self.span

    @property
    def cycles(self) -> int:
        """Cycles of a step: metadata and weights are read one after the other."""
        return 2 if self.kept else 1

    @property
    def metadata_words(self) -> int:
        """Stream words of metadata in front of the weights of a step."""
        if not self.kept:
            return 0
        return 1 if self.bitmap or self.weight.step_weights == 4 else 2

    @property
    def weight_quarters(self) -> int:
        """Quarters of a word that the weights of a step fill (a word is 16 bits a row: a quarter, 4)."""
        return self.weight.step_weights * self.weight.bits // 4

    def block_words(self, steps: int) -> int:
        """Stream words of a block of `steps` steps; it begins with a whole word."""
        if self.kept:
            return steps * (self.metadata_words - -self.weight_quarters // 4)
        return -(-steps * self.weight_quarters // 4)


def step_formats(names: Sequence[str], sparse: bool) -> list[StepFormat]:
    """Every step format of a machine that is built with the weight formats of these names."""
    weights = [WeightFormat[name] for name in names]
    formats = [StepFormat(weight) for weight in weights]
    if sparse:
        formats += [StepFormat(weight, kept) for weight in weights for kept in KEPT if kept]
        formats += [StepFormat(weight, 8, True) for weight in weights if weight.step_weights == 8]
    return formats
