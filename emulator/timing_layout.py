"""What the arrays of the timing engine hold, column by column; all are int64."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from emulator.decode import COLUMNS
from hw.spec.instructions import LOOP_DEPTH, SEMAPHORE_BITS, Unit

Table = npt.NDArray[np.int64]

LD, ST, MPE, SFU, SYS = (int(unit) for unit in Unit)
UNITS = len(Unit)
TOKENS = 1 << SEMAPHORE_BITS
CHUNK = 512
COMPLETIONS = 256

# Parameters of a run: constants of the machine, the host's values, and where each unit's instructions begin.
MATRIX_LATENCY, DRAIN, VECTOR_LATENCY, GRANULE, GRANULE_BEATS, BURST, READS, WRITES = range(8)
MATRIX_COLUMNS, EXCHANGE_LATENCY, CORES, TOKEN_CYCLES = range(8, 12)
PROMPT_LENGTH, STEPS, END_POSITION, FIRST = range(12, 16)
PARAMETERS = FIRST + UNITS + 1
"""Behind these, by number: how much longer products with each hardwired matrix take than those of one step."""

# Columns that an instruction has here beyond those of `decode`: fields that no register changes.
ROWS, PITCH, ROW_WORDS, RANDOM, STEP_CYCLES, CAUSAL, EXCHANGE, REDUCED = range(COLUMNS, COLUMNS + 8)
CODE_COLUMNS = COLUMNS + 8

# Columns of a unit: its expanded entries, its instructions so far, and the transfer under way in LD or ST.
AT, COUNT, STATUS, FETCH, READY, LAST_END, BUSY, WAITED, HALTED_AT, WAIT_FROM = range(10)
TAKEN, ISSUE, END, RETIRED, FIRST_RECORD, BURSTS, ACTIVE, ADDRESS, LEFT, REQUEST = range(10, 20)
ROWS_LEFT, ROW_ADDRESS, ROW_PITCH, ROW_LENGTH, IS_RANDOM, IS_WRITE = range(20, 26)
STALLED = 26
UNIT_COLUMNS = 27

# Columns of a token counter, first index the giver, second the taker: tokens taken and given so far, from which
# cycle on each can be taken, and in which it was.
HEAD, TAIL, TIMES, TAKES = 0, 1, 2, 2 + TOKENS
COUNTER_COLUMNS = TAKES + TOKENS

BEATS_READ, BEATS_WRITTEN, ALL_BURSTS, FAULTY_UNIT = range(4)

DONE, DEADLOCK, OVERFLOW, ILLEGAL, BAD_PROGRAM = range(5)

RECORD_PC, RECORD_WAIT_FROM, RECORD_TAKEN, RECORD_ISSUE, RECORD_END, RECORD_INDEX = range(6)
RECORD_COLUMNS = RECORD_INDEX + LOOP_DEPTH
BURST_ACCEPTED, BURST_FIRST, BURST_LAST, BURST_COMPLETE, BURST_WORD, BURST_BEATS = range(6)
BURST_IS_WRITE = 6
BURST_COLUMNS = 7


class Run(NamedTuple):
    """Arrays that one run works on, all int64.

    Attributes
    ----------
    code : [instructions of all units, CODE_COLUMNS]
    parameters : [PARAMETERS]
    memory : vector of `emulator.memory`
    units : [UNITS, UNIT_COLUMNS]
    sequencers : [UNITS, sequencer.STATE_COLUMNS]
    entries : [UNITS, CHUNK, sequencer.ENTRY_COLUMNS]
    tokens : [UNITS, UNITS, COUNTER_COLUMNS]
    completions : [2, COMPLETIONS]
        Cycles in which the latest bursts of LD and ST completed, as rings.
    records : [instructions, RECORD_COLUMNS], or no rows
    bursts : [bursts, BURST_COLUMNS], or no rows
    totals : [4]
    """

    code: Table
    parameters: Table
    memory: Table
    units: Table
    sequencers: Table
    entries: Table
    tokens: Table
    completions: Table
    records: Table
    bursts: Table
    totals: Table
