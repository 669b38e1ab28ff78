"""The compiled machine: tokens, sequencers and units in one loop, from token to token."""

from typing import NamedTuple

import numpy as np

from emulator import decode
from emulator import sequencer as seq
from emulator.compiled import compiled
from emulator.decode import OPCODE, SIGNAL, WAIT, UnitCode
from emulator.kernels.layout import (
    COLUMNS,
    CORES,
    LD,
    MPE,
    OPERATION_COLUMNS,
    SFU,
    SYS,
    UNITS,
    Flat,
    Integers,
    Scratch,
)
from emulator.kernels.matrix import format_of, matrix
from emulator.kernels.transfer import load, next_token, store
from emulator.kernels.vector import vector
from emulator.kernels.wires import wired
from emulator.operations import prepare
from emulator.state import END, TOKEN
from hw.spec.instructions import ADDRESS_BITS, SEMAPHORE_BITS, Register, Unit
from hw.spec.weight_format import WIRES

CHUNK = 256
# Columns of a unit in the run.
AT, COUNT, STATUS = range(3)
STUCK, TOKEN_SET, ILLEGAL, BAD_PROGRAM = range(4)
"""What `run_machine` returns: nothing can go on, SYS has set a token, or who must explain what is wrong."""

_FULL = (1 << SEMAPHORE_BITS) - 1
_REG_TOKEN = int(Register.TOKEN)
_MASK = (1 << ADDRESS_BITS) - 1
_FORMAT = COLUMNS[Unit.MPE]["format"]
_POSITION = COLUMNS[Unit.SYS]["position"]
_NOTHING, _MOVED, _TOKEN, _ILLEGAL, _BAD = range(5)


class Code(NamedTuple):
    """Instructions of all units, one behind the other.

    Attributes
    ----------
    table : int64 [instructions, decode.COLUMNS]
    operations : int64 [instructions, OPERATION_COLUMNS]
        Fields that nothing changes.
    first : int64 [UNITS + 1]
        Where each unit's begin.
    places : int64 [UNITS, operands]
        Place in an operation of each evaluated operand, in the order of an entry; -1: the unit has none.
    """

    table: Integers
    operations: Integers
    first: Integers
    places: Integers


class Progress(NamedTuple):
    """Where a run stands."""

    units: Integers
    sequencers: Integers
    entries: Integers
    tokens: Integers
    operation: Integers


def assemble(codes: dict[Unit, UnitCode]) -> Code:
    """What the compiled machine reads of a program."""
    sizes = [len(codes[unit].table) for unit in Unit]
    operations = np.zeros((sum(sizes), OPERATION_COLUMNS), np.int64)
    first = np.array([0, *np.cumsum(sizes)], np.int64)
    operands = seq.ENTRY_COLUMNS - seq.COUNTS
    places = np.full((UNITS, operands), -1, np.int64)
    for unit in Unit:
        code, columns = codes[unit], COLUMNS[unit]
        for pc, instruction in enumerate(prepare(code)):
            for name, value in instruction.operation.items():
                operations[first[unit] + pc, columns[name]] = value
        for i, name in enumerate(code.counts):
            places[unit, i] = columns[name]
        for i, name in enumerate(code.buffers):
            places[unit, seq.BUFFERS - seq.COUNTS + i] = columns[name]
        places[unit, seq.WORD - seq.COUNTS] = columns.get("address", -1)
        places[unit, seq.LANE - seq.COUNTS] = columns.get("lane", -1)
    table = np.concatenate([codes[unit].table for unit in Unit])
    return Code(table, operations, first, places)


def new_progress() -> Progress:
    """Before the first instruction."""
    return Progress(
        units=np.zeros((UNITS, 3), np.int64),
        sequencers=np.zeros((UNITS, seq.STATE_COLUMNS), np.int64),
        entries=np.zeros((UNITS, CHUNK, seq.ENTRY_COLUMNS), np.int64),
        tokens=np.zeros((UNITS, UNITS), np.int64),
        operation=np.zeros(OPERATION_COLUMNS, np.int64),
    )


@compiled
def _refill(unit: int, code: Code, progress: Progress, host: Integers, end: bool) -> int:
    """Expand a unit's next instructions: _MOVED, _NOTHING behind its HALT, or _BAD."""
    line, sequencer = progress.units[unit], progress.sequencers[unit]
    table = code.table[code.first[unit] : code.first[unit + 1]]
    while True:
        if line[STATUS] == seq.HALTED:
            return _NOTHING
        if line[STATUS] > seq.HALTED:
            return _BAD
        if line[STATUS] == seq.PAUSED:
            sequencer[seq.END_KNOWN] = 2 if end else 1
        line[AT] = 0
        line[COUNT], line[STATUS] = seq.expand(
            table, sequencer, host[0], host[1], -1, progress.entries[unit]
        )
        if line[COUNT]:
            return _MOVED


