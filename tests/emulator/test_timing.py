"""Cycle numbers of tiny programs, worked out by hand from `docs/isa.md`, and what holds for every program."""

from dataclasses import replace

import numpy as np
import pytest

from emulator.errors import IllegalProgram
from emulator.machine import Machine
from emulator.timing import (
    BURST_ACCEPTED,
    BURST_BEATS,
    BURST_COMPLETE,
    BURST_FIRST,
    BURST_IS_WRITE,
    BURST_LAST,
    BURST_WORD,
    RECORD_END,
    RECORD_INDEX,
    RECORD_ISSUE,
    RECORD_PC,
    RECORD_TAKEN,
    RECORD_WAIT_FROM,
    TimingEngine,
    TimingResult,
)
from hw.spec.instructions import ADDRESS_BITS, Condition, Opcode, Unit
from hw.spec.latency import (
    CONTROL_CYCLES,
    EVALUATE_CYCLES,
    FETCH_CYCLES,
    LOAD_CYCLES,
    STORE_CYCLES,
    TOKEN_CYCLES,
    matrix_cycles,
    matrix_latency,
    token_cycles,
    vector_cycles,
    vector_latency,
)
from hw.spec.machine import MachineSpec
from tests.emulator.programs import (
    MACHINE,
    MEMORY,
    Line,
    compiled,
    count,
    end_loop,
    execute,
    load,
    loop,
    mask,
    matrix,
    program,
    store,
    sync,
    vector,
)

LD, ST, MPE, SFU, SYS = (mask(unit) for unit in Unit)
FIRST_FETCH = 1
FROM_FETCH = FETCH_CYCLES + EVALUATE_CYCLES + 1
"""Fetch to issue of an instruction that waits for nothing, in a unit that is ready."""
FIRST_ISSUE = FIRST_FETCH + FROM_FETCH


def time(machine: MachineSpec = MACHINE, /, **lines: list[Line]) -> TimingResult:
    return TimingEngine(program(machine, **lines)).run(1, 1, record=True)


def column(result: TimingResult, unit: Unit, which: int) -> list[int]:
    return result.records[unit][:, which].tolist()


def test_sync() -> None:
    result = time(MPE=[sync(), sync()])
    # Ready again in e + 1 = s + 2, but the next fetch in s + 1 is what takes time.
    assert column(result, Unit.MPE, RECORD_WAIT_FROM) == [3, FIRST_ISSUE + 1 + FETCH_CYCLES]
    assert column(result, Unit.MPE, RECORD_ISSUE) == [6, 6 + 1 + FROM_FETCH] == [6, 12]
    assert column(result, Unit.MPE, RECORD_END) == [7, 13]
    assert result.busy[Unit.MPE] == 2


def test_the_run_ends_behind_the_last_halt() -> None:
    # HALT of the other units executes in 1 + CONTROL_CYCLES - 1 = 5, so `done` rises in 6.
    assert time().cycles == FIRST_FETCH + CONTROL_CYCLES - 1 + 1 == 6
    # MPE: issue in 6, fetch of HALT in 7, executed in 11; the end of SYNC in 7 is earlier.
    assert time(MPE=[sync()]).cycles == FIRST_ISSUE + 1 + CONTROL_CYCLES - 1 + 1 == 12
    # A long instruction ends after its HALT.
    long = time(MPE=[matrix(1, 200)])
    assert long.cycles == column(long, Unit.MPE, RECORD_END)[0] + 1


def test_control_instructions() -> None:
    # Fetches: LOOP in 1, then body; END_LOOP between the rounds, LOOP of none behind, then SYNC.
    result = time(SFU=[loop(2, 3), sync(), end_loop(1), loop(0, 4), sync()])
    first = FIRST_FETCH + CONTROL_CYCLES + FROM_FETCH
    second = first + 1 + CONTROL_CYCLES + FROM_FETCH
    third = second + 1 + 2 * CONTROL_CYCLES + FROM_FETCH
    assert column(result, Unit.SFU, RECORD_ISSUE) == [first, second, third] == [11, 22, 38]
    assert column(result, Unit.SFU, RECORD_INDEX) == [0, 1, 0]


