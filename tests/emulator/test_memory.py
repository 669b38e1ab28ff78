"""Memory timing: cycles worked out by hand from docs/isa.md, and the contract of its functions."""

import dataclasses

from emulator.memory import MemoryTiming, accept_read, accept_write, memory_state
from hw.spec.machine import MemorySpec

SPEC = MemorySpec(
    words=4096,
    read_latency=10,
    write_latency=5,
    banks=2,
    row_words=16,
    activate=7,
    turnaround=3,
    refresh_interval=200,
    refresh_cycles=20,
)


def span(first: int, count: int, step: int = 1) -> tuple[int, ...]:
    return tuple(range(first, first + count * step, step))


def test_first_read_opens_the_row_and_the_next_finds_it_open() -> None:
    memory = MemoryTiming(SPEC)
    assert memory.read(1, 0, 4).beats == span(1 + 7 + 10, 4)
    # The bus is free from 22 on, later than 2 + 10.
    assert memory.read(2, 4, 4).beats == span(22, 4)
    assert memory.read(40, 8, 2).beats == span(50, 2)


def test_another_row_of_the_bank_waits_for_its_last_use() -> None:
    memory = MemoryTiming(SPEC)
    assert memory.read(1, 0, 4).beats[-1] == 21
    assert memory.read(2, 32, 1).beats == (22 + 7 + 10,)
    # The other bank is activated meanwhile.
    assert memory.read(3, 16, 1).beats == (40,)


def test_random_reads_always_pay_and_leave_the_rows_alone() -> None:
    memory = MemoryTiming(SPEC)
    memory.read(1, 0, 1)
    assert memory.read(50, 0, 1, random=True).beats == (67,)
    assert memory.read(80, 0, 1).beats == (90,)


def test_turnaround_and_responses() -> None:
    memory = MemoryTiming(SPEC)
    memory.read(1, 0, 4)  # bus free in 22
    burst = memory.write(10, 4, 2)
    # start = max(11, 22 + 3), end 27, response 5 later.
    assert burst.response == 32 and burst.beats == (11, 12)
    # Data that comes later than the bus would take it: accepted 60, data to 64, response 65 + 5.
    assert memory.write(60, 0, 4).response == 70
    assert memory.read(100, 0, 1).beats == (110,)


def test_slow_bus_keeps_fractions() -> None:
    memory = MemoryTiming(dataclasses.replace(SPEC, beat_numerator=2, beat_denominator=3))
    # Ticks 36, 39, 42, 45 at two a cycle.
    assert memory.read(1, 0, 4).beats == (18, 20, 21, 23)
    assert memory.read(2, 4, 1).beats == (24,)


def test_refresh_splits_a_burst_and_closes_the_rows() -> None:
    memory = MemoryTiming(SPEC)
    assert memory.read(181, 0, 4).beats == (198, 199, 220, 221)
    # That refresh is done: cycle 200 accepts. The row was closed; bank 0 was in use until 222.
    burst = memory.read(200, 4, 1)
    assert burst.accepted == 200 and burst.beats == (222 + 7 + 10,)


def test_refresh_delays_a_burst_that_would_start_in_it() -> None:
    memory = MemoryTiming(SPEC)
    assert memory.read(190, 0, 2).beats == (220, 221)


def test_no_burst_is_accepted_when_a_refresh_begins() -> None:
    memory = MemoryTiming(SPEC)
    burst = memory.read(200, 0, 1)
    assert burst.accepted == 201 and burst.beats == (220,)


def test_refusals_change_nothing() -> None:
    state = memory_state(SPEC)
    assert accept_read(state, 200, 0, 1, 0) == -1
    before = state.copy()
    assert accept_write(state, 200, 0, 1) == -1
    assert (state == before).all()
    assert accept_write(state, 201, 0, 1) > 0
    assert accept_read(state, 201, 0, 1, 0) == -1
    assert accept_read(state, 202, 0, 1, 0) > 0
