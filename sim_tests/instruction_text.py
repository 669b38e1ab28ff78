"""Instructions and operations for people and for checks: decoded text, operands evaluated one by one.

The evaluation is written from the formulas of `docs/isa.md`, apart from the emulator's compiled one, for
messages and for the program generator; it is not fast.
"""

from collections.abc import Mapping, Sequence

from hw.spec.instructions import (
    ADDRESS_BITS,
    BUFFER_BITS,
    EXECUTE,
    Condition,
    Destination,
    Opcode,
    Pattern,
    Reduce,
    Register,
    Source,
    Target,
    Unit,
    decode,
    operation_fields,
)

_ENUMERATIONS = {
    "destination": Destination,
    "pattern": Pattern,
    "reduce": Reduce,
    "target": Target,
    "a_source": Source,
    "b_source": Source,
    "c_source": Source,
    "condition": Condition,
}
_OPERATION_FIELDS = {unit: [name for name, _ in operation_fields(unit)] for unit in Unit}
_EXECUTE_NAMES = {unit: {field.name for field in EXECUTE[unit]} for unit in Unit}

Registers = Mapping[Register, int]


def instruction_text(unit: Unit, word: int) -> str:
    """Decoded instruction in one line; fields that are zero are left out."""
    try:
        fields = decode(unit, word)
    except ValueError:
        return f"illegal opcode {word & 0xF}"
    opcode = Opcode(fields.pop("opcode"))
    parts = [opcode.name]
    for name in ("wait", "signal"):
        mask = fields.pop(name)
        if mask:
            parts.append(f"{name}={'+'.join(u.name for u in Unit if mask >> u & 1)}")
    for name, value in fields.items():
        kind = None if name == "target" and opcode != Opcode.EXECUTE else _ENUMERATIONS.get(name)
        if kind is not None and value in list(kind):
            parts.append(f"{name}={kind(value).name}")
        elif value:
            parts.append(f"{name}={value}")
    return " ".join(parts)


def evaluate_count(
    fields: Mapping[str, int], name: str, indices: Sequence[int], registers: Registers
) -> int:
    """A count operand; `name` is `count` for LOOP."""
    value = registers.get(Register(fields[f"{name}_register"]), 0) + fields[f"{name}_offset"]
    value = (value >> fields[f"{name}_shift"]) * fields[f"{name}_scale"]
    value -= indices[fields[f"{name}_level"]] * fields[f"{name}_step"]
    return min(fields[f"{name}_cap"], max(0, value))


def evaluate_operation(
    unit: Unit, fields: Mapping[str, int], indices: Sequence[int], registers: Registers
) -> dict[str, int]:
    """Fields that the unit receives (`operation_fields`) for an EXECUTE.

    Parameters
    ----------
    unit : Unit
    fields : mapping
        Every field of the instruction.
    indices : sequence of int
        The four loop indices.
    registers : mapping of Register to int
        Run-time registers; those not given are zero.
    """
    values: dict[str, int] = {"sync": 0}
    for name in _OPERATION_FIELDS[unit]:
        if f"{name}_cap" in _EXECUTE_NAMES[unit]:
            values[name] = evaluate_count(fields, name, indices, registers)
        elif f"{name}_base" in _EXECUTE_NAMES[unit] and name != "address":
            values[name] = _buffer(fields, name, indices)
        elif name in _EXECUTE_NAMES[unit]:
            values[name] = fields[name]
    if "address_base" in _EXECUTE_NAMES[unit]:
        register = registers.get(Register(fields["address_register"]), 0)
        shift = fields["address_shift"]
        address = fields["address_base"] + (register >> shift) * fields["address_factor"]
        address += sum(index * fields[f"address_stride{i}"] for i, index in enumerate(indices))
        values["address"] = address % (1 << ADDRESS_BITS)
        values["lane"] = register % (1 << shift)
    if unit == Unit.SYS:
        values["position"] = registers.get(Register.POSITION, 0)
    return values


def _buffer(fields: Mapping[str, int], name: str, indices: Sequence[int]) -> int:
    value = fields[f"{name}_base"]
    for term in ("0", "1"):
        if f"{name}_level{term}" in fields:
            value += indices[fields[f"{name}_level{term}"]] * fields[f"{name}_stride{term}"]
    return value % (1 << BUFFER_BITS)


def operation_place(unit: Unit, operation: Mapping[str, int]) -> str:
    """Where an EXECUTE writes first, in words: the address that a difference report names."""
    match unit:
        case Unit.LD:
            into = Destination(operation["destination"]).name.lower()
            return f"memory word {operation['address']:#x} to {into} {operation['buffer']}"
        case Unit.ST:
            return f"memory word {operation['address']:#x} lane {operation['lane']}"
        case Unit.MPE:
            return f"result row {operation['result']}"
        case Unit.SYS:
            return f"token {operation['position']}"
    target, reduce = Target(operation["target"]), Reduce(operation["reduce"])
    places = [f"{target.name.lower()} {operation['d']}"] if target else []
    if reduce == Reduce.ARGMAX:
        places = ["ARGMAX"]
    elif reduce:
        places.append(f"scalar {operation['reduce_entry']}")
    return " and ".join(places) or "nothing written"