def test_matrix() -> None:
    drain = MACHINE.drain_cycles
    result = time(MPE=[matrix(3, 10), matrix(2, 1)])
    end = FIRST_ISSUE + matrix_latency(MACHINE) + 3 * 10 + drain
    # Few steps: draining is what takes time. The next issue is behind the end.
    assert column(result, Unit.MPE, RECORD_ISSUE) == [FIRST_ISSUE, end + 1]
    assert column(result, Unit.MPE, RECORD_END) == [
        end,
        end + 1 + matrix_latency(MACHINE) + 2 * drain + drain,
    ]


def test_vector() -> None:
    # 2 lanes, granule 8: 9 elements are two granules of 4 beats.
    assert (MACHINE.lanes, MACHINE.granule) == (2, 8)
    result = time(SFU=[vector(9, rows=3), vector(1)])
    end = FIRST_ISSUE + vector_latency(MACHINE) + 3 * 8
    assert column(result, Unit.SFU, RECORD_END) == [end, end + 1 + vector_latency(MACHINE) + 4]


def test_system() -> None:
    result = time(SYS=[execute()])
    assert column(result, Unit.SYS, RECORD_END) == [FIRST_ISSUE + TOKEN_CYCLES]


def test_load_in_two_bursts() -> None:
    result = time(LD=[load(20, address=10)])
    # Bursts end at multiples of 16 words: 6 beats from word 10, then 14 from word 16.
    accepted = [FIRST_ISSUE + 1, FIRST_ISSUE + 2]
    assert result.bursts[:, BURST_ACCEPTED].tolist() == accepted == [7, 8]
    assert result.bursts[:, BURST_WORD].tolist() == [10, 16]
    assert result.bursts[:, BURST_BEATS].tolist() == [6, 14]
    # The row is opened in 7 cycles; the second burst follows on the bus.
    first_beat = 7 + 7 + 20
    assert result.bursts[:, BURST_FIRST].tolist() == [first_beat, first_beat + 6]
    assert result.bursts[:, BURST_LAST].tolist() == [first_beat + 5, first_beat + 19]
    assert column(result, Unit.LD, RECORD_END) == [first_beat + 19 + LOAD_CYCLES]
    assert result.bytes_read == 20 * MACHINE.bus_bytes


def test_loads_run_ahead_until_their_bursts_are_outstanding() -> None:
    # read_outstanding = 2. Every load is one burst of 4 words of one row.
    result = time(LD=[load(4, address=4 * i) for i in range(4)])
    # LD is ready behind the acceptance of a burst, in s + 2, but the fetch in s + 1 takes longer;
    # except for the last, because the third burst is accepted in 38 only, as below.
    assert column(result, Unit.LD, RECORD_ISSUE) == [6, 12, 18, 39]
    first = 7 + 7 + 20
    # The row is open from 14 on, but the bus is free only behind the first load's beats.
    complete = [first + 3, first + 7]
    assert result.bursts[:2, BURST_COMPLETE].tolist() == complete == [37, 41]
    # The third request waits for the first to complete, the fourth for the second.
    assert result.bursts[:, BURST_ACCEPTED].tolist() == [7, 13, 38, 42]
    # An open row: read_latency later.
    assert result.bursts[2:, BURST_COMPLETE].tolist() == [38 + 20 + 3, 42 + 20 + 3]
    assert column(result, Unit.LD, RECORD_END) == [c + LOAD_CYCLES for c in (37, 41, 61, 65)]


def test_sync_holds_later_loads_back() -> None:
    result = time(LD=[load(4), sync(), load(4)])
    ends, issues = column(result, Unit.LD, RECORD_END), column(result, Unit.LD, RECORD_ISSUE)
    assert issues[1] == 12
    assert ends[:2] == [7 + 7 + 20 + 3 + LOAD_CYCLES, 40]
    # Ready again in e + 1.
    assert issues[2] == 41


def test_random_loads_pay_for_a_row() -> None:
    result = time(LD=[load(1), load(1, random=1), load(1)])
    first, second, third = result.bursts[:, BURST_COMPLETE].tolist()
    # All outstanding limits aside: row opened, then 7 cycles more, then the row that stayed open.
    assert first == 7 + 7 + 20
    assert second == 13 + 7 + 20
    assert result.bursts[2, BURST_ACCEPTED] == first + 1
    assert third == first + 1 + 20


