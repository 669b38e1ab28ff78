"""The DSP cascade of a row of the matrix engine: whose products join it where, and how late its operands are.

A row has eight slots, each with one product or two of a common factor a step. Every slice of the cascade adds the products of
its slot to the sum of the slice below it, a cycle behind it; so operands arrive a cycle later from slice to slice. A slot
without a slice multiplies in lookup tables, and its product enters a slice's port C.
"""

from dataclasses import dataclass
from functools import cached_property

from hw.spec.machine import MachineSpec

__all__ = [
    "SLOTS",
    "RowCascade",
    "cascade_cycles",
    "row_cascade",
    "row_kinds",
    "rows_together",
    "slot_delays",
]

SLOTS = 8
"""Multipliers of a row: an even and an odd one for each byte of weights."""


@dataclass(frozen=True)
class RowCascade:
    """Slices of a row, and the slots beside them.

    Attributes
    ----------
    slices : tuple of int
        Slots that have slices, in the order of the cascade.
    logic : tuple of int
        Slots that multiply in lookup tables; number i enters slice i.
    first : int
        Cycles by which the operands of the first slice are later than they could be, so that sums of all kinds of rows of
        a machine are complete in the same cycle.
    """

    slices: tuple[int, ...]
    logic: tuple[int, ...] = ()
    first: int = 0

    @cached_property
    def delays(self) -> tuple[int, ...]:
        """Of each slot: cycles by which its operands are later than they could be."""
        places = {slot: place for place, slot in enumerate(self.slices)}
        places |= {slot: place for place, slot in enumerate(self.logic)}
        return tuple(self.first + places[slot] for slot in range(SLOTS))

    @property
    def cycles(self) -> int:
        """Cycles from the operands of a slot that is not late to those of the last slice, both included."""
        return self.first + len(self.slices)


def rows_together(spec: MachineSpec) -> int:
    """Rows that share multipliers: two weights that meet the same activation go into one DSP slice."""
    alone = spec.matrix_element != "dsp" or spec.sparse or spec.matrix_columns > 1
    return 1 if alone else 2


def row_kinds(spec: MachineSpec) -> tuple[int, ...]:
    """Numbers of slots in lookup tables that rows of a machine have."""
    return tuple(sorted({spec.row_logic_slots(row) for row in range(spec.matrix_rows)}))


def row_cascade(spec: MachineSpec, logic_slots: int) -> RowCascade:
    """Cascade of those rows of a machine that have this many slots in lookup tables.

    Only odd slots, whose weights have few bits, multiply in lookup tables, the last ones first. Where some rows have a slice for
    such a slot, it is the first of the cascade, and the others just lack it. Behind it even slots come before odd ones: the
    first few delays are registers, longer ones are shift registers of lookup tables, one for each bit of a weight.
    """
    odd = list(reversed(range(1, SLOTS, 2)))
    logic = odd[:logic_slots]
    leading = odd[: max(row_kinds(spec))] if len(row_kinds(spec)) > 1 else []
    order = [*leading, *range(0, SLOTS, 2), *odd]
    slices = [slot for slot in dict.fromkeys(order) if slot not in logic]
    first = len(set(leading) & set(logic))
    return RowCascade(tuple(slices), tuple(logic), first)


def slot_delays(spec: MachineSpec, logic_slots: int) -> tuple[int, ...]:
    """Of each slot of such a row: cycles by which its operands are late; none without a cascade."""
    if spec.matrix_element != "dsp":
        return (0,) * SLOTS
    return row_cascade(spec, logic_slots).delays


def cascade_cycles(spec: MachineSpec) -> int:
    """Cycles by which the sums of a row are later than those of a single slice would be, and one."""
    return row_cascade(spec, spec.row_logic_slots(0)).cycles
