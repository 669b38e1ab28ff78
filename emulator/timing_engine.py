"""The compiled loop of the timing engine; `emulator.timing` is its public face.

Units other than LD and ST depend only on tokens and on their own length, so they advance as soon as their tokens'
times are known. LD and ST also meet at the memory, which takes bursts in order of time: their bursts are
processed one by one, earliest first, and only when nothing else can advance; then no burst that is still
unknown can be earlier, because it would have to wait for one of these.
"""

from emulator import sequencer as seq
from emulator.compiled import borrowed, compiled
from emulator.decode import OPCODE, SIGNAL, WAIT
from emulator.timing_layout import (
    ACTIVE,
    AT,
    BAD_PROGRAM,
    BUSY,
    CAUSAL,
    CORES,
    COUNT,
    DEADLOCK,
    DONE,
    DRAIN,
    END,
    END_POSITION,
    EXCHANGE,
    EXCHANGE_LATENCY,
    FAULTY_UNIT,
    FETCH,
    FIRST,
    FIRST_RECORD,
    GRANULE,
    GRANULE_BEATS,
    HALTED_AT,
    HEAD,
    ILLEGAL,
    ISSUE,
    LAST_END,
    LD,
    MATRIX_COLUMNS,
    MATRIX_LATENCY,
    MPE,
    OVERFLOW,
    PARAMETERS,
    PROMPT_LENGTH,
    READY,
    RECORD_END,
    RECORD_INDEX,
    RECORD_ISSUE,
    RECORD_PC,
    RECORD_TAKEN,
    RECORD_WAIT_FROM,
    REDUCED,
    RETIRED,
    SFU,
    ST,
    STALLED,
    STATUS,
    STEP_CYCLES,
    STEPS,
    SYS,
    TAIL,
    TAKEN,
    TAKES,
    TIMES,
    TOKEN_CYCLES,
    TOKENS,
    UNITS,
    VECTOR_LATENCY,
    WAIT_FROM,
    WAITED,
    Run,
    Table,
)
from emulator.timing_transfer import begin_transfer, transfer
from hw.spec import latency
from hw.spec.instructions import LOOP_DEPTH

_FETCH, _EVALUATE = latency.FETCH_CYCLES, latency.EVALUATE_CYCLES
_TOKEN = latency.TOKEN_CYCLES
_CONTROL = latency.CONTROL_CYCLES
_NOT_YET, _OVERFLOWN = -1, -2


@compiled
def run_engine(run: Run) -> int:
    """Run to the end; DONE, or what was wrong with the program."""
    code, parameters, memory = borrowed(run.code), borrowed(run.parameters), borrowed(run.memory)
    units, sequencers, entries = (
        borrowed(run.units),
        borrowed(run.sequencers),
        borrowed(run.entries),
    )
    tokens, completions = borrowed(run.tokens), borrowed(run.completions)
    records, bursts, totals = borrowed(run.records), borrowed(run.bursts), borrowed(run.totals)
    woken = (1 << UNITS) - 1
    while True:
        while woken:
            for unit in range(UNITS):
                if woken >> unit & 1:
                    woken &= ~(1 << unit)
                    status, signals = _advance(
                        unit,
                        code,
                        parameters,
                        units[unit],
                        sequencers,
                        entries[unit],
                        tokens,
                        records,
                    )
                    if status != DONE:
                        totals[FAULTY_UNIT] = unit
                        return status
                    woken |= signals
        unit = transfer(units, memory, completions, parameters, bursts, totals)
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
        prompt_length, steps, end = (
            parameters[PROMPT_LENGTH],
            parameters[STEPS],
            parameters[END_POSITION],
        )
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
        line[STALLED] += max(0, taken - max(wait_from, line[LAST_END]))
        line[WAIT_FROM], line[TAKEN], line[ISSUE], line[FETCH] = wait_from, taken, issue, issue + 1
        woken |= wait
        if code[at, OPCODE] == seq.SYNC:
            line[END] = max(issue, line[LAST_END]) + 1 if unit == LD else issue + 1
        elif unit <= ST:
            if not begin_transfer(unit, line, entries[number], code[at]):
                return ILLEGAL, woken
            break
        else:
            cycles = _duration(unit, entries[number], code[at], parameters)
            if cycles < 0:
                return ILLEGAL, woken
            line[END] = issue + cycles
            if unit == SYS:
                line[FETCH] = line[END] - _TOKEN + 1
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
def _duration(unit: int, entry: Table, instruction: Table, parameters: Table) -> int:
    """Cycles from issue to end of MPE, SFU or SYS; -1 if a count is zero, or there is no such hardwired matrix."""
    if unit == MPE:
        blocks, steps, vectors = (
            entry[seq.COUNTS],
            entry[seq.COUNTS + 1],
            entry[seq.COUNTS + 2],
        )
        if blocks == 0 or steps == 0 or vectors == 0:
            return -1
        lead = 0
        if instruction[STEP_CYCLES] == 0:
            if PARAMETERS + steps >= len(parameters):
                return -1
            lead = parameters[PARAMETERS + steps]
        columns = parameters[MATRIX_COLUMNS]
        passes = blocks * ((vectors + columns - 1) // columns)
        drain = min(columns, vectors) * parameters[DRAIN]
        each = max(steps * instruction[STEP_CYCLES], drain)
        return parameters[MATRIX_LATENCY] + lead + passes * each + drain
    if unit == SFU:
        rows, length = entry[seq.COUNTS], entry[seq.COUNTS + 1]
        if length == 0 or rows == 0:
            return -1
        if instruction[CAUSAL]:
            length += rows - 1
        granules = (length + parameters[GRANULE] - 1) // parameters[GRANULE]
        beats = rows * granules * parameters[GRANULE_BEATS]
        if instruction[EXCHANGE]:
            # Of reductions only the results pass between cores.
            cores = 1 if instruction[REDUCED] else parameters[CORES]
            beats = beats * cores + parameters[EXCHANGE_LATENCY]
        return parameters[VECTOR_LATENCY] + beats
    return parameters[TOKEN_CYCLES]


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
                if (
                    0 <= replaced < counters[taker, HEAD]
                    and counters[taker, TAKES + replaced % TOKENS] > end
                ):
                    return False
                counters[taker, TIMES + tail % TOKENS] = end + 1
                counters[taker, TAIL] = tail + 1
    return True
