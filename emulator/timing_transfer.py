"""Transfers of LD and ST in the timing engine: bursts that meet at the memory, in order of time."""

from emulator import sequencer as seq
from emulator.compiled import compiled
from emulator.memory import LAST_ACCEPT, accept_read, accept_write, beat_cycle, refresh_until
from emulator.timing_layout import (
    ACTIVE,
    ADDRESS,
    ALL_BURSTS,
    BEATS_READ,
    BEATS_WRITTEN,
    BURST,
    BURST_ACCEPTED,
    BURST_BEATS,
    BURST_COMPLETE,
    BURST_FIRST,
    BURST_IS_WRITE,
    BURST_LAST,
    BURST_WORD,
    BURSTS,
    COMPLETIONS,
    END,
    IS_RANDOM,
    IS_WRITE,
    ISSUE,
    LD,
    LEFT,
    PITCH,
    RANDOM,
    READS,
    READY,
    REQUEST,
    ROW_ADDRESS,
    ROW_LENGTH,
    ROW_PITCH,
    ROW_WORDS,
    ROWS,
    ROWS_LEFT,
    ST,
    WRITES,
    Table,
)
from emulator.timing_stream import stream_reads
from hw.spec import latency
from hw.spec.instructions import ADDRESS_BITS

_LOAD, _STORE = latency.LOAD_CYCLES, latency.STORE_CYCLES
_NEVER = 1 << 62
_ADDRESS_MASK = (1 << ADDRESS_BITS) - 1


@compiled
def begin_transfer(unit: int, line: Table, entry: Table, instruction: Table) -> bool:
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
def transfer(
    units: Table, memory: Table, completions: Table, parameters: Table, bursts: Table, totals: Table
) -> int:
    """Process bursts in order of time until one is an instruction's last; its unit, or -1 if there are none.

    READY and END of the unit are set; whoever calls retires the instruction.
    """
    reader, writer, read_ends, write_ends = units[LD], units[ST], completions[LD], completions[ST]
    reading, writing = reader[ACTIVE] != 0, writer[ACTIVE] != 0
    if reading and not writing and not reader[IS_RANDOM] and bursts.shape[0] == 0:
        stream_reads(reader, memory, read_ends, parameters, totals)
        return LD
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
    line: Table,
    accepted: int,
    memory: Table,
    completions: Table,
    size: int,
    bursts: Table,
    totals: Table,
) -> bool:
    """Transfer a unit's next burst, in a cycle in which the memory accepts it; whether it was the last."""
    # An instruction may run over the last address.
    address = line[ADDRESS] & _ADDRESS_MASK
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
