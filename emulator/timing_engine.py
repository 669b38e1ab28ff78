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
from emulator.decode import COLUMNS, OPCODE, SIGNAL, WAIT
from emulator.memory import LAST_ACCEPT, accept_read, accept_write, beat_cycle, refresh_until
from hw.spec import latency
from hw.spec.instructions import LOOP_DEPTH, SEMAPHORE_BITS, Unit

Table = npt.NDArray[np.int64]

LD, ST, MPE, SFU, _ = (int(unit) for unit in Unit)
UNITS = len(Unit)
TOKENS = 1 << SEMAPHORE_BITS
CHUNK = 512
COMPLETIONS = 256

# Parameters of a run: constants of the machine, the host's values, and where each unit's instructions begin.
MATRIX_LATENCY, DRAIN, VECTOR_LATENCY, GRANULE, GRANULE_BEATS, BURST, READS, WRITES = range(8)
PROMPT_LENGTH, STEPS, END_POSITION, FIRST = range(8, 12)
PARAMETERS = FIRST + UNITS + 1
_FETCH, _EVALUATE = latency.FETCH_CYCLES, latency.EVALUATE_CYCLES
_CONTROL, _LOAD, _STORE = latency.CONTROL_CYCLES, latency.LOAD_CYCLES, latency.STORE_CYCLES
_TOKEN = latency.TOKEN_CYCLES

# Columns that an instruction has here beyond those of `decode`: fields that no register changes.
ROWS, PITCH, ROW_WORDS, RANDOM = range(COLUMNS, COLUMNS + 4)
CODE_COLUMNS = COLUMNS + 4

# Columns of a unit: its expanded entries, its instructions so far, and the transfer under way in LD or ST.
AT, COUNT, STATUS, FETCH, READY, LAST_END, BUSY, WAITED, HALTED_AT, WAIT_FROM = range(10)
TAKEN, ISSUE, END, RETIRED, FIRST_RECORD, BURSTS, ACTIVE, ADDRESS, LEFT, REQUEST = range(10, 20)
ROWS_LEFT, ROW_ADDRESS, ROW_PITCH, ROW_LENGTH, IS_RANDOM, IS_WRITE = range(20, 26)
UNIT_COLUMNS = 26

# Columns of a token counter, first index the giver, second the taker: tokens taken and given so far, from which
# cycle on each can be taken, and in which it was.
HEAD, TAIL, TIMES, TAKES = 0, 1, 2, 2 + TOKENS
COUNTER_COLUMNS = TAKES + TOKENS

BEATS_READ, BEATS_WRITTEN, ALL_BURSTS, FAULTY_UNIT = range(4)

DONE, DEADLOCK, OVERFLOW, ILLEGAL, BAD_PROGRAM = range(5)
_NOT_YET, _OVERFLOWN = -1, -2
_NEVER = 1 << 62

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


@compiled
def run_engine(run: Run) -> int:
    """Run to the end; DONE, or what was wrong with the program."""
    # Taken apart here, because whatever holds an array costs time in every function that it is passed to.
    code, parameters, memory, units, sequencers, entries, tokens, completions, records, bursts, totals = run
    woken = (1 << UNITS) - 1
    while True:
        while woken:
            for unit in range(UNITS):
                if woken >> unit & 1:
                    woken &= ~(1 << unit)
                    status, signals = _advance(
                        unit, code, parameters, units[unit], sequencers, entries[unit], tokens, records
                    )
                    if status != DONE:
                        totals[FAULTY_UNIT] = unit
                        return status
                    woken |= signals
        unit = _transfer(units, memory, completions, parameters, bursts, totals)
        if unit < 0:
            return _outcome(code, parameters, units, entries, tokens, totals)
        at = parameters[FIRST + unit] + entries[unit, units[unit, AT] - 1, seq.PC]
        if not _retire(units[unit], entries[unit], code[at, SIGNAL], tokens[unit], records):
            totals[FAULTY_UNIT] = unit
            return OVERFLOW
        woken = code[at, SIGNAL] | 1 << unit


