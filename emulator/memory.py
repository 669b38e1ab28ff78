"""Timing of one memory channel: when bursts are accepted, when their beats and responses come.

The rules are those of `docs/isa.md`, "Memory". All channels of a core run in lockstep, so one channel
stands for all of them. Data is not kept here.

The state is one int64 vector, made by `memory_state`, so that numba-compiled code can hold and copy it.
**Contract of the functions that take it:**

- Calls come in the order of their cycles, over reads and writes together, from cycle 1 on. Where a read
  and a write ask in the same cycle the caller offers the write first.
- `accept_read` and `accept_write` return -1, and change nothing that the caller can see, if no burst
  can be accepted in that cycle: a refresh begins in it, or another burst was accepted in it. The caller
  asks again in the next cycle. They process the refreshes up to their cycle themselves;
  `refresh_until` need not be called.
- Limits on outstanding bursts are the caller's business: the memory itself never refuses for lack of room.
- All beats are taken, and all responses are accepted, in the cycle in which they are offered.
- Bursts do not cross a row: they end at multiples of `burst_beats` words.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from hw.spec.machine import MemorySpec

State = npt.NDArray[np.int64]

# Parameters.
READ_LATENCY = 0
WRITE_LATENCY = 1
BANKS = 2
ROW_WORDS = 3
ACTIVATE = 4
TURNAROUND = 5
REFRESH_INTERVAL = 6
REFRESH_CYCLES = 7
NUMERATOR = 8
DENOMINATOR = 9
# State. Times are cycles, or ticks: cycles * NUMERATOR.
NEXT_REFRESH = 10
BUS_FREE = 11  # ticks
WRITING = 12  # direction of the last burst: 1 for a write
LAST_REFRESH = 13  # cycle that the latest refresh closed to bursts; -1: none
LAST_ACCEPT = 14  # cycle in which the latest burst was accepted; -1: none
LAST_RESPONSE = 15
START = 16  # tick of the first beat of the latest burst
BOUNDARY = 17  # beats of it from this tick on wait for a refresh; -1: none
FIRST_BANK = 18
# Three entries a bank.
OPEN_ROW = 0  # -1: none
ROW_READY = 1
LAST_USE = 2
BANK_ENTRIES = 3


def memory_state(spec: MemorySpec) -> State:
    """State of a memory in cycle 0: int64 [FIRST_BANK + BANK_ENTRIES * banks]."""
    state = np.zeros(FIRST_BANK + BANK_ENTRIES * spec.banks, np.int64)
    state[:NEXT_REFRESH] = [
        spec.read_latency,
        spec.write_latency,
        spec.banks,
        spec.row_words,
        spec.activate,
        spec.turnaround,
        spec.refresh_interval,
        spec.refresh_cycles,
        spec.beat_numerator,
        spec.beat_denominator,
    ]
    state[NEXT_REFRESH] = spec.refresh_interval
    state[[LAST_REFRESH, LAST_ACCEPT, BOUNDARY]] = -1
    state[FIRST_BANK + OPEN_ROW :: BANK_ENTRIES] = -1
    return state


@njit(cache=True)
def refresh_until(state: State, cycle: int) -> int:
    """Perform the refreshes that begin up to `cycle`; first cycle from it on that may accept a burst."""
    while state[NEXT_REFRESH] <= cycle:
        begin = state[NEXT_REFRESH]
        end = (begin + state[REFRESH_CYCLES]) * state[NUMERATOR]
        state[BUS_FREE] = max(state[BUS_FREE], end)
        state[LAST_REFRESH] = begin
        _close_rows(state)
    if cycle <= state[LAST_ACCEPT]:
        cycle = state[LAST_ACCEPT] + 1
    return cycle + 1 if cycle == state[LAST_REFRESH] else cycle


@njit(cache=True)
def accept_read(state: State, cycle: int, word: int, beats: int, random: int) -> int:
    """Accept a read burst in `cycle`; the cycle of its last beat, or -1 if it is not accepted.

    `word` is its first word address, `random` nonzero if the address depends on data.
    """
    if refresh_until(state, cycle) != cycle:
        return -1
    _accept(state, cycle, word, beats, random, 0)
    return beat_cycle(state, beats - 1)


@njit(cache=True)
def accept_write(state: State, cycle: int, word: int, beats: int) -> int:
    """Accept a write burst in `cycle`; the cycle of its response, or -1 if it is not accepted.

    Its data beats are in the `beats` cycles behind the acceptance.
    """
    if refresh_until(state, cycle) != cycle:
        return -1
    _accept(state, cycle, word, beats, 0, 1)
    written = max(_ceil_divide(state[BUS_FREE], state[NUMERATOR]), cycle + beats + 1)
    state[LAST_RESPONSE] = max(written + state[WRITE_LATENCY], state[LAST_RESPONSE] + 1)
    return state[LAST_RESPONSE]


@njit(cache=True)
def beat_cycle(state: State, index: int) -> int:
    """Cycle of beat `index` (from 0) of the burst that was accepted last."""
    return _ceil_divide(_beat_tick(state, index), state[NUMERATOR])


@njit(cache=True)
def _accept(state: State, cycle: int, word: int, beats: int, random: int, write: int) -> None:
    numerator = state[NUMERATOR]
    row_index = word // state[ROW_WORDS]
    bank = FIRST_BANK + BANK_ENTRIES * (row_index % state[BANKS])
    row = row_index // state[BANKS]
    if random:
        ready = cycle + state[ACTIVATE]
    else:
        if state[bank + OPEN_ROW] != row:
            state[bank + OPEN_ROW] = row
            state[bank + ROW_READY] = max(cycle, state[bank + LAST_USE]) + state[ACTIVATE]
        ready = state[bank + ROW_READY]
    earliest = max(cycle, ready) + (1 if write else state[READ_LATENCY])
    turn = state[TURNAROUND] if write != state[WRITING] else 0
    start = max(earliest * numerator, state[BUS_FREE] + turn * numerator)

    boundary = state[NEXT_REFRESH] * numerator
    state[BOUNDARY] = -1
    if start >= boundary:
        start = max(start, boundary + state[REFRESH_CYCLES] * numerator)
        _close_rows(state)
    elif start + (beats - 1) * state[DENOMINATOR] >= boundary:
        state[BOUNDARY] = boundary
        _close_rows(state)
    state[START] = start
    state[WRITING] = write
    state[LAST_ACCEPT] = cycle
    state[BUS_FREE] = _beat_tick(state, beats - 1) + state[DENOMINATOR]
    if not random:
        state[bank + LAST_USE] = _ceil_divide(state[BUS_FREE], numerator)


@njit(cache=True)
def _close_rows(state: State) -> None:
    state[NEXT_REFRESH] += state[REFRESH_INTERVAL]
    for bank in range(state[BANKS]):
        state[FIRST_BANK + BANK_ENTRIES * bank + OPEN_ROW] = -1


@njit(cache=True)
def _beat_tick(state: State, index: int) -> int:
    tick = state[START] + index * state[DENOMINATOR]
    if 0 <= state[BOUNDARY] <= tick:
        tick += state[REFRESH_CYCLES] * state[NUMERATOR]
    return tick


@njit(cache=True)
def _ceil_divide(value: int, divisor: int) -> int:
    return -(-value // divisor)


@dataclass(frozen=True)
class Burst:
    """An accepted burst: the cycles of its beats, or of its response."""

    accepted: int
    beats: tuple[int, ...]
    response: int | None


class MemoryTiming:
    """The functions of this module on a state of its own, for callers that are not compiled.

    Parameters
    ----------
    spec : MemorySpec
        Timing of the channel.
    """

    def __init__(self, spec: MemorySpec) -> None:
        self.spec = spec
        self.state = memory_state(spec)

    def read(self, cycle: int, word: int, beats: int, random: bool = False) -> Burst:
        """Accept a read in the first cycle from `cycle` on in which that is possible."""
        cycle = int(refresh_until(self.state, cycle))
        accept_read(self.state, cycle, word, beats, int(random))
        cycles = tuple(int(beat_cycle(self.state, i)) for i in range(beats))
        return Burst(cycle, cycles, None)

    def write(self, cycle: int, word: int, beats: int) -> Burst:
        """Accept a write in the first cycle from `cycle` on in which that is possible."""
        cycle = int(refresh_until(self.state, cycle))
        response = int(accept_write(self.state, cycle, word, beats))
        return Burst(cycle, tuple(range(cycle + 1, cycle + beats + 1)), response)
