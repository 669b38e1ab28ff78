"""The compiled loop of the timing engine; `emulator.timing` is its public face.

Units other than LD and ST depend only on tokens and on their own length, so they advance as soon as their tokens'
times are known. LD and ST also meet at the memory, which takes bursts in order of time: their bursts are
processed one by one, earliest first, and only when nothing else can advance; then no burst that is still
unknown can be earlier, because it would have to wait for one of these.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from emulator import sequencer as seq
from emulator.compiled import compiled
from emulator.decode import OPCODE, SIGNAL, WAIT
from emulator.memory import LAST_ACCEPT, accept_read, accept_write, beat_cycle, refresh_until
from hw.spec import latency
from hw.spec.instructions import LOOP_DEPTH, SEMAPHORE_BITS, Unit

Table = npt.NDArray[np.int64]

LD, ST, MPE, SFU, _ = (int(unit) for unit in Unit)
UNITS = len(Unit)
TOKENS = 1 << SEMAPHORE_BITS
CHUNK = 512
COMPLETIONS = 256

# Constants of a machine.
MATRIX_LATENCY, DRAIN, VECTOR_LATENCY, GRANULE, GRANULE_BEATS, BURST, READS, WRITES = range(8)
_FETCH, _EVALUATE = latency.FETCH_CYCLES, latency.EVALUATE_CYCLES
_CONTROL, _LOAD, _STORE = latency.CONTROL_CYCLES, latency.LOAD_CYCLES, latency.STORE_CYCLES
_TOKEN = latency.TOKEN_CYCLES

# The host's values.
PROMPT_LENGTH, STEPS, END_POSITION = range(3)

# Columns of an instruction's fixed values.
ROWS, PITCH, ROW_WORDS, RANDOM = range(4)

# Columns of a unit: its expanded entries, its instructions so far, and the transfer under way in LD or ST.
AT, COUNT, STATUS, FETCH, READY, LAST_END, BUSY, WAITED, HALTED_AT, TAKEN = range(10)
ISSUE, RETIRED, BURSTS, ACTIVE, ADDRESS, LEFT, REQUEST, ROWS_LEFT, ROW_ADDRESS = range(10, 19)
WAIT_FROM, END = 19, 20
UNIT_COLUMNS = 21

# Columns of a token counter, first index the giver, second the taker: tokens taken, given, and when each can be taken.
HEAD, TAIL, TIMES = range(3)

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
    code : [instructions of all units, decode.COLUMNS]
    fixed : [instructions of all units, 4]
    first : [UNITS + 1]
        Where each unit's instructions begin in `code` and `fixed`.
    constants, host : vectors
    memory : vector of `emulator.memory`
    units : [UNITS, UNIT_COLUMNS]
    sequencers : [UNITS, STATE_COLUMNS]
    entries : [UNITS, CHUNK, ENTRY_COLUMNS]
    tokens : [UNITS, UNITS, TIMES + TOKENS]
    completions : [2, COMPLETIONS]
        Cycles in which the latest bursts of LD and ST completed, as rings.
    records : [instructions, RECORD_COLUMNS], or no rows
    first_record : [UNITS]
    bursts : [bursts, BURST_COLUMNS], or no rows
    totals : vector
    """

    code: Table
    fixed: Table
    first: Table
    constants: Table
    host: Table
    memory: Table
    units: Table
    sequencers: Table
    entries: Table
    tokens: Table
    completions: Table
    records: Table
    first_record: Table
    bursts: Table
    totals: Table


@compiled
def run_engine(run: Run) -> int:
    """Run to the end; DONE, or what was wrong with the program."""
    woken = (1 << UNITS) - 1
    while True:
        while woken:
            for unit in range(UNITS):
                if woken >> unit & 1:
                    woken &= ~(1 << unit)
                    status, signals = _advance(run, unit)
                    if status != DONE:
                        run.totals[FAULTY_UNIT] = unit
                        return status
                    woken |= signals
        unit = _transfer(run)
        if unit < 0:
            return _outcome(run)
        status, signals = _retire(run, unit)
        if status != DONE:
            run.totals[FAULTY_UNIT] = unit
            return status
        woken = signals | 1 << unit


@compiled
def _outcome(run: Run) -> int:
    """Why nothing moves any more."""
    result = DONE
    for unit in range(UNITS):
        line = run.units[unit]
        if line[AT] < line[COUNT]:
            result = max(result, DEADLOCK)
        elif line[STATUS] != seq.HALTED:
            result = BAD_PROGRAM
    return result


