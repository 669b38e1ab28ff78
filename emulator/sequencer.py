"""Sequencers: from a unit's instructions to the stream of unit instructions with evaluated operands.

One compiled function, `expand`, executes loops, branches and operand arithmetic. The functional machine
and the timing engine both read its entries, so control flow has one meaning.
"""

import numpy as np
import numpy.typing as npt

from emulator import decode
from emulator.compiled import compiled
from emulator.decode import BACKWARD, CLOSE, CONDITION, LESS, OPCODE, TARGET
from hw.spec.instructions import (
    ADDRESS_BITS,
    BUFFER_BITS,
    COUNT_BITS,
    LOOP_DEPTH,
    Condition,
    Opcode,
    Register,
)

Vector = npt.NDArray[np.int64]
Table = npt.NDArray[np.int64]

# Columns of an entry: a unit instruction, with the number of control instructions since the one before.
PC, INDEX, CONTROLS = 0, 1, 1 + LOOP_DEPTH
POSITION = CONTROLS + 1
SKIPPED = POSITION + 1
COUNTS = SKIPPED + 1
WORD = COUNTS + decode.MAX_COUNTS
LANE = WORD + 1
BUFFERS = LANE + 1
ENTRY_COLUMNS = BUFFERS + decode.MAX_BUFFERS

# Columns of the state of one sequencer.
STATE_PC, DEPTH, STATE_POSITION, STATE_SKIPPED, STATE_CONTROLS, END_KNOWN = range(6)
INDICES = 6
ROUNDS = INDICES + LOOP_DEPTH
STATE_COLUMNS = ROUNDS + LOOP_DEPTH

RUNNING, PAUSED, HALTED, BAD_PC, BAD_OPCODE, BAD_LOOP = range(6)
"""What `expand` returns: out of room, waiting for the END flag, halted, or an illegal program."""
BAD = {
    BAD_PC: "runs past its last instruction",
    BAD_OPCODE: "has an illegal opcode",
    BAD_LOOP: "nests or closes loops wrongly",
}

# Compiled functions know plain integers only.
EXECUTE, SYNC = int(Opcode.EXECUTE), int(Opcode.SYNC)
_LOOP, _END_LOOP, _BRANCH = int(Opcode.LOOP), int(Opcode.END_LOOP), int(Opcode.BRANCH)
_INCREMENT, _HALT, _SKIP = int(Opcode.INCREMENT), int(Opcode.HALT), int(Opcode.SKIP)
_PREFILL, _END, _REST = int(Condition.PREFILL), int(Condition.END), int(Condition.REST)
_REG_POSITION, _REG_PROMPT = int(Register.POSITION), int(Register.PROMPT_LENGTH)
_REG_STEPS, _REG_SKIPPED, _REG_REST = int(Register.STEPS), int(Register.SKIPPED), int(Register.REST)
_ADDRESS_MASK, _BUFFER_MASK = (1 << ADDRESS_BITS) - 1, (1 << BUFFER_BITS) - 1
_COUNT_MASK = (1 << COUNT_BITS) - 1
_COUNT_PARTS, _BUFFER_PARTS = len(decode.COUNT_PARTS), len(decode.BUFFER_PARTS)


def new_state() -> Vector:
    """State of a sequencer before its first instruction."""
    return np.zeros(STATE_COLUMNS, np.int64)


def answer_end(state: Vector, end: bool) -> None:
    """Tell a paused sequencer the END flag for the branch at which it stands."""
    state[END_KNOWN] = 2 if end else 1


@compiled
def _rest(state: Vector) -> int:
    return max(0, state[STATE_POSITION] - state[STATE_SKIPPED])


@compiled
def _register(number: int, state: Vector, prompt_length: int, steps: int) -> int:
    """Value of a register; TOKEN counts as zero here, because its value is not known beforehand."""
    if number == _REG_POSITION:
        return state[STATE_POSITION]
    if number == _REG_PROMPT:
        return prompt_length
    if number == _REG_STEPS:
        return steps
    if number == _REG_SKIPPED:
        return state[STATE_SKIPPED]
    if number == _REG_REST:
        return _rest(state)
    return 0


@compiled
def _count(row: Vector, at: int, state: Vector, prompt_length: int, steps: int) -> int:
    """The count operand that begins in column `at`."""
    value = _register(row[at + 1], state, prompt_length, steps) + row[at + 2]
    value = (value >> row[at + 3]) * row[at + 4] - state[INDICES + row[at + 5]] * row[at + 6]
    return min(row[at], max(0, value))