@compiled
def _outcome(
    code: Table, parameters: Table, units: Table, entries: Table, tokens: Table, totals: Table
) -> int:
    """Why nothing moves any more."""
    result = DONE
    for unit in range(UNITS):
        line = units[unit]
        if line[AT] < line[COUNT]:
            at = parameters[FIRST + unit] + entries[unit, line[AT], seq.PC]
            full = _full_counters(tokens[unit], code[at, SIGNAL])
            if full or result == DONE:
                totals[FAULTY_UNIT] = unit
                result = OVERFLOW if full else DEADLOCK
        elif line[STATUS] != seq.HALTED:
            totals[FAULTY_UNIT] = unit
            return BAD_PROGRAM
    return result


@compiled
def _refill(
    unit: int, code: Table, parameters: Table, line: Table, sequencer: Table, entries: Table
) -> bool:
    """Expand a unit's next instructions; False if there are none."""
    if line[STATUS] == seq.RUNNING:
        table = code[parameters[FIRST + unit] : parameters[FIRST + unit + 1]]
        prompt_length, steps, end = parameters[PROMPT_LENGTH], parameters[STEPS], parameters[END_POSITION]
        line[COUNT], line[STATUS] = seq.expand(table, sequencer, prompt_length, steps, end, entries)
        line[AT] = 0
        if line[COUNT]:
            return True
    if line[STATUS] == seq.HALTED:
        line[HALTED_AT] = line[FETCH] + _CONTROL * (sequencer[seq.STATE_CONTROLS] + 1) - 1
    return False


@compiled
def _full_counters(counters: Table, signals: int) -> bool:
    """Whether one of a unit's counters has given more tokens than it holds, as far as their taking is known."""
    if signals:
        for taker in range(UNITS):
            if signals >> taker & 1 and counters[taker, TAIL] - counters[taker, HEAD] >= TOKENS:
                return True
    return False


@compiled
def _advance(
    unit: int,
    code: Table,
    parameters: Table,
    line: Table,
    sequencers: Table,
    entries: Table,
    tokens: Table,
    records: Table,
) -> tuple[int, int]:
    """Issue instructions of a unit as far as tokens are known; status, and the units that may go on now."""
    counters, woken = tokens[unit], 0
    while not line[ACTIVE] and (
        line[AT] < line[COUNT] or _refill(unit, code, parameters, line, sequencers[unit], entries)
    ):
        number = line[AT]
        at = parameters[FIRST + unit] + entries[number, seq.PC]
        wait, signals = code[at, WAIT], code[at, SIGNAL]
        if _full_counters(counters, signals):
            # Unless the taker, whose time may be behind, goes on first, it is an overflow.
            break
        wait_from = line[FETCH] + _CONTROL * entries[number, seq.CONTROLS] + _FETCH
        taken = _take_tokens(tokens, unit, wait, wait_from)
        if taken == _NOT_YET:
            break
        if taken == _OVERFLOWN:
            return OVERFLOW, woken
        issue = max(taken + _EVALUATE + 1, line[READY])
        line[AT] += 1
        line[WAITED] += taken - wait_from
        line[WAIT_FROM], line[TAKEN], line[ISSUE], line[FETCH] = wait_from, taken, issue, issue + 1
        woken |= wait
        if code[at, OPCODE] == seq.SYNC:
            line[END] = max(issue, line[LAST_END]) + 1 if unit == LD else issue + 1
        elif unit <= ST:
            if not _begin_transfer(unit, line, entries[number], code[at]):
                return ILLEGAL, woken
            break
        else:
            cycles = _duration(unit, entries[number], code[at, ROWS], parameters)
            if cycles < 0:
                return ILLEGAL, woken
            line[END] = issue + cycles
        line[READY] = line[END] + 1
        if not _retire(line, entries, signals, counters, records):
            return OVERFLOW, woken
        woken |= signals
    return DONE, woken