@compiled
def _refill(run: Run, unit: int) -> bool:
    """Expand the unit's next instructions; False if there are none."""
    line, sequencer = run.units[unit], run.sequencers[unit]
    if line[STATUS] == seq.RUNNING:
        table = run.code[run.first[unit] : run.first[unit + 1]]
        host = run.host
        line[COUNT], line[STATUS] = seq.expand(
            table, sequencer, host[PROMPT_LENGTH], host[STEPS], host[END_POSITION], run.entries[unit]
        )
        line[AT] = 0
        if line[COUNT]:
            return True
    if line[STATUS] == seq.HALTED:
        line[HALTED_AT] = line[FETCH] + _CONTROL * (sequencer[seq.STATE_CONTROLS] + 1) - 1
    return False


@compiled
def _advance(run: Run, unit: int) -> tuple[int, int]:
    """Issue instructions of a unit as far as tokens are known; status, and the units that it signalled."""
    line, entries, tokens = run.units[unit], run.entries[unit], run.tokens
    woken = 0
    while not line[ACTIVE] and (line[AT] < line[COUNT] or _refill(run, unit)):
        entry = entries[line[AT]]
        at = run.first[unit] + entry[seq.PC]
        wait_from = line[FETCH] + _CONTROL * entry[seq.CONTROLS] + _FETCH
        taken = _take_tokens(tokens, unit, run.code[at, WAIT], wait_from)
        if taken < 0:
            break
        line[AT] += 1
        issue = max(taken + _EVALUATE + 1, line[READY])
        line[WAITED] += taken - wait_from
        line[WAIT_FROM], line[TAKEN], line[ISSUE], line[FETCH] = wait_from, taken, issue, issue + 1
        if run.code[at, OPCODE] == seq.SYNC:
            line[END] = issue + 1
            if unit == LD:
                line[END] = max(line[END], line[LAST_END] + 1)
        elif unit == LD or unit == ST:
            if not _begin_transfer(unit, line, entry, run.fixed[at]):
                return ILLEGAL, woken
            break
        else:
            cycles = _duration(unit, entry, run.fixed[at], run.constants)
            if cycles < 0:
                return ILLEGAL, woken
            line[END] = issue + cycles
        line[READY] = line[END] + 1
        status, signals = _retire(run, unit)
        woken |= signals
        if status != DONE:
            return status, woken
    return DONE, woken


@compiled
def _retire(run: Run, unit: int) -> tuple[int, int]:
    """Note the end of the unit's current instruction and send its tokens; status, and the units signalled."""
    line = run.units[unit]
    end = line[END]
    entry = run.entries[unit, line[AT] - 1]
    line[BUSY] += end - max(line[ISSUE], line[LAST_END])
    line[LAST_END] = end
    if run.records.shape[0]:
        record = run.records[run.first_record[unit] + line[RETIRED]]
        record[RECORD_PC], record[RECORD_WAIT_FROM] = entry[seq.PC], line[WAIT_FROM]
        record[RECORD_TAKEN], record[RECORD_ISSUE] = line[TAKEN], line[ISSUE]
        record[RECORD_END] = end
        for level in range(LOOP_DEPTH):
            record[RECORD_INDEX + level] = entry[seq.INDEX + level]
    line[RETIRED] += 1
    signals = run.code[run.first[unit] + entry[seq.PC], SIGNAL]
    if signals:
        for taker in range(UNITS):
            if signals >> taker & 1:
                counter = run.tokens[unit, taker]
                if counter[TAIL] - counter[HEAD] >= TOKENS - 1:
                    return OVERFLOW, signals
                counter[TIMES + counter[TAIL] % TOKENS] = end + 1
                counter[TAIL] += 1
    return DONE, signals


@compiled
def _take_tokens(tokens: Table, unit: int, wait: int, wait_from: int) -> int:
    """Cycle in which the tokens of `wait` are taken, or -1 if some are not known yet."""
    taken = wait_from
    if wait == 0:
        return taken
    for giver in range(UNITS):
        if wait >> giver & 1:
            counter = tokens[giver, unit]
            if counter[TAIL] == counter[HEAD]:
                return -1
            taken = max(taken, counter[TIMES + counter[HEAD] % TOKENS])
    for giver in range(UNITS):
        if wait >> giver & 1:
            tokens[giver, unit, HEAD] += 1
    return taken