@compiled
def _ready(tokens: Integers, unit: int, wait: int, signal: int) -> bool:
    """Whether all awaited tokens are there, and no counter is full."""
    for other in range(UNITS):
        if wait >> other & 1 and tokens[unit, other] == 0:
            return False
        full = signal >> other & 1 and tokens[other, unit] == _FULL
        # A counter from a unit to itself that the instruction first takes from has room.
        if full and not (other == unit and wait >> unit & 1):
            return False
    return True


@compiled
def _operation(code: Code, unit: int, at: int, entry: Integers, token: int, op: Integers) -> None:
    """Fields of an instruction with its operands."""
    op[:] = code.operations[at]
    places = code.places[unit]
    for i in range(len(places)):
        if places[i] >= 0:
            op[places[i]] = entry[seq.COUNTS + i]
    row = code.table[at]
    if row[decode.ADDRESS_REGISTER] == _REG_TOKEN:
        more = (token >> row[decode.ADDRESS_SHIFT]) * row[decode.ADDRESS_FACTOR]
        place = places[seq.WORD - seq.COUNTS]
        op[place] = (op[place] + more) & _MASK


@compiled
def _execute(
    unit: int, flat: Flat, op: Integers, p: Integers, formats: Integers, room: Scratch
) -> bool:
    """An operation of any unit but SYS, in all cores; False if it is illegal."""
    if unit == SFU:
        return vector(flat, op, p, room)
    for core in range(p[CORES]):
        if unit == MPE and op[_FORMAT] == WIRES:
            legal = wired(flat, core, op, p, room)
        elif unit == MPE:
            legal = matrix(flat, core, op, p, formats[format_of(op)], room)
        elif unit == LD:
            legal = load(flat, core, op, p)
        else:
            legal = store(flat, core, op, p)
        if not legal:
            return False
    return True


@compiled
def _advance(
    unit: int,
    code: Code,
    progress: Progress,
    host: Integers,
    stop_tokens: Integers,
    forced: Integers,
    flat: Flat,
    p: Integers,
    formats: Integers,
    room: Scratch,
) -> int:
    """Execute what tokens allow of a unit, of SYS up to the next token."""
    line, tokens, op = progress.units[unit], progress.tokens, progress.operation
    registers = flat.registers[0]
    moved = _NOTHING
    while True:
        if line[AT] == line[COUNT]:
            status = _refill(unit, code, progress, host, registers[END] != 0)
            if status != _MOVED:
                return _BAD if status == _BAD else moved
        entry = progress.entries[unit, line[AT]]
        at = code.first[unit] + entry[seq.PC]
        wait, signal = code.table[at, WAIT], code.table[at, SIGNAL]
        if not _ready(tokens, unit, wait, signal):
            return moved
        moved = _MOVED
        for other in range(UNITS):
            tokens[unit, other] -= wait >> other & 1
        executes = code.table[at, OPCODE] == seq.EXECUTE
        if executes and unit == SYS:
            next_token(flat, entry[seq.POSITION], host, stop_tokens, forced, p)
        elif executes:
            _operation(code, unit, at, entry, registers[TOKEN], op)
            if not _execute(unit, flat, op, p, formats, room):
                return _ILLEGAL
        line[AT] += 1
        for other in range(UNITS):
            tokens[other, unit] += signal >> other & 1
        if executes and unit == SYS:
            return _TOKEN


@compiled
def run_machine(
    code: Code,
    progress: Progress,
    host: Integers,
    stop_tokens: Integers,
    forced: Integers,
    flat: Flat,
    p: Integers,
    formats: Integers,
    room: Scratch,
) -> tuple[int, int]:
    """Run until SYS has set a token, or nothing can go on; STUCK, TOKEN_SET, ILLEGAL or BAD_PROGRAM, and the unit.

    `host` is PROMPT_LENGTH and STEPS; `p`, `formats` and `room` are from `emulator.kernels.layout`.
    """
    moved = True
    while moved:
        moved = False
        for unit in range(UNITS):
            status = _advance(
                unit, code, progress, host, stop_tokens, forced, flat, p, formats, room
            )
            if status == _TOKEN:
                return TOKEN_SET, unit
            if status == _ILLEGAL:
                return ILLEGAL, unit
            if status == _BAD:
                return BAD_PROGRAM, unit
            moved = moved or status == _MOVED
    return STUCK, 0