@compiled
def _take_tokens(tokens: Table, unit: int, wait: int, wait_from: int) -> int:
    """Cycle in which the tokens of `wait` are taken, _NOT_YET, or _OVERFLOWN."""
    taken = wait_from
    if wait == 0:
        return taken
    for giver in range(UNITS):
        if wait >> giver & 1:
            head = tokens[giver, unit, HEAD]
            if tokens[giver, unit, TAIL] == head:
                return _NOT_YET
            taken = max(taken, tokens[giver, unit, TIMES + head % TOKENS])
    for giver in range(UNITS):
        if wait >> giver & 1:
            head = tokens[giver, unit, HEAD]
            if tokens[giver, unit, TAIL] - head == TOKENS:
                # The token that needs this one's place must not have been given before this one is taken.
                if tokens[giver, unit, TIMES + (head + TOKENS - 1) % TOKENS] <= taken:
                    return _OVERFLOWN
            tokens[giver, unit, TAKES + head % TOKENS] = taken
            tokens[giver, unit, HEAD] = head + 1
    return taken


@compiled
def _duration(unit: int, entry: Table, rows: int, parameters: Table) -> int:
    """Cycles from issue to end of MPE, SFU or SYS; -1 if a count is zero."""
    if unit == MPE:
        drain = parameters[DRAIN]
        blocks, steps = entry[seq.COUNTS], entry[seq.COUNTS + 1]
        if blocks == 0 or steps == 0:
            return -1
        return parameters[MATRIX_LATENCY] + blocks * max(steps, drain) + drain
    if unit == SFU:
        length = entry[seq.COUNTS]
        if length == 0 or rows == 0:
            return -1
        granules = (length + parameters[GRANULE] - 1) // parameters[GRANULE]
        return parameters[VECTOR_LATENCY] + rows * granules * parameters[GRANULE_BEATS]
    return _TOKEN


@compiled
def _begin_transfer(unit: int, line: Table, entry: Table, instruction: Table) -> bool:
    """Set up the transfer of LD or ST; False if a count is zero."""
    loading = unit == LD
    line[ACTIVE] = 1
    line[ADDRESS] = line[ROW_ADDRESS] = entry[seq.WORD]
    line[LEFT] = line[ROW_LENGTH] = entry[seq.COUNTS] if loading else instruction[ROW_WORDS]
    line[ROWS_LEFT] = 1 if loading else instruction[ROWS]
    line[ROW_PITCH] = instruction[PITCH]
    line[REQUEST] = line[ISSUE] + (1 if loading else _STORE)
    line[IS_RANDOM] = instruction[RANDOM]
    line[IS_WRITE] = 0 if loading else 1
    return line[LEFT] > 0 and line[ROWS_LEFT] > 0


@compiled
def _request(line: Table, completions: Table, limit: int) -> int:
    """First cycle in which a unit's next burst can be asked for."""
    number = line[BURSTS]
    if number < limit:
        return line[REQUEST]
    return max(line[REQUEST], completions[(number - limit) % COMPLETIONS] + 1)


@compiled
def _transfer(
    units: Table, memory: Table, completions: Table, parameters: Table, bursts: Table, totals: Table
) -> int:
    """Process bursts in order of time until one is an instruction's last; its unit, or -1 if there are none.

    READY and END of the unit are set; whoever calls retires the instruction.
    """
    reader, writer, read_ends, write_ends = units[LD], units[ST], completions[LD], completions[ST]
    reading, writing = reader[ACTIVE] != 0, writer[ACTIVE] != 0
    size, reads, writes = parameters[BURST], parameters[READS], parameters[WRITES]
    while reading or writing:
        heard = memory[LAST_ACCEPT] + 1
        cycle = read_cycle = _NEVER
        if writing:
            cycle = max(heard, _request(writer, write_ends, writes))
        if reading:
            read_cycle = max(heard, _request(reader, read_ends, reads))
        # A write wins a tie.
        loading = read_cycle < cycle
        cycle = min(cycle, read_cycle)
        accepted = refresh_until(memory, cycle)
        if accepted != cycle:
            units[LD if loading else ST, REQUEST] = accepted
        elif loading:
            if _burst(reader, accepted, memory, read_ends, size, bursts, totals):
                return LD
        elif _burst(writer, accepted, memory, write_ends, size, bursts, totals):
            return ST
    return -1


