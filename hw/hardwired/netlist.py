"""Networks of full adders, half adders, gates and registers, built cell by cell."""

import enum
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from hw.hardwired.counts import CellCounts

__all__ = ["ONE", "ZERO", "Cell", "CellKind", "Netlist"]

ZERO, ONE = 0, 1
"""The nets that are constant."""


class CellKind(enum.IntEnum):
    """What a cell does; inputs and outputs are in the order that is given here."""

    FULL_ADDER = 0
    """a, b, c -> sum, carry."""
    HALF_ADDER = 1
    """a, b -> sum, carry."""
    HALF_ADDER_ONE = 2
    """a, b -> sum and carry of a + b + 1."""
    NOT = 3
    AND = 4
    OR = 5
    XOR = 6
    MULTIPLEXER = 7
    """select, a, b -> b if select, else a."""
    REGISTER = 8
    """d -> q, on every enabled cycle."""
    CLEARED = 9
    """d -> q, but 0 after an enabled cycle with `clear`."""
    PRESET = 10
    """d -> q, but 1 after an enabled cycle with `clear`."""


REGISTERS = (CellKind.REGISTER, CellKind.CLEARED, CellKind.PRESET)

_COUNTED_AS = {
    CellKind.FULL_ADDER: ("full_adders",),
    CellKind.HALF_ADDER: ("half_adders",),
    CellKind.HALF_ADDER_ONE: ("half_adders",),
    CellKind.NOT: ("inverters",),
    CellKind.AND: ("gates",),
    CellKind.OR: ("gates",),
    CellKind.XOR: ("xors",),
    CellKind.MULTIPLEXER: ("multiplexers",),
    CellKind.REGISTER: ("registers",),
    CellKind.CLEARED: ("registers", "gates"),
    CellKind.PRESET: ("registers", "gates"),
}