def test_a_load_over_the_last_address_goes_on_in_row_0() -> None:
    last = (1 << ADDRESS_BITS) - 1
    lines = [load(2, address=last), load(1)]
    result = time(LD=lines)
    assert result.bursts[:, BURST_WORD].tolist() == [last, 0, 0]
    # Row 0 is open from the first load's second burst on, and the bus is free long before.
    assert result.bursts[2, BURST_FIRST] == result.bursts[2, BURST_ACCEPTED] + MEMORY.read_latency
    # And the same where such loads are timed at once.
    plain = TimingEngine(program(MACHINE, LD=lines)).run(1, 1)
    assert plain.cycles == result.cycles


def test_store_of_three_rows() -> None:
    # write_outstanding = 2. COLUMN of one step: rows of two beats.
    result = time(ST=[store(pattern=0, steps=1, rows=3, pitch=4)])
    first = FIRST_ISSUE + STORE_CYCLES
    assert column(result, Unit.ST, RECORD_ISSUE) == [FIRST_ISSUE]
    # Data in the two cycles behind the acceptance, then the next request.
    assert result.bursts[:2, BURST_ACCEPTED].tolist() == [first, first + 3] == [9, 12]
    assert result.bursts[:, BURST_WORD].tolist() == [0, 4, 8]
    # Row opened in 7 cycles, then 1; the bus turns round for the first: start = max(9 + 7 + 1, 0 + 3).
    assert result.bursts[:2, BURST_FIRST].tolist() == [17, 19]
    # Response: max(bus free, a + n + 1) + write_latency.
    responses = [19 + 10, 21 + 10]
    assert result.bursts[:2, BURST_COMPLETE].tolist() == responses
    # The third row waits for the first response.
    assert result.bursts[2, BURST_ACCEPTED] == responses[0] + 1
    last = 30 + 1 + 2 + 10
    assert result.bursts[2, BURST_COMPLETE] == last
    assert column(result, Unit.ST, RECORD_END) == [last + 1]
    assert result.bytes_written == 6 * MACHINE.bus_bytes


@pytest.mark.parametrize("late", [0, 1, 2, 3], ids=lambda late: f"write-asks-{late}-later")
def test_a_write_wins_a_tie(late: int) -> None:
    """LD asks for eight single-word bursts one after the other; ST's one lands among them."""
    machine = replace(MACHINE, burst_beats=1, read_outstanding=16)
    # ST's request comes STORE_CYCLES behind its issue, LD's in every cycle from s + 1 on.
    wait = [sync()] if late % 2 else []
    result = time(machine, LD=[load(8 + late)], ST=[*wait, store()])
    request = column(result, Unit.ST, RECORD_ISSUE)[-1] + STORE_CYCLES
    writes = result.bursts[result.bursts[:, BURST_IS_WRITE] == 1]
    reads = result.bursts[result.bursts[:, BURST_IS_WRITE] == 0]
    assert writes[:, BURST_ACCEPTED].tolist() == [request]
    # The reads fill all the other cycles from s + 1 on.
    wanted = [c for c in range(FIRST_ISSUE + 1, FIRST_ISSUE + 20) if c != request]
    assert reads[:, BURST_ACCEPTED].tolist() == wanted[: 8 + late]


def test_token_chain() -> None:
    result = time(
        LD=[load(1, signal=MPE)],
        MPE=[sync(wait=LD, signal=SFU)],
        SFU=[vector(8, wait=MPE, signal=ST)],
        ST=[sync(wait=SFU)],
    )
    end = 7 + 7 + 20 + LOAD_CYCLES
    for unit, length in ((Unit.MPE, 1), (Unit.SFU, vector_latency(MACHINE) + 4), (Unit.ST, 1)):
        assert column(result, unit, RECORD_WAIT_FROM) == [FIRST_FETCH + FETCH_CYCLES]
        assert column(result, unit, RECORD_TAKEN) == [end + 1]
        assert column(result, unit, RECORD_ISSUE) == [end + 1 + EVALUATE_CYCLES + 1]
        assert result.waited[unit] == end + 1 - 3
        end += 1 + EVALUATE_CYCLES + 1 + length
        assert column(result, unit, RECORD_END) == [end]


