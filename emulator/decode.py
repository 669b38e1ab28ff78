"""Decoded instructions: a table of numbers for compiled loops, and fields by name for the units."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hw.spec.instructions import EXECUTE, LOOP_DEPTH, Opcode, Unit, decode

COUNT_PARTS = ("cap", "register", "offset", "shift", "scale", "level", "step")
BUFFER_PARTS = ("base", "level0", "stride0", "level1", "stride1")
MAX_COUNTS = 3
MAX_BUFFERS = 4

# Columns of the table.
OPCODE, WAIT, SIGNAL, TARGET, CONDITION, CLOSE, BACKWARD, LESS = range(8)
COUNT = 8
ADDRESS = COUNT + MAX_COUNTS * len(COUNT_PARTS)
ADDRESS_REGISTER, ADDRESS_SHIFT, ADDRESS_FACTOR = ADDRESS + 1, ADDRESS + 2, ADDRESS + 3
STRIDE = ADDRESS + 4
BUFFER = STRIDE + LOOP_DEPTH
COLUMNS = BUFFER + MAX_BUFFERS * len(BUFFER_PARTS)

Table = npt.NDArray[np.int64]
_PLAIN = ("opcode", "wait", "signal", "target", "condition", "close", "backward", "less")


@dataclass(frozen=True)
class UnitCode:
    """Decoded instructions of one unit.

    Attributes
    ----------
    unit : Unit
    table : int64 [instructions, COLUMNS]
        What `emulator.sequencer.expand` reads.
    fields : list of dict
        The same instructions as decoded fields, by program counter.
    counts, buffers : list of str
        Names of the evaluated operands, in the order of an entry's columns.
    """

    unit: Unit
    table: Table
    fields: list[dict[str, int]]
    counts: list[str]
    buffers: list[str]


def decode_unit(unit: Unit, words: list[int]) -> UnitCode:
    """Decode a unit's instruction words; illegal opcodes become `Opcode.ILLEGAL` rows."""
    names = [field.name for field in EXECUTE[unit]]
    counts = [name[:-4] for name in names if name.endswith("_cap")]
    buffers = [name[:-5] for name in names if name.endswith("_base") and name != "address_base"]
    fields = [_decode(unit, word) for word in words]
    table = np.zeros((len(words), COLUMNS), np.int64)
    for row, values in zip(table, fields, strict=True):
        _fill(row, values, counts if "count_cap" not in values else ["count"], buffers)
    return UnitCode(unit, table, fields, counts, buffers)


def _decode(unit: Unit, word: int) -> dict[str, int]:
    try:
        return decode(unit, word)
    except ValueError:
        return {"opcode": int(Opcode.ILLEGAL), "wait": 0, "signal": 0}


def _fill(row: Table, values: dict[str, int], counts: list[str], buffers: list[str]) -> None:
    """Write the fields of one instruction to its row of the table."""
    for column, name in enumerate(_PLAIN):
        row[column] = values.get(name, 0)
    for i, operand in enumerate(counts):
        for j, part in enumerate(COUNT_PARTS):
            row[COUNT + i * len(COUNT_PARTS) + j] = values.get(f"{operand}_{part}", 0)
    for j, part in enumerate(("base", "register", "shift", "factor")):
        row[ADDRESS + j] = values.get(f"address_{part}", 0)
    for level in range(LOOP_DEPTH):
        row[STRIDE + level] = values.get(f"address_stride{level}", 0)
    for i, operand in enumerate(buffers):
        for j, part in enumerate(BUFFER_PARTS):
            row[BUFFER + i * len(BUFFER_PARTS) + j] = values.get(f"{operand}_{part}", 0)
