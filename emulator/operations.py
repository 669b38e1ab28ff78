"""Instructions made ready for the functional machine, once a program: what is fixed is computed beforehand."""

from dataclasses import dataclass

from emulator import sequencer as seq
from emulator.decode import UnitCode
from emulator.errors import IllegalProgram
from hw.spec.instructions import ADDRESS_BITS, LOOP_DEPTH, Opcode, Register, Unit, operation_fields

_ADDRESS_MASK = (1 << ADDRESS_BITS) - 1


@dataclass(frozen=True, slots=True)
class Instruction:
    """One unit instruction.

    Attributes
    ----------
    pc : int
    givers, takers : tuple of int
        Units of the wait and the signal mask.
    sync : bool
    operation : dict
        What the unit receives (`operation_fields`). `evaluate` writes to it, so it holds until the next call.
    changing : tuple of (str, int)
        Fields that registers or loop indices change, with their columns in an entry.
    token_shift, token_factor : int
        What TOKEN adds to the address; factor 0: nothing.
    """

    pc: int
    givers: tuple[int, ...]
    takers: tuple[int, ...]
    sync: bool
    operation: dict[str, int]
    changing: tuple[tuple[str, int], ...]
    token_shift: int
    token_factor: int

    def evaluate(self, entry: list[int], token: int) -> dict[str, int]:
        """The operation with the operands of an entry of `emulator.sequencer.expand`."""
        operation = self.operation
        for name, column in self.changing:
            operation[name] = entry[column]
        if self.token_factor:
            address = entry[seq.WORD] + (token >> self.token_shift) * self.token_factor
            operation["address"] = address & _ADDRESS_MASK
        return operation


def prepare(code: UnitCode) -> list[Instruction]:
    """Instructions of a unit by program counter; those that are not unit instructions are not meant to be used."""
    return [_prepare(code, pc, fields) for pc, fields in enumerate(code.fields)]


def _prepare(code: UnitCode, pc: int, fields: dict[str, int]) -> Instruction:
    executes = fields["opcode"] == Opcode.EXECUTE
    changing = _changing(code, fields) if executes else []
    operation: dict[str, int] = {}
    if executes:
        known = {name for name, _ in changing}
        operation = {name: fields.get(name, 0) for name, _ in operation_fields(code.unit)}
        # Operands that nothing changes.
        for name in code.counts:
            if name not in known:
                operation[name] = _fixed_count(fields, name)
        for name in (*code.buffers, "address"):
            if name not in known and f"{name}_base" in fields:
                operation[name] = fields[f"{name}_base"]
    by_token = fields.get("address_register") == Register.TOKEN
    return Instruction(
        pc=pc,
        givers=_units(fields["wait"]),
        takers=_units(fields["signal"]),
        sync=not executes,
        operation=operation,
        changing=tuple(changing),
        token_shift=fields.get("address_shift", 0),
        token_factor=fields.get("address_factor", 0) if by_token else 0,
    )


def _units(mask: int) -> tuple[int, ...]:
    return tuple(int(unit) for unit in Unit if mask >> unit & 1)


def _changing(code: UnitCode, fields: dict[str, int]) -> list[tuple[str, int]]:
    """Names and entry columns of the operands that are not the same every time."""
    result: list[tuple[str, int]] = []
    for i, name in enumerate(code.counts):
        if fields[f"{name}_register"] != Register.ZERO or fields[f"{name}_step"]:
            result.append((name, seq.COUNTS + i))
    for i, name in enumerate(code.buffers):
        if fields[f"{name}_stride0"] or fields.get(f"{name}_stride1", 0):
            result.append((name, seq.BUFFERS + i))
    if "address_base" in fields:
        moves = fields["address_register"] != Register.ZERO
        if moves or any(fields[f"address_stride{level}"] for level in range(LOOP_DEPTH)):
            result.append(("address", seq.WORD))
    if code.unit == Unit.ST:
        result.append(("lane", seq.LANE))
    if code.unit == Unit.SYS:
        result.append(("position", seq.POSITION))
    return result


def _fixed_count(fields: dict[str, int], name: str) -> int:
    value = (fields[f"{name}_offset"] >> fields[f"{name}_shift"]) * fields[f"{name}_scale"]
    return min(fields[f"{name}_cap"], value)


def check_registers(code: UnitCode) -> None:
    """Refuse registers that there are not, and operands that would let timing depend on data.

    Raises
    ------
    IllegalProgram
        If a register has no name, a count depends on TOKEN, or an address does that is not marked as random.
    """
    for pc, fields in enumerate(code.fields):
        for name in (*code.counts, "count", "address"):
            if fields.get(f"{name}_register", 0) >= len(Register):
                number = fields[f"{name}_register"]
                raise IllegalProgram(f"{code.unit.name} at {pc}: {name}: no register {number}")
        for name in (*code.counts, "count"):
            if fields.get(f"{name}_register") == Register.TOKEN:
                raise IllegalProgram(f"{code.unit.name} at {pc}: {name} depends on TOKEN")
        if fields.get("address_register") == Register.TOKEN and not fields.get("random"):
            raise IllegalProgram(
                f"{code.unit.name} at {pc}: address depends on TOKEN and is not random"
            )