def test_the_last_of_several_tokens_counts() -> None:
    result = time(
        MPE=[matrix(1, 100, signal=SYS)], SFU=[sync(signal=SYS)], SYS=[sync(wait=MPE | SFU)]
    )
    end = column(result, Unit.MPE, RECORD_END)[0]
    assert column(result, Unit.SYS, RECORD_TAKEN) == [end + 1]


def test_refresh_closes_the_bus_and_the_rows() -> None:
    # A refresh in 30, during which nothing moves for 40 cycles: the first beat would be in 34.
    machine = replace(MACHINE, memory=replace(MEMORY, refresh_interval=30))
    result = time(machine, LD=[load(4), load(4, address=4)], ST=[sync()])
    first = 30 + 40
    assert result.bursts[0, BURST_FIRST] == first
    # Accepted in 13: the row was closed with the first burst, and opened again behind it (bus free in 74).
    assert result.bursts[1, BURST_ACCEPTED] == 13
    assert result.bursts[1, BURST_FIRST] == 74 + 7 + 20


def test_no_burst_is_accepted_in_the_cycle_of_a_refresh() -> None:
    machine = replace(
        MACHINE, memory=replace(MEMORY, refresh_interval=FIRST_ISSUE + 1, refresh_cycles=3)
    )
    result = time(machine, LD=[load(1)])
    assert result.bursts[0, BURST_ACCEPTED] == FIRST_ISSUE + 2


WIDE = replace(MACHINE, matrix_columns=2, sparse=1, rows_per_scaler=1, cores=4, exchange_latency=9)