class Cell(NamedTuple):
    """One cell: its kind, the nets that it reads and the nets that it drives."""

    kind: CellKind
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class Netlist:
    """A network under construction: nets are numbers, cells are added by methods that return their outputs.

    Constants are folded as cells are added: an adder with a constant input becomes a smaller one, and
    inverting a net twice costs one inverter. So what is counted is what is needed.

    Parameters
    ----------
    keep : bool
        Keep the cells. Without them a network of any size is counted in little memory.

    Members
    -------
    cells : list of Cell
        In an order in which every cell but a register follows the cells that drive it.
    inputs, outputs : dict of str to list of int
        Nets of each port, lowest bit first.
    """

    def __init__(self, keep: bool = True):
        self.keep = keep
        self.cells: list[Cell] = []
        self.inputs: dict[str, list[int]] = {}
        self.outputs: dict[str, list[int]] = {}
        self.nets = 2
        self._tally: Counter[CellKind] = Counter()
        self._memory_bits = 0
        self._inverse: dict[int, int] = {ZERO: ONE, ONE: ZERO}
        self._registers: dict[int, CellKind] = {}

    # ------------------------------------------------------------------------------------------ ports

    def input(self, name: str, width: int) -> list[int]:
        """Nets of a new input port."""
        self.inputs[name] = list(range(self.nets, self.nets + width))
        self.nets += width
        return self.inputs[name]

    def output(self, name: str, nets: Sequence[int]) -> None:
        """Make nets an output port."""
        self.outputs[name] = list(nets)

    # ------------------------------------------------------------------------------------------ cells

    def full_adder(self, a: int, b: int, c: int) -> tuple[int, int]:
        """Sum and carry of three bits."""
        if a > ONE and b > ONE and c > ONE:
            return self._adder(CellKind.FULL_ADDER, (a, b, c))
        constant, *others = sorted((a, b, c))
        if constant == ZERO:
            return self.half_adder(others[0], others[1])
        # The smallest is ONE.
        if others[0] == ONE:
            return others[1], ONE
        return self._adder(CellKind.HALF_ADDER_ONE, (others[0], others[1]))

    def half_adder(self, a: int, b: int) -> tuple[int, int]:
        """Sum and carry of two bits."""
        if a > ONE and b > ONE:
            return self._adder(CellKind.HALF_ADDER, (a, b))
        constant, other = sorted((a, b))
        if constant == ZERO:
            return other, ZERO
        return self.invert(other), other

    def invert(self, a: int) -> int:
        """NOT; the same net for the same input."""
        found = self._inverse.get(a)
        if found is None:
            found = self._gate(CellKind.NOT, (a,))
            self._inverse[a] = found
            self._inverse[found] = a
        return found

    def both(self, a: int, b: int) -> int:
        """AND."""
        if a > ONE and b > ONE:
            return a if a == b else self._gate(CellKind.AND, (a, b))
        constant, other = sorted((a, b))
        return ZERO if constant == ZERO else other

    def either(self, a: int, b: int) -> int:
        """OR."""
        if a > ONE and b > ONE:
            return a if a == b else self._gate(CellKind.OR, (a, b))
        constant, other = sorted((a, b))
        return other if constant == ZERO else ONE

    def differ(self, a: int, b: int) -> int:
        """XOR."""
        if a > ONE and b > ONE:
            return ZERO if a == b else self._gate(CellKind.XOR, (a, b))
        constant, other = sorted((a, b))
        return other if constant == ZERO else self.invert(other)

    def select(self, choice: int, a: int, b: int) -> int:
        """`b` where `choice` is 1, else `a`."""
        if a == b:
            return a
        if choice <= ONE:
            return b if choice else a
        if a == ZERO:
            return self.both(choice, b)
        if b == ONE:
            return self.either(choice, a)
        if a == ONE:
            return self.either(self.invert(choice), b)
        if b == ZERO:
            return self.both(self.invert(choice), a)
        return self._gate(CellKind.MULTIPLEXER, (choice, a, b))

    def register(self, kind: CellKind = CellKind.REGISTER) -> int:
        """Output of a new register, whose input is given later by `drive`."""
        net = self.nets
        self.nets += 1
        self._registers[net] = kind
        return net

    def drive(self, register: int, value: int) -> None:
        """Connect the input of a register; once for each."""
        kind = self._registers.pop(register)
        self._tally[kind] += 1
        if self.keep:
            self.cells.append(Cell(kind, (value,), (register,)))

    def registered(self, value: int, kind: CellKind = CellKind.REGISTER) -> int:
        """Output of a new register with that input."""
        register = self.register(kind)
        self.drive(register, value)
        return register

    def add_counted(self, full_adders: int, half_adders: int) -> None:
        """Count adders without building them; for a network whose cells are not kept."""
        self._tally[CellKind.FULL_ADDER] += full_adders
        self._tally[CellKind.HALF_ADDER] += half_adders

    def count_memory(self, bits: int) -> None:
        """Count bits of a memory that holds weights, beside the network."""
        self._memory_bits += bits

    def fresh(self) -> int:
        """A net that nothing drives; for a network whose cells are not kept."""
        self.nets += 1
        return self.nets - 1

    def _adder(self, kind: CellKind, inputs: tuple[int, ...]) -> tuple[int, int]:
        total = self.nets
        self.nets = total + 2
        self._tally[kind] += 1
        if self.keep:
            self.cells.append(Cell(kind, inputs, (total, total + 1)))
        return total, total + 1

    def _gate(self, kind: CellKind, inputs: tuple[int, ...]) -> int:
        net = self.nets
        self.nets = net + 1
        self._tally[kind] += 1
        if self.keep:
            self.cells.append(Cell(kind, inputs, (net,)))
        return net

    # ---------------------------------------------------------------------------------------- figures

    def counts(self) -> CellCounts:
        """Cells by kind."""
        counter: Counter[str] = Counter({"memory_bits": self._memory_bits})
        for kind, number in self._tally.items():
            for name in _COUNTED_AS[kind]:
                counter[name] += number
        return CellCounts.from_counter(counter)

    def depth(self) -> int:
        """Cells but inverters on the longest path between ports and registers; cells must be kept."""
        levels = [0] * self.nets
        for cell in self.cells:
            if cell.kind in REGISTERS:
                continue
            level = max(levels[net] for net in cell.inputs) + (cell.kind is not CellKind.NOT)
            for net in cell.outputs:
                levels[net] = level
        ends = [levels[cell.inputs[0]] for cell in self.cells if cell.kind in REGISTERS]
        ends += [levels[net] for nets in self.outputs.values() for net in nets]
        return max(ends, default=0)
