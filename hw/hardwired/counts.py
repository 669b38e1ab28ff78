"""How many cells of each kind a network has, and the area that follows from library cells."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields

__all__ = ["CELL_AREA", "MEMORY_BIT_AREA", "CellCounts"]

CELL_AREA = {
    "full_adders": 4.256,
    "half_adders": 2.660,
    "registers": 4.522,
    "multiplexers": 1.862,
    "xors": 1.596,
    "gates": 1.064,
    "inverters": 0.532,
}
"""um2 of FA_X1, HA_X1, DFF_X1, MUX2_X1, XOR2_X1, AND2_X1 (as OR2_X1) and INV_X1 of Nangate45 (published)."""

MEMORY_BIT_AREA = 0.5
"""um2 a bit of SRAM (assumed): cells of 0.35 to 0.37 um2 are published for 45 nm, and a third for the periphery."""


@dataclass(frozen=True, kw_only=True)
class CellCounts:
    """Cells of a network, counted by its generator; exact, and the primary measure of size.

    A half adder with a carry-in of one (XNOR and OR) counts as a half adder. Full adders whose carry
    nobody takes count as full adders.

    Parameters
    ----------
    full_adders, half_adders, registers, multiplexers, xors, gates, inverters : int
        Cells; `gates` are ANDs and ORs of two inputs, a register with a synchronous clear counts as a
        register and a gate.
    memory_bits : int
        Bits of memory that holds weights.
    """

    full_adders: int = 0
    half_adders: int = 0
    registers: int = 0
    multiplexers: int = 0
    xors: int = 0
    gates: int = 0
    inverters: int = 0
    memory_bits: int = 0

    @classmethod
    def from_counter(cls, counter: Mapping[str, int]) -> "CellCounts":
        """Counts by field name."""
        return cls(**{name: count for name, count in counter.items() if count})

    def __add__(self, other: "CellCounts") -> "CellCounts":
        total = Counter(self.as_dict())
        total.update(other.as_dict())
        return CellCounts.from_counter(total)

    def times(self, copies: int) -> "CellCounts":
        """Counts of that many copies."""
        return CellCounts(**{name: copies * count for name, count in self.as_dict().items()})

    def as_dict(self) -> dict[str, int]:
        """Counts by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def logic_area(self) -> float:
        """um2 of all cells; placement and wires are not in it."""
        return sum(CELL_AREA[name] * getattr(self, name) for name in CELL_AREA)

    @property
    def area(self) -> float:
        """um2 of all cells and of the memory."""
        return self.logic_area + MEMORY_BIT_AREA * self.memory_bits