@compiled
def _evaluate(row: Vector, state: Vector, prompt_length: int, steps: int, entry: Vector) -> None:
    """Evaluate every operand of an EXECUTE."""
    for i in range(decode.MAX_COUNTS):
        at = decode.COUNT + i * _COUNT_PARTS
        # A cap of zero is most of all an operand that the unit does not have.
        entry[COUNTS + i] = _count(row, at, state, prompt_length, steps) if row[at] else 0
    value = _register(row[decode.ADDRESS_REGISTER], state, prompt_length, steps)
    shift = row[decode.ADDRESS_SHIFT]
    address = row[decode.ADDRESS] + (value >> shift) * row[decode.ADDRESS_FACTOR]
    for level in range(LOOP_DEPTH):
        address += state[INDICES + level] * row[decode.STRIDE + level]
    entry[WORD] = address & _ADDRESS_MASK
    entry[LANE] = value & ((1 << shift) - 1)
    for i in range(decode.MAX_BUFFERS):
        at = decode.BUFFER + i * _BUFFER_PARTS
        value = row[at]
        value += state[INDICES + row[at + 1]] * row[at + 2]
        value += state[INDICES + row[at + 3]] * row[at + 4]
        entry[BUFFERS + i] = value & _BUFFER_MASK


@compiled
def _branch(row: Vector, state: Vector, prompt_length: int, end_position: int) -> int:
    """Next program counter behind a BRANCH, or -1 if it closes loops that are not open."""
    position = state[STATE_POSITION]
    taken = row[CONDITION] == 0
    if row[CONDITION] == _PREFILL:
        taken = position < prompt_length
    elif row[CONDITION] == _END:
        taken = position >= end_position if end_position >= 0 else state[END_KNOWN] == 2
        state[END_KNOWN] = 0
    elif row[CONDITION] == _REST:
        taken = _rest(state) > 0
    if not taken:
        return state[STATE_PC] + 1
    depth = state[DEPTH]
    if row[CLOSE] > depth:
        return -1
    state[DEPTH] = depth - row[CLOSE]
    for level in range(state[DEPTH], depth):
        state[INDICES + level] = 0
    return row[TARGET]


@compiled
def _control(row: Vector, state: Vector, prompt_length: int, steps: int, end_position: int) -> int:
    """Next program counter behind a control instruction, or -1 if it misuses the loops."""
    opcode, depth = row[OPCODE], state[DEPTH]
    following = state[STATE_PC] + 1
    if opcode == _INCREMENT:
        added = _count(row, decode.COUNT, state, prompt_length, steps)
        position = state[STATE_POSITION] + (-added if row[BACKWARD] else added)
        state[STATE_POSITION] = position & _COUNT_MASK
    elif opcode == _SKIP:
        count = _count(row, decode.COUNT, state, prompt_length, steps)
        state[STATE_SKIPPED] = max(0, count - row[LESS])
    elif opcode == _LOOP:
        if depth == LOOP_DEPTH:
            return -1
        count = _count(row, decode.COUNT, state, prompt_length, steps)
        if count == 0:
            return row[TARGET]
        state[ROUNDS + depth] = count
        state[INDICES + depth] = 0
        state[DEPTH] = depth + 1
    elif opcode == _END_LOOP:
        if depth == 0:
            return -1
        innermost = INDICES + depth - 1
        if state[innermost] + 1 < state[ROUNDS + depth - 1]:
            state[innermost] += 1
            return row[TARGET]
        state[innermost] = 0
        state[DEPTH] = depth - 1
    else:
        following = _branch(row, state, prompt_length, end_position)
    return following


@compiled
def expand(
    table: Table, state: Vector, prompt_length: int, steps: int, end_position: int, entries: Table
) -> tuple[int, int]:
    """Run one sequencer until `entries` is full, it halts, or it needs the END flag.

    Parameters
    ----------
    table : int64 [instructions, decode.COLUMNS]
        `UnitCode.table`.
    state : int64 [STATE_COLUMNS]
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
    while written < entries.shape[0]:
        pc = state[STATE_PC]
        if pc >= table.shape[0]:
            return written, BAD_PC
        row = table[pc]
        opcode = row[OPCODE]
        if opcode == EXECUTE or opcode == SYNC:
            entry = entries[written]
            entry[PC] = pc
            for level in range(LOOP_DEPTH):
                entry[INDEX + level] = state[INDICES + level]
            entry[CONTROLS] = state[STATE_CONTROLS]
            entry[POSITION] = state[STATE_POSITION]
            entry[SKIPPED] = state[STATE_SKIPPED]
            state[STATE_CONTROLS] = 0
            if opcode == EXECUTE:
                _evaluate(row, state, prompt_length, steps, entry)
            written += 1
            state[STATE_PC] = pc + 1
            continue
        if opcode == _HALT:
            return written, HALTED
        if opcode != _SKIP and not (_LOOP <= opcode <= _INCREMENT):
            return written, BAD_OPCODE
        pausing = opcode == _BRANCH and row[CONDITION] == _END and end_position < 0
        if pausing and state[END_KNOWN] == 0:
            return written, PAUSED
        target = _control(row, state, prompt_length, steps, end_position)
        if target < 0:
            return written, BAD_LOOP
        state[STATE_CONTROLS] += 1
        state[STATE_PC] = target
    return written, RUNNING
