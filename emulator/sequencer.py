"""Sequencers: from a unit's instruction words to the stream of unit instructions with evaluated operands.

One compiled function, `expand`, executes loops, branches and operand arithmetic. The functional machine
and the timing engine both read its entries, so control flow has one meaning.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit

from hw.spec.instructions import (
    ADDRESS_BITS,
    BUFFER_BITS,
    EXECUTE,
    LOOP_DEPTH,
    Condition,
    Opcode,
    Register,
    Unit,
    decode,
    operation_fields,
)

_COUNT_PARTS = ("cap", "register", "offset", "shift", "scale", "level", "step")
_MAX_COUNTS = 2
_MAX_BUFFERS = 4

# Columns of a decoded instruction.
OPCODE, WAIT, SIGNAL, _TARGET, _CONDITION, _CLOSE = range(6)
_COUNT = 6
ADDRESS = _COUNT + _MAX_COUNTS * len(_COUNT_PARTS)
ADDRESS_REGISTER, ADDRESS_SHIFT, ADDRESS_FACTOR = ADDRESS + 1, ADDRESS + 2, ADDRESS + 3
_STRIDE = ADDRESS + 4
_BUFFER = _STRIDE + LOOP_DEPTH
_COLUMNS = _BUFFER + _MAX_BUFFERS * 5

# Columns of an entry.
PC, INDEX, CONTROLS, POSITION, COUNTS, WORD, LANE, BUFFERS = 0, 1, 5, 6, 7, 9, 10, 11
ENTRY_COLUMNS = BUFFERS + _MAX_BUFFERS

# Columns of the state of one sequencer.
_PC, _DEPTH, _POSITION, _CONTROLS = range(4)
_INDICES = 4
_ROUNDS = _INDICES + LOOP_DEPTH
_END_KNOWN = _ROUNDS + LOOP_DEPTH
_STATE_COLUMNS = _END_KNOWN + 1

RUNNING, PAUSED, HALTED, BAD_PC, BAD_OPCODE, BAD_LOOP = range(6)
"""What `expand` returns: out of room, waiting for the END flag, halted, or an illegal program."""

_EXECUTE, _SYNC = int(Opcode.EXECUTE), int(Opcode.SYNC)
_LOOP, _END_LOOP, _BRANCH = int(Opcode.LOOP), int(Opcode.END_LOOP), int(Opcode.BRANCH)
_INCREMENT, _HALT = int(Opcode.INCREMENT), int(Opcode.HALT)
_PREFILL, _END = int(Condition.PREFILL), int(Condition.END)
_REG_POSITION, _REG_PROMPT = int(Register.POSITION), int(Register.PROMPT_LENGTH)
_REG_STEPS, _REG_TOKEN = int(Register.STEPS), int(Register.TOKEN)
_ADDRESS_MASK, _BUFFER_MASK = (1 << ADDRESS_BITS) - 1, (1 << BUFFER_BITS) - 1


@dataclass(frozen=True)
class UnitCode:
    """Decoded instructions of one unit.

    Attributes
    ----------
    unit : Unit
    table : int64 [instructions, columns]
        What `expand` reads.
    fields : list of dict
        The same instructions as decoded fields, by program counter.
    counts, buffers : list of str
        Names of the evaluated operands, in the order of an entry's columns.
    """

    unit: Unit
    table: np.ndarray
    fields: list[dict[str, int]]
    counts: list[str]
    buffers: list[str]

    def operation(self, entry: np.ndarray, token: int) -> dict[str, int]:
        """Fields that the unit receives for an entry (see `operation_fields`)."""
        pc = int(entry[PC])
        fields = self.fields[pc]
        values: dict[str, int] = {}
        for name, _ in operation_fields_of(self.unit):
            if name in fields:
                values[name] = fields[name]
        values["sync"] = int(fields["opcode"] == _SYNC)
        for i, name in enumerate(self.counts):
            values[name] = int(entry[COUNTS + i])
        for i, name in enumerate(self.buffers):
            values[name] = int(entry[BUFFERS + i])
        address = int(entry[WORD])
        if fields.get("address_register") == _REG_TOKEN:
            address += (token >> fields["address_shift"]) * fields["address_factor"]
        values["address"] = address & _ADDRESS_MASK
        values["lane"] = int(entry[LANE])
        values["position"] = int(entry[POSITION])
        return values


_OPERATION_FIELDS = {unit: operation_fields(unit) for unit in Unit}


def operation_fields_of(unit: Unit) -> list[tuple[str, int]]:
    """`operation_fields`, computed once."""
    return _OPERATION_FIELDS[unit]


def decode_unit(unit: Unit, words: list[int]) -> UnitCode:
    """Decode a unit's instruction words; illegal opcodes become `Opcode.ILLEGAL` rows."""
    names = [field.name for field in EXECUTE[unit]]
    counts = [name[:-4] for name in names if name.endswith("_cap")]
    buffers = [name[:-5] for name in names if name.endswith("_base") and name != "address_base"]
    table = np.zeros((len(words), _COLUMNS), np.int64)
    decoded: list[dict[str, int]] = []
    for pc, word in enumerate(words):
        try:
            fields = decode(unit, word)
        except ValueError:
            fields = {"opcode": int(Opcode.ILLEGAL), "wait": 0, "signal": 0}
        decoded.append(fields)
        row = table[pc]
        for column, name in enumerate(("opcode", "wait", "signal", "target", "condition", "close")):
            row[column] = fields.get(name, 0)
        for i, operand in enumerate(counts if "count_cap" not in fields else ["count"]):
            for j, part in enumerate(_COUNT_PARTS):
                row[_COUNT + i * len(_COUNT_PARTS) + j] = fields.get(f"{operand}_{part}", 0)
        for j, part in enumerate(("base", "register", "shift", "factor")):
            row[ADDRESS + j] = fields.get(f"address_{part}", 0)
        for level in range(LOOP_DEPTH):
            row[_STRIDE + level] = fields.get(f"address_stride{level}", 0)
        for i, operand in enumerate(buffers):
            for j, part in enumerate(("base", "level0", "stride0", "level1", "stride1")):
                row[_BUFFER + 5 * i + j] = fields.get(f"{operand}_{part}", 0)
    return UnitCode(unit, table, decoded, counts, buffers)


