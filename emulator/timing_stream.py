"""A load that has the memory to itself: the rules of `emulator.memory`, with its numbers in registers.

No other burst can come between, for nothing advances before one of the transfers under way ends. Decoding with a
large model is little else than such loads.
"""

import numpy as np

from emulator.compiled import compiled
from emulator.memory import (
    ACTIVATE,
    BANK_ENTRIES,
    BANKS,
    BOUNDARY,
    BUS_FREE,
    DENOMINATOR,
    FIRST_BANK,
    LAST_ACCEPT,
    LAST_REFRESH,
    LAST_USE,
    NEXT_REFRESH,
    NUMERATOR,
    OPEN_ROW,
    READ_LATENCY,
    REFRESH_CYCLES,
    REFRESH_INTERVAL,
    ROW_READY,
    ROW_WORDS,
    START,
    TURNAROUND,
    WRITING,
    refresh_until,
)
from emulator.timing_layout import (
    ACTIVE,
    ADDRESS,
    ALL_BURSTS,
    BEATS_READ,
    BURST,
    BURSTS,
    COMPLETIONS,
    END,
    LEFT,
    READS,
    READY,
    REQUEST,
    ROWS_LEFT,
    Table,
)
from hw.spec import latency
from hw.spec.instructions import ADDRESS_BITS

_LOAD = latency.LOAD_CYCLES
_ADDRESS_MASK = (1 << ADDRESS_BITS) - 1
"""An instruction may run over the last address."""


@compiled
def _shift(power_of_two: int) -> int:
    """Its exponent."""
    shift = 0
    while 1 << shift < power_of_two:
        shift += 1
    return shift


@compiled
def _close_rows(memory: Table) -> None:
    for bank in range(memory[BANKS]):
        memory[FIRST_BANK + BANK_ENTRIES * bank + OPEN_ROW] = -1


@compiled
def stream_reads(
    line: Table, memory: Table, completions: Table, parameters: Table, totals: Table
) -> None:
    """All bursts of a load that is under way, whose address does not depend on data."""
    size, limit = parameters[BURST], parameters[READS]
    numerator, denominator = memory[NUMERATOR], memory[DENOMINATOR]
    row_shift, bank_shift = _shift(memory[ROW_WORDS]), _shift(memory[BANKS])
    bank_mask = memory[BANKS] - 1
    activate, read_latency = memory[ACTIVATE], memory[READ_LATENCY]
    refresh_ticks = memory[REFRESH_CYCLES] * numerator
    next_refresh, last_refresh = memory[NEXT_REFRESH], memory[LAST_REFRESH]
    bus_free, last_accept = memory[BUS_FREE], memory[LAST_ACCEPT]
    turn = memory[TURNAROUND] * numerator if memory[WRITING] else np.int64(0)
    start, boundary = memory[START], np.int64(-1)
    number, address, left, request = line[BURSTS], line[ADDRESS], line[LEFT], line[REQUEST]
    totals[BEATS_READ] += left
    first_number, complete = number, np.int64(0)
    while left > 0:
        cycle = max(last_accept + 1, request)
        if number >= limit:
            cycle = max(cycle, completions[(number - limit) % COMPLETIONS] + 1)
        if next_refresh <= cycle:
            # Rare enough to be done where the rules stand.
            memory[BUS_FREE] = bus_free
            refresh_until(memory, cycle)
            bus_free, next_refresh = memory[BUS_FREE], memory[NEXT_REFRESH]
            last_refresh = memory[LAST_REFRESH]
        if cycle == last_refresh:
            cycle += 1
            if cycle == next_refresh:
                request = cycle
                continue
        beats = min(left, size - address % size)
        row_index = (address & _ADDRESS_MASK) >> row_shift
        bank = FIRST_BANK + BANK_ENTRIES * (row_index & bank_mask)
        row = row_index >> bank_shift
        if memory[bank + OPEN_ROW] != row:
            memory[bank + OPEN_ROW] = row
            memory[bank + ROW_READY] = max(cycle, memory[bank + LAST_USE]) + activate
        earliest = (max(cycle, memory[bank + ROW_READY]) + read_latency) * numerator
        start = max(earliest, bus_free + turn)
        turn = np.int64(0)
        last = start + (beats - 1) * denominator
        limit_tick = next_refresh * numerator
        boundary = np.int64(-1)
        if last >= limit_tick:
            if start >= limit_tick:
                start = max(start, limit_tick + refresh_ticks)
                last = start + (beats - 1) * denominator
            else:
                boundary = limit_tick
                last += refresh_ticks
            _close_rows(memory)
            next_refresh += memory[REFRESH_INTERVAL]
            memory[NEXT_REFRESH] = next_refresh
        bus_free = last + denominator
        if numerator == 1:
            complete = last
            memory[bank + LAST_USE] = bus_free
        else:
            complete = -(-last // numerator)
            memory[bank + LAST_USE] = -(-bus_free // numerator)
        last_accept = cycle
        request = cycle + 1
        completions[number % COMPLETIONS] = complete
        number += 1
        address += beats
        left -= beats
    memory[BUS_FREE], memory[LAST_ACCEPT], memory[START] = bus_free, last_accept, start
    memory[BOUNDARY], memory[WRITING] = boundary, 0
    totals[ALL_BURSTS] += number - first_number
    line[BURSTS], line[ADDRESS], line[LEFT] = number, address, 0
    line[REQUEST] = line[READY] = request
    line[END] = complete + _LOAD
    line[ROWS_LEFT] -= 1
    line[ACTIVE] = 0
