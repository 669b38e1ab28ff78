"""The reference of all instructions, written from their tables: ``python -m hw.spec.manual``."""

import enum
import re
from pathlib import Path

from hw.spec import instructions
from hw.spec.functions import Function
from hw.spec.instructions import CONTROL, EXECUTE, HEADER, Field, Opcode, Unit, instruction_bits
from hw.spec.output import atomic_write

MANUAL = Path(__file__).resolve().parents[2] / "docs" / "instructions.md"

_INTRODUCTION = """\
# Instructions of the flight processor

Written by `python -m hw.spec.manual` from the tables of `hw/spec/instructions.py`; [isa.md](isa.md) says what
they mean and when. An instruction is a little-endian integer; the fields of its opcode follow each other from
bit 0 on, all unsigned. Encoding version {version}; up to {depth} nested loops.
"""

_TITLES = {
    Unit.LD: "LD, load",
    Unit.ST: "ST, store",
    Unit.MPE: "MPE, matrix engine",
    Unit.SFU: "SFU, vector unit",
    Unit.SYS: "SYS, token loop",
}
_CHOICES = ("Register", "Condition", "Destination", "Pattern", "Source", "Reduce", "Target")


def instruction_manual() -> str:
    """The whole text of `docs/instructions.md`."""
    parts = [
        _INTRODUCTION.format(version=instructions.ENCODING_VERSION, depth=instructions.LOOP_DEPTH)
    ]
    parts.append("## Every sequencer\n")
    rows = [(f"`{opcode.name}`", str(int(opcode)), _comment(Opcode, opcode)) for opcode in Opcode]
    parts.append(_table(("opcode", "code", "meaning"), rows))
    parts.append("Every instruction begins with these fields:\n")
    parts.append(_field_table(HEADER, 0))
    start = sum(field.width for field in HEADER)
    for opcode, fields in CONTROL.items():
        if fields:
            parts.append(f"### {opcode.name}\n")
            parts.append(_field_table(fields, start))
    for unit in Unit:
        parts.append(f"## {_TITLES[unit]}: {instruction_bits(unit)} bits an instruction\n")
        if EXECUTE[unit]:
            parts.append("EXECUTE:\n")
            parts.append(_field_table(EXECUTE[unit], start))
        else:
            parts.append("EXECUTE has no fields of its own.\n")
    parts.append("## Codes\n")
    for name in _CHOICES:
        choice = getattr(instructions, name)
        parts.append(f"### {name}\n\n{choice.__doc__}\n")
        rows = [
            (f"`{member.name}`", str(member.value), _comment(choice, member)) for member in choice
        ]
        parts.append(_table(("name", "code", "meaning"), rows))
    parts.append(f"### Function\n\n{Function.__doc__}\n")
    rows = [
        (f"`{member.name}`", str(member.value), _function_comment(member)) for member in Function
    ]
    parts.append(_table(("name", "code", "meaning"), rows))
    return "\n".join(parts).rstrip() + "\n"


def _field_table(fields: list[Field], start: int) -> str:
    rows = []
    for field in fields:
        end = start + field.width - 1
        bits = str(start) if field.width == 1 else f"{end}:{start}"
        rows.append((bits, f"`{field.name}`", field.doc))
        start = end + 1
    return _table(("bits", "field", "meaning"), rows)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in (head, *rows)]
    lines.insert(1, "|" + "---|" * len(head))
    return "\n".join(lines) + "\n"


def _comment(kind: type[enum.Enum], member: enum.Enum) -> str:
    """The text behind a member in the source, which Python itself forgets."""
    source = Path(instructions.__file__).read_text(encoding="utf-8")
    body = source.partition(f"class {kind.__name__}(")[2].partition("\n\n\n")[0]
    found = re.search(rf'^    {member.name} = \S+\n    """(.*?)"""', body, re.MULTILINE | re.DOTALL)
    return " ".join(found[1].split()) if found else ""


def _function_comment(member: Function) -> str:
    source = (Path(__file__).parent / "functions.py").read_text(encoding="utf-8")
    found = re.search(rf"^    #: (.*)\n    {member.name} =", source, re.MULTILINE)
    return found[1] if found else ""


def main() -> None:
    """Write `docs/instructions.md`."""
    with atomic_write(MANUAL) as part:
        part.write_text(instruction_manual(), encoding="utf-8")


if __name__ == "__main__":
    main()