@compiled
def _duration(unit: int, entry: Table, fixed: Table, constants: Table) -> int:
    """Cycles from issue to end of MPE, SFU or SYS; -1 if a count is zero."""
    if unit == MPE:
        drain = constants[DRAIN]
        blocks, steps = entry[seq.COUNTS], entry[seq.COUNTS + 1]
        if blocks == 0 or steps == 0:
            return -1
        return constants[MATRIX_LATENCY] + blocks * max(steps, drain) + drain
    if unit == SFU:
        length, rows = entry[seq.COUNTS], fixed[ROWS]
        if length == 0 or rows == 0:
            return -1
        granules = (length + constants[GRANULE] - 1) // constants[GRANULE]
        return constants[VECTOR_LATENCY] + rows * granules * constants[GRANULE_BEATS]
    return _TOKEN


@compiled
def _begin_transfer(unit: int, line: Table, entry: Table, fixed: Table) -> bool:
    """Set up the transfer of LD or ST; False if a count is zero."""
    loading = unit == LD
    line[ACTIVE] = 1
    line[ADDRESS] = line[ROW_ADDRESS] = entry[seq.WORD]
    line[LEFT] = entry[seq.COUNTS] if loading else fixed[ROW_WORDS]
    line[ROWS_LEFT] = 1 if loading else fixed[ROWS]
    line[REQUEST] = line[ISSUE] + (1 if loading else _STORE)
    return line[LEFT] > 0 and line[ROWS_LEFT] > 0


@compiled
def _request(run: Run, unit: int, limit: int) -> int:
    """First cycle in which the unit's next burst can be asked for and heard."""
    line = run.units[unit]
    cycle = max(line[REQUEST], run.memory[LAST_ACCEPT] + 1)
    number = line[BURSTS]
    if number >= limit:
        cycle = max(cycle, run.completions[unit, (number - limit) % COMPLETIONS] + 1)
    return cycle


@compiled
def _transfer(run: Run) -> int:
    """Process bursts in order of time until one is an instruction's last; its unit, or -1 if there are none.

    READY and END of the unit are set; whoever calls retires the instruction.
    """
    reading, writing = run.units[LD, ACTIVE], run.units[ST, ACTIVE]
    if not (reading or writing):
        return -1
    while True:
        unit, cycle = ST, 0
        if writing:
            cycle = _request(run, ST, run.constants[WRITES])
        if reading:
            read_cycle = _request(run, LD, run.constants[READS])
            # A write wins a tie.
            if not writing or read_cycle < cycle:
                unit, cycle = LD, read_cycle
        accepted = refresh_until(run.memory, cycle)
        if accepted != cycle:
            run.units[unit, REQUEST] = accepted
        elif _burst(run, unit, accepted):
            return unit


@compiled
def _burst(run: Run, unit: int, accepted: int) -> bool:
    """Transfer the unit's next burst, in a cycle in which the memory accepts it; whether it was the last."""
    line, memory = run.units[unit], run.memory
    address, size = line[ADDRESS], run.constants[BURST]
    beats = min(line[LEFT], size - address % size)
    if unit == LD:
        at = run.first[LD] + run.entries[LD, line[AT] - 1, seq.PC]
        complete = accept_read(memory, accepted, address, beats, run.fixed[at, RANDOM])
        run.totals[BEATS_READ] += beats
        line[REQUEST] = line[READY] = accepted + 1
        line[END] = complete + _LOAD
    else:
        complete = accept_write(memory, accepted, address, beats)
        run.totals[BEATS_WRITTEN] += beats
        line[REQUEST] = accepted + beats + 1
        line[END] = complete + 1
        line[READY] = line[END] + 1
    run.completions[unit, line[BURSTS] % COMPLETIONS] = complete
    line[BURSTS] += 1
    if run.bursts.shape[0]:
        record = run.bursts[run.totals[ALL_BURSTS]]
        record[BURST_ACCEPTED], record[BURST_FIRST] = accepted, beat_cycle(memory, 0)
        record[BURST_LAST], record[BURST_COMPLETE] = beat_cycle(memory, beats - 1), complete
        record[BURST_WORD], record[BURST_BEATS] = address, beats
        record[BURST_IS_WRITE] = int(unit == ST)
    run.totals[ALL_BURSTS] += 1
    line[ADDRESS] += beats
    line[LEFT] -= beats
    return line[LEFT] == 0 and _row_ends(run, unit)


@compiled
def _row_ends(run: Run, unit: int) -> bool:
    """Go on to the next row of a store; True if there is none."""
    line = run.units[unit]
    line[ROWS_LEFT] -= 1
    if line[ROWS_LEFT] == 0:
        line[ACTIVE] = 0
        return True
    at = run.first[unit] + run.entries[unit, line[AT] - 1, seq.PC]
    line[ROW_ADDRESS] += run.fixed[at, PITCH]
    line[ADDRESS] = line[ROW_ADDRESS]
    line[LEFT] = run.fixed[at, ROW_WORDS]
    return False