@pytest.mark.parametrize("vectors", [1, 2, 3, 8, 9])
@pytest.mark.parametrize("steps", [1, 3, 40])
@pytest.mark.parametrize("columns, kept", [(1, 0), (2, 0), (2, 2)])
def test_cycles_of_vectors_and_sparse_steps(
    columns: int, kept: int, steps: int, vectors: int
) -> None:
    machine = replace(WIDE, matrix_columns=columns)
    code = matrix(3, steps, kept=kept, **count("vectors", vectors))
    result = TimingEngine(program(machine, MPE=[code])).run(1, 1, record=True)
    record = result.records[Unit.MPE][0]
    cycles = record[RECORD_END] - record[RECORD_ISSUE]
    assert cycles == matrix_cycles(machine, 3, steps, 2 if kept else 1, vectors)
    # In the words of the manual.
    used, passes = min(columns, vectors), -(-vectors // columns)
    drain = used * machine.drain_cycles
    each = max(steps * (2 if kept else 1), drain)
    assert cycles == matrix_latency(machine) + 3 * passes * each + drain


@pytest.mark.parametrize("cores", [1, 4])
@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("exchange", [0, 1])
@pytest.mark.parametrize("reduce", [0, 3])
def test_cycles_of_causal_rows_and_exchanges(
    cores: int, causal: int, exchange: int, reduce: int
) -> None:
    machine = replace(WIDE, cores=cores)
    fields = {"causal": causal, "exchange": exchange, "exchange_pitch": 64, "reduce": reduce}
    code = vector(15, rows=5, a_source=1, **fields)
    engine = TimingEngine(program(machine, SFU=[code], SYS=[execute()]))
    result = engine.run(1, 1, record=True)
    record = result.records[Unit.SFU][0]
    cycles = record[RECORD_END] - record[RECORD_ISSUE]
    length = 19 if causal else 15
    assert cycles == vector_cycles(machine, 5, length, bool(exchange), bool(reduce))
    beats = 5 * -(-length // 8) * 8 // machine.lanes
    more = machine.exchange_latency if exchange else 0
    if exchange and not reduce:
        more += beats * (cores - 1)
    assert cycles == vector_latency(machine) + beats + more
    record = result.records[Unit.SYS][0]
    cycles = record[RECORD_END] - record[RECORD_ISSUE]
    assert cycles == token_cycles(machine) == TOKEN_CYCLES + (9 if cores > 1 else 0)


@pytest.mark.parametrize("name", ["blocks", "steps", "vectors"])
def test_a_count_of_zero_in_the_matrix_engine(name: str) -> None:
    with pytest.raises(IllegalProgram, match="MPE at 0: .*a count of zero"):
        TimingEngine(program(MPE=[matrix(1, 1, **count(name, 0))])).run(1, 1)


def test_end_position() -> None:
    """SYS sets END at the given position; every sequencer leaves its token loop there."""
    branch: Line = (Opcode.BRANCH, {"target": 5, "condition": int(Condition.END), "close": 1})
    lines: list[Line] = [
        loop(1000, 5),
        sync(),
        branch,
        (Opcode.INCREMENT, count("count", 1)),
        end_loop(1),
    ]
    engine = TimingEngine(program(SFU=lines))
    assert engine.run(3, 4).instructions[Unit.SFU] == 3 + 4
    for position in range(4):
        assert engine.run(3, 4, end_position=position).instructions[Unit.SFU] == position + 1


def test_a_compiled_program_that_stops_early_is_that_much_shorter() -> None:
    engine = TimingEngine(compiled())
    # Until END is set, both runs are the same.
    assert engine.run(3, 6, end_position=4).cycles == engine.run(3, 2).cycles


@pytest.mark.parametrize("target", ["tiny", "small"])
@pytest.mark.parametrize("recipe", ["w8a8", "w4a8"])
def test_recording_changes_nothing(target: str, recipe: str) -> None:
    engine = TimingEngine(compiled(target, recipe))
    plain, recorded = engine.run(3, 4), engine.run(3, 4, record=True)
    for name in ("cycles", "busy", "waited", "bytes_read", "bytes_written", "instructions"):
        assert getattr(plain, name) == getattr(recorded, name)
    assert not len(plain.bursts) and not any(map(len, plain.records.values()))
    for unit, records in recorded.records.items():
        assert len(records) == plain.instructions[unit]
        wait_from, taken = records[:, RECORD_WAIT_FROM], records[:, RECORD_TAKEN]
        assert (taken - wait_from).sum() == plain.waited[unit]
        covered = np.zeros(plain.cycles + 1, bool)
        for issue, end in records[:, [RECORD_ISSUE, RECORD_END]]:
            covered[issue:end] = True
        assert covered.sum() == plain.busy[unit]
    assert (
        recorded.bursts[:, BURST_BEATS].sum() * engine.spec.bus_bytes
        == plain.bytes_read + plain.bytes_written
    )


@pytest.mark.parametrize("target", ["tiny", "small"])
@pytest.mark.parametrize("recipe", ["w8a8", "w4a8"])
def test_timing_and_function_execute_the_same_instructions(target: str, recipe: str) -> None:
    code = compiled(target, recipe)
    _, traces = Machine(code, check=False).run([1, 2, 3], 3)
    records = TimingEngine(code).run(3, 3, record=True).records
    for unit, trace in traces.items():
        assert records[unit][:, RECORD_PC].tolist() == trace.pc
        assert [tuple(row) for row in records[unit][:, RECORD_INDEX:].tolist()] == trace.indices


@pytest.mark.parametrize("numerator, denominator", [(1, 1), (7, 9)])
@pytest.mark.parametrize("latency, activate, interval, cycles, outstanding", [
    (30, 14, 1560, 52, 8),
    (5, 40, 1500, 1, 2),
    (100, 3, 900, 200, 1),
])  # fmt: skip
def test_loads_that_have_the_memory_to_themselves(
    numerator: int,
    denominator: int,
    latency: int,
    activate: int,
    interval: int,
    cycles: int,
    outstanding: int,
) -> None:
    # Recording takes bursts one by one; without it such loads are timed by `emulator.timing_stream`.
    code = compiled("small", "w8a8")
    memory = replace(
        code.machine.memory,
        read_latency=latency,
        activate=activate,
        refresh_interval=interval,
        refresh_cycles=cycles,
        beat_numerator=numerator,
        beat_denominator=denominator,
    )
    machine = replace(code.machine, memory=memory, read_outstanding=outstanding)
    engine = TimingEngine(replace(code, machine=machine))
    plain, recorded = engine.run(5, 3), engine.run(5, 3, record=True)
    assert plain.cycles == recorded.cycles
    assert (plain.busy, plain.waited, plain.stalled) == (
        recorded.busy,
        recorded.waited,
        recorded.stalled,
    )
    assert plain.bytes_read == recorded.bytes_read
    assert sum(plain.instructions.values()) == sum(recorded.instructions.values())
