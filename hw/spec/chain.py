"""The sparse DSP chain: geometry, latencies, and where its low lane has to be kept from overflowing.

N:M sparsity with M = 16: of 16 neighbours along K, N weights are kept (0, 2, 4, 8 or 16), and N may
change with every beat. 2:4 is a case of 8:16. From FlightLLM (FPGA'24): DSP groups, sparse
multiplexers, reduction nodes at group ends, and overflow adjust units between groups.
"""

import enum
from dataclasses import dataclass
from functools import cached_property

from hw.spec.dsp import LANE_BITS, PAIR_LATENCY, Multiplier, bits_to_keep, safe_depth

CANDIDATES = 16
"""M: activations that a sparse multiplexer chooses from."""
INDEX_BITS = 4
KEPT = (0, 2, 4, 8, 16)
"""Values of N, in the order of their codes."""
KEPT_BITS = 3
QUEUE_LATENCY = 3
"""Cycles that a chain between streams takes longer: entry, memory and exit of the FIFO behind it."""
METADATA_BITS = CANDIDATES * INDEX_BITS
"""Index information of a beat of 16 cells, in whatever format."""


class IndexFormat(enum.IntEnum):
    """How a beat's index information is written."""

    DENSE = 0
    """Nothing: cell j takes activation j (N = 16)."""
    INDEX = 1
    """Four bits a kept weight, the first weight's lowest: bits 4j of cell j."""
    BITMAP = 2
    """16 bits an output, bit p for neighbour p; only N = 4 and N = 8, where it is not the larger one."""
    TWO_OF_FOUR = 3
    """Two bits a kept weight (N = 8): cells 2q and 2q + 1 of an output choose among neighbours 4q ... 4q + 3."""


def metadata_bits(index_format: IndexFormat, kept: int) -> int:
    """Bits of index information that 16 kept weights need.

    Raises
    ------
    ValueError
        If the format does not know this N.
    """
    if index_format is IndexFormat.DENSE and kept == 16:
        return 0
    if index_format is IndexFormat.INDEX and kept in (2, 4, 8, 16):
        return CANDIDATES * INDEX_BITS
    if index_format is IndexFormat.BITMAP and kept in (4, 8):
        return CANDIDATES * (CANDIDATES // kept)
    if index_format is IndexFormat.TWO_OF_FOUR and kept == 8:
        return 2 * CANDIDATES
    raise ValueError(f"no {index_format.name} format for {kept} of {CANDIDATES}")


@dataclass(frozen=True, kw_only=True)
class ChainSpec:
    """One chain of cells, each with one weight for two activations or two weights for one.

    Parameters
    ----------
    cells : int
        DSP slices: 2, 4, 8 or 16; N is at most this.
    group : int
        Cells of a group; an output can end behind each group, so this is the least N above 0.
    weight_magnitude, activation_magnitude : int
        Largest magnitudes of the operands: 128 for full INT8, 127 without -128, 8 for INT4.
    multiplier : Multiplier
        Who multiplies.
    adjust_registers : int
        Cycles that a word takes from a group to the next where it is adjusted, beyond those of a
        cascade: 1 is the slice's own register C; more are in fabric.
    tag_bits : int
        Bits that accompany a beat unchanged.
    """

    cells: int = CANDIDATES
    group: int = 2
    weight_magnitude: int = 128
    activation_magnitude: int = 128
    multiplier: Multiplier = Multiplier.MODEL
    adjust_registers: int = 1
    tag_bits: int = 1

    def __post_init__(self) -> None:
        if self.cells not in KEPT[1:]:
            raise ValueError(f"cells must be one of {KEPT[1:]}, not {self.cells!r}")
        if self.group not in KEPT[1:] or self.group > self.cells:
            raise ValueError(f"group must be one of {KEPT[1:]} up to cells, not {self.group!r}")
        for name in ("weight_magnitude", "activation_magnitude"):
            if not 1 <= getattr(self, name) <= 128:
                raise ValueError(f"{name} must be 1 to 128, not {getattr(self, name)!r}")
        if self.adjust_registers < 1:
            raise ValueError(f"adjust_registers must be at least 1, not {self.adjust_registers!r}")
        if self.tag_bits < 1:
            raise ValueError(f"tag_bits must be at least 1, not {self.tag_bits!r}")
        if self.cells > self._segment == 0:
            raise ValueError(f"a group of {self.group} may overflow the low lane")

    @cached_property
    def largest_product(self) -> int:
        """Largest magnitude of a product."""
        return self.weight_magnitude * self.activation_magnitude

    @cached_property
    def _segment(self) -> int:
        """Most cells, in whole groups, that a low lane takes."""
        return safe_depth(self.largest_product) // self.group * self.group

    @cached_property
    def adjusted_cells(self) -> tuple[int, ...]:
        """Cells in front of which the low lane is adjusted; none where it cannot overflow."""
        return tuple(range(self._segment, self.cells, self._segment))

    @cached_property
    def kept_bits(self) -> int:
        """Low bits of the low lane that stay in the cascade where it is adjusted."""
        return bits_to_keep(self.largest_product, min(self._segment, self.cells))

    @cached_property
    def split_bits(self) -> int:
        """Signed bits of the low lane that leave the cascade there."""
        return LANE_BITS - self.kept_bits

    @property
    def outputs(self) -> int:
        """Groups: places where an output may end."""
        return self.cells // self.group

    @cached_property
    def output_bits(self) -> int:
        """Signed bits of an output that hold any sum of the chain."""
        return (self.cells * self.largest_product).bit_length() + 1

    @cached_property
    def skew(self) -> tuple[int, ...]:
        """Cycles that each cell is behind the first one."""
        delays = [0]
        for cell in range(1, self.cells):
            fabric = self.adjust_registers if cell in self.adjusted_cells else 0
            delays.append(delays[-1] + 1 + fabric)
        return tuple(delays)

    @cached_property
    def node_times(self) -> tuple[int, ...]:
        """Cycles from the operands of the first cell to the word at the end of each group."""
        ends = range(self.group - 1, self.cells, self.group)
        return tuple(self.skew[cell] + PAIR_LATENCY for cell in ends)

    @property
    def latency(self) -> int:
        """Cycles from a beat to its outputs: sparse multiplexers, chain, reduction node."""
        return 1 + self.node_times[-1] + 1

    @property
    def kept_values(self) -> tuple[int, ...]:
        """Values of N that this chain can do."""
        return tuple(n for n in KEPT if n == 0 or self.group <= n <= self.cells)

    def ends(self, kept: int) -> tuple[int, ...]:
        """Groups behind which an output ends, for N = `kept`."""
        if kept == 0:
            return ()
        return tuple(g for g in range(self.outputs) if (g + 1) * self.group % kept == 0)
