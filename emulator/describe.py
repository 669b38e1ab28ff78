"""Instructions in words, for traces and reports."""

from collections.abc import Sequence

from emulator.decode import COUNT, OPCODE, TARGET, UnitCode
from emulator.errors import IllegalInstruction
from emulator.units.matrix_check import step_format
from emulator.units.wires import is_wired
from hw.spec.instructions import (
    COUNT_BITS,
    Destination,
    Opcode,
    Pattern,
    Reduce,
    Register,
    Target,
    Unit,
)
from hw.spec.weight_format import StepFormat

LOOPS = ("layer", "tile", "part")
"""Inside a loop over tokens, or over chunks of the prompt."""
HEAD_LOOPS = ("tile", "part", "part")
"""The same for a loop that has no other one inside, as the output head's."""


class Names:
    """Names of one unit's instructions.

    Parameters
    ----------
    code : UnitCode
        Loops are taken to be those of a compiled program: tokens, layers, tiles.
    """

    def __init__(self, code: UnitCode) -> None:
        self.unit = code.unit
        self._kinds = [_kind(code.unit, fields) for fields in code.fields]
        self._loops = _open_loops(code)

    def instruction(self, pc: int, indices: Sequence[int]) -> str:
        """For example "MPE pc 12 8-bit token 0 layer 3 tile 1"."""
        where = [f"{name} {index}" for name, index in zip(self._loops[pc], indices, strict=False)]
        return " ".join(filter(None, [f"{self.unit.name} pc {pc}", self._kinds[pc], *where]))


def _open_loops(code: UnitCode) -> list[tuple[str, ...]]:
    """Names of the loops that are open at each instruction."""
    result: list[tuple[str, ...]] = []
    names: list[str] = []
    for pc, row in enumerate(code.table):
        if row[OPCODE] == Opcode.END_LOOP and names:
            names.pop()
        result.append(tuple(names))
        if row[OPCODE] == Opcode.LOOP:
            names.append(_loop_name(code, pc, len(names)))
    return result


def _loop_name(code: UnitCode, pc: int, depth: int) -> str:
    """What a loop goes over, in a compiled program."""
    if depth == 0:
        # The loop over tokens has no bound of its own: it ends with END.
        cap, register = code.table[pc, COUNT : COUNT + 2]
        endless = cap == (1 << COUNT_BITS) - 1 and register == Register.ZERO
        return "token" if endless else "chunk"
    inside = code.table[pc + 1 : code.table[pc, TARGET], OPCODE]
    names = LOOPS if depth > 1 or (inside == Opcode.LOOP).any() else HEAD_LOOPS
    return names[min(depth, len(names)) - 1]


def _kind(unit: Unit, fields: dict[str, int]) -> str:
    """What the instruction does, in a word or two; empty if its fields make no sense."""
    if fields["opcode"] == Opcode.SYNC:
        return "sync"
    if fields["opcode"] != Opcode.EXECUTE:
        return ""
    if unit == Unit.LD:
        return _enum_name(Destination, fields["destination"])
    if unit == Unit.ST:
        return _enum_name(Pattern, fields["pattern"])
    if unit == Unit.MPE:
        if is_wired(fields):
            return "wires"
        try:
            return step_name(step_format(fields))
        except IllegalInstruction:
            return ""
    if unit == Unit.SFU:
        reduced = _enum_name(Reduce, fields["reduce"]) if fields["reduce"] else ""
        target = f"to {_enum_name(Target, fields['target'])}" if fields["target"] else ""
        return " ".join(filter(None, [reduced, target]))
    return "token"


def step_name(step: StepFormat) -> str:
    """Weight format and sparsity, for example "INT4" or "INT4 4 of 16"."""
    if not step.kept:
        return step.weight.name
    return f"{step.weight.name} {step.kept} of 16{' bitmap' if step.bitmap else ''}"


def _enum_name(
    kind: type[Destination] | type[Pattern] | type[Reduce] | type[Target], value: int
) -> str:
    return kind(value).name.lower() if value in list(kind) else ""