@compiled
def _burst(
    line: Table, accepted: int, memory: Table, completions: Table, size: int, bursts: Table, totals: Table
) -> bool:
    """Transfer a unit's next burst, in a cycle in which the memory accepts it; whether it was the last."""
    address = line[ADDRESS]
    beats = min(line[LEFT], size - address % size)
    if line[IS_WRITE]:
        complete = accept_write(memory, accepted, address, beats)
        totals[BEATS_WRITTEN] += beats
        line[REQUEST] = accepted + beats + 1
        line[END] = complete + 1
        line[READY] = complete + 2
    else:
        complete = accept_read(memory, accepted, address, beats, line[IS_RANDOM])
        totals[BEATS_READ] += beats
        line[REQUEST] = line[READY] = accepted + 1
        line[END] = complete + _LOAD
    completions[line[BURSTS] % COMPLETIONS] = complete
    line[BURSTS] += 1
    if bursts.shape[0]:
        record = bursts[totals[ALL_BURSTS]]
        record[BURST_ACCEPTED], record[BURST_FIRST] = accepted, beat_cycle(memory, 0)
        record[BURST_LAST], record[BURST_COMPLETE] = beat_cycle(memory, beats - 1), complete
        record[BURST_WORD], record[BURST_BEATS] = address, beats
        record[BURST_IS_WRITE] = line[IS_WRITE]
    totals[ALL_BURSTS] += 1
    line[ADDRESS] += beats
    line[LEFT] -= beats
    return line[LEFT] == 0 and _row_ends(line)


@compiled
def _row_ends(line: Table) -> bool:
    """Go on to the next row of a store; True if there is none."""
    line[ROWS_LEFT] -= 1
    if line[ROWS_LEFT] == 0:
        line[ACTIVE] = 0
        return True
    line[ROW_ADDRESS] += line[ROW_PITCH]
    line[ADDRESS] = line[ROW_ADDRESS]
    line[LEFT] = line[ROW_LENGTH]
    return False


@compiled
def _retire(line: Table, entries: Table, signals: int, counters: Table, records: Table) -> bool:
    """Note the end of a unit's current instruction and send its tokens; False if a counter overflows."""
    end = line[END]
    line[BUSY] += end - max(line[ISSUE], line[LAST_END])
    line[LAST_END] = end
    if records.shape[0]:
        record = records[line[FIRST_RECORD] + line[RETIRED]]
        entry = entries[line[AT] - 1]
        record[RECORD_PC], record[RECORD_WAIT_FROM] = entry[seq.PC], line[WAIT_FROM]
        record[RECORD_TAKEN], record[RECORD_ISSUE] = line[TAKEN], line[ISSUE]
        record[RECORD_END] = end
        for level in range(LOOP_DEPTH):
            record[RECORD_INDEX + level] = entry[seq.INDEX + level]
    line[RETIRED] += 1
    if signals:
        for taker in range(UNITS):
            if signals >> taker & 1:
                tail = counters[taker, TAIL]
                replaced = tail - (TOKENS - 1)
                if 0 <= replaced < counters[taker, HEAD] and counters[taker, TAKES + replaced % TOKENS] > end:
                    return False
                counters[taker, TIMES + tail % TOKENS] = end + 1
                counters[taker, TAIL] = tail + 1
    return True