def new_state() -> np.ndarray:
    """State of a sequencer before its first instruction."""
    return np.zeros(_STATE_COLUMNS, np.int64)


def answer_end(state: np.ndarray, end: bool) -> None:
    """Tell a paused sequencer the END flag for the branch at which it stands."""
    state[_END_KNOWN] = 2 if end else 1


def program_counter(state: np.ndarray) -> int:
    """Instruction at which the sequencer stands."""
    return int(state[_PC])


def controls_so_far(state: np.ndarray) -> int:
    """Control instructions executed since the last unit instruction."""
    return int(state[_CONTROLS])


@njit(cache=True)
def _register(number, position, prompt_length, steps):  # type: ignore[no-untyped-def]  # compiled
    if number == _REG_POSITION:
        return position
    if number == _REG_PROMPT:
        return prompt_length
    if number == _REG_STEPS:
        return steps
    return 0


@njit(cache=True)
def _count(row, at, indices, position, prompt_length, steps):  # type: ignore[no-untyped-def]  # compiled
    value = _register(row[at + 1], position, prompt_length, steps) + row[at + 2]
    value = (value >> row[at + 3]) * row[at + 4] - indices[row[at + 5]] * row[at + 6]
    return min(row[at], max(0, value))


@njit(cache=True)
def expand(table, state, prompt_length, steps, end_position, entries):  # type: ignore[no-untyped-def]  # compiled
    """Run one sequencer until `entries` is full, it halts, or it needs the END flag.

    Parameters
    ----------
    table : int64 [instructions, columns]
        `UnitCode.table`.
    state : int64 vector
        From `new_state`; carried from call to call.
    prompt_length, steps : int
        The host's registers.
    end_position : int
        POSITION at which END is set, if that is known beforehand; -1: pause at a branch on END (`answer_end`).
    entries : int64 [room, ENTRY_COLUMNS]
        Filled from row 0 on.

    Returns
    -------
    count, status : int, int
        Entries written, and RUNNING, PAUSED, HALTED or one of the BAD codes.
    """
    written = 0
    indices = state[_INDICES : _INDICES + LOOP_DEPTH]
    rounds = state[_ROUNDS : _ROUNDS + LOOP_DEPTH]
    while written < entries.shape[0]:
        pc = state[_PC]
        if pc >= table.shape[0]:
            return written, BAD_PC
        row = table[pc]
        opcode = row[OPCODE]
        position = state[_POSITION]
        if opcode == _EXECUTE or opcode == _SYNC:
            entry = entries[written]
            entry[PC] = pc
            entry[INDEX : INDEX + LOOP_DEPTH] = indices
            entry[CONTROLS] = state[_CONTROLS]
            entry[POSITION] = position
            state[_CONTROLS] = 0
            if opcode == _EXECUTE:
                entry[COUNTS] = _count(row, _COUNT, indices, position, prompt_length, steps)
                entry[COUNTS + 1] = _count(row, _COUNT + 7, indices, position, prompt_length, steps)
                value = _register(row[ADDRESS_REGISTER], position, prompt_length, steps)
                shift = row[ADDRESS_SHIFT]
                address = row[ADDRESS] + (value >> shift) * row[ADDRESS_FACTOR]
                for level in range(LOOP_DEPTH):
                    address += indices[level] * row[_STRIDE + level]
                entry[WORD] = address & _ADDRESS_MASK
                entry[LANE] = value & ((1 << shift) - 1)
                for i in range(_MAX_BUFFERS):
                    at = _BUFFER + 5 * i
                    value = row[at] + indices[row[at + 1]] * row[at + 2] + indices[row[at + 3]] * row[at + 4]
                    entry[BUFFERS + i] = value & _BUFFER_MASK
            written += 1
            state[_PC] = pc + 1
            continue
        if opcode == _HALT:
            return written, HALTED
        if opcode == _BRANCH and row[_CONDITION] == _END and end_position < 0 and state[_END_KNOWN] == 0:
            return written, PAUSED
        state[_CONTROLS] += 1
        depth = state[_DEPTH]
        target = pc + 1
        if opcode == _INCREMENT:
            state[_POSITION] = position + 1
        elif opcode == _LOOP:
            if depth == LOOP_DEPTH:
                return written, BAD_LOOP
            count = _count(row, _COUNT, indices, position, prompt_length, steps)
            if count == 0:
                target = row[_TARGET]
            else:
                rounds[depth] = count
                indices[depth] = 0
                state[_DEPTH] = depth + 1
        elif opcode == _END_LOOP:
            if depth == 0:
                return written, BAD_LOOP
            if indices[depth - 1] + 1 < rounds[depth - 1]:
                indices[depth - 1] += 1
                target = row[_TARGET]
            else:
                indices[depth - 1] = 0
                state[_DEPTH] = depth - 1
        elif opcode == _BRANCH:
            taken = row[_CONDITION] == 0
            if row[_CONDITION] == _PREFILL:
                taken = position + 1 < prompt_length
            elif row[_CONDITION] == _END:
                taken = position >= end_position if end_position >= 0 else state[_END_KNOWN] == 2
                state[_END_KNOWN] = 0
            if taken:
                target = row[_TARGET]
                if row[_CLOSE] > depth:
                    return written, BAD_LOOP
                for level in range(depth - row[_CLOSE], depth):
                    indices[level] = 0
                state[_DEPTH] = depth - row[_CLOSE]
        else:
            return written, BAD_OPCODE
        state[_PC] = target
    return written, RUNNING
