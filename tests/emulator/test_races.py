"""Programs that tokens do not order are found out, buffer by buffer; those that they order run."""

import itertools

import pytest

from emulator.errors import IllegalProgram
from emulator.machine import Machine
from emulator.timing import TimingEngine
from hw.spec.instructions import Unit
from hw.spec.program import Program
from tests.emulator.programs import (
    MACHINE,
    Line,
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
Streams = dict[str, list[Line]]


def run(code: Program, order: tuple[Unit, ...] = tuple(Unit)) -> None:
    Machine(code, order=order).run([1], 1)


def without(lines: list[Line], field: str) -> list[Line]:
    """The same instructions with no tokens waited for, or none sent."""
    return [(opcode, fields | {field: 0}) for opcode, fields in lines]


SCALED = {"scaled": 1, "group_steps": 1}
# Name of the buffer, then who writes it, and who reads it once a token has come.
HANDOVERS: dict[str, Streams] = {
    "memory": {"ST": [store(signal=LD)], "LD": [load(1, wait=ST, destination=2)]},
    "stream": {"LD": [load(2, signal=MPE)], "MPE": [matrix(1, 1, wait=LD, last=0)]},
    "scale_ring": {
        "LD": [load(2, signal=MPE), load(1, destination=1, signal=MPE)],
        "MPE": [sync(wait=LD), matrix(1, 1, wait=LD, last=0, **SCALED)],
    },
    "input": {"LD": [load(1, signal=SFU, destination=2)], "SFU": [vector(1, wait=LD, a_source=1)]},
    "result": {
        "LD": [load(2, signal=MPE)],
        "MPE": [matrix(1, 1, wait=LD, signal=SFU)],
        "SFU": [vector(1, wait=MPE, a_source=3)],
    },
    "activation": {
        "LD": [load(2, signal=MPE)],
        "SFU": [vector(8, signal=MPE, target=3)],
        "MPE": [sync(wait=LD), matrix(1, 1, wait=SFU, last=0)],
    },
    "matrix_scales": {
        "LD": [load(2, signal=MPE)],
        "SFU": [vector(1, signal=MPE, target=6, d_base=3)],
        "MPE": [sync(wait=LD), matrix(1, 1, wait=SFU, scale_base=3)],
    },
    "store": {"SFU": [vector(1, signal=ST, target=5)], "ST": [store(wait=SFU)]},
    "best": {"SFU": [vector(4, signal=SYS, target=0, reduce=4)], "SYS": [execute(wait=SFU)]},
}


@pytest.mark.parametrize("buffer", HANDOVERS)
def test_ordered_handover(buffer: str) -> None:
    run(program(**HANDOVERS[buffer]))


@pytest.mark.parametrize("order", [tuple(Unit), tuple(reversed(Unit))], ids=["forth", "back"])
@pytest.mark.parametrize("buffer", HANDOVERS)
def test_a_missing_token_is_a_race(buffer: str, order: tuple[Unit, ...]) -> None:
    streams = dict(HANDOVERS[buffer])
    reader = list(streams)[-1]
    giver = {
        "memory": "ST",
        "stream": "LD",
        "scale_ring": "LD",
        "input": "LD",
        "result": "MPE",
    }.get(buffer, "SFU")
    # The last instruction of the reader no longer waits, and nobody signals it for that.
    streams[reader] = [*streams[reader][:-1], *without(streams[reader][-1:], "wait")]
    streams[giver] = [*streams[giver][:-1], *without(streams[giver][-1:], "signal")]
    # A ring that is read before it was written is empty, which is as wrong.
    with pytest.raises(IllegalProgram, match=f"race on {buffer}|ring: -"):
        run(program(**streams), order)


@pytest.mark.parametrize("order", [tuple(Unit), tuple(reversed(Unit))], ids=["forth", "back"])
def test_overwriting_what_was_not_read_yet_is_a_race(order: tuple[Unit, ...]) -> None:
    writes = [load(1, signal=SFU, destination=2), load(1, destination=2)]
    with pytest.raises(IllegalProgram, match="race on input"):
        run(program(LD=writes, SFU=[vector(1, wait=LD, a_source=1)]), order)
    # With a token back it is legal.
    writes[1] = load(1, wait=SFU, destination=2)
    run(program(LD=writes, SFU=[vector(1, wait=LD, signal=LD, a_source=1)]), order)


def test_other_rows_do_not_matter() -> None:
    writes = [load(1, signal=SFU, destination=2), load(1, destination=2, buffer_base=4)]
    run(program(LD=writes, SFU=[vector(1, wait=LD, a_source=1)]))


def test_rows_wrap() -> None:
    last = MACHINE.input_words - 1
    reads = [vector(1, a_source=1)]
    code = program(LD=[load(2, destination=2, buffer_base=last)], SFU=reads)
    with pytest.raises(IllegalProgram, match="race on input"):
        run(code)


def test_order_is_transitive() -> None:
    stores = [store(signal=SFU)]
    code = {"ST": stores, "SFU": [sync(wait=ST, signal=MPE)], "MPE": [sync(wait=SFU, signal=LD)]}
    run(program(**code, LD=[load(1, wait=MPE, destination=2)]))
    # MPE's token is worth nothing if it was sent before ST's had come.
    code["MPE"] = [sync(signal=LD), sync(wait=SFU)]
    with pytest.raises(IllegalProgram, match="race on memory"):
        run(
            program(**code, LD=[load(1, wait=MPE, destination=2)]),
            (Unit.ST, Unit.SFU, Unit.MPE, Unit.LD, Unit.SYS),
        )


def test_a_race_names_both_sides() -> None:
    with pytest.raises(IllegalProgram) as caught:
        run(
            program(
                LD=[load(3, destination=2, buffer_base=8)],
                SFU=[sync(), vector(1, a_source=1, a_base=10)],
            )
        )
    assert "race on input: SFU instruction 1" in str(caught.value)
    assert "instruction number 1 of LD, which wrote" in str(caught.value)


def test_ring_overrun() -> None:
    full = MACHINE.stream_words // 2
    reads = [sync(wait=LD), sync(wait=LD), matrix(1, 1, last=0)]
    run(program(LD=[load(full, signal=MPE)] * 2, MPE=reads))
    with pytest.raises(
        IllegalProgram, match=f"stream ring: {MACHINE.stream_words + 1} words|race on stream"
    ):
        run(program(LD=[load(full)] * 2 + [load(1)]))


@pytest.mark.parametrize("name, lines", [("stream", [matrix(1, 2, wait=LD, last=0)])])
def test_ring_underrun(name: str, lines: list[Line]) -> None:
    with pytest.raises(IllegalProgram, match=f"{name} ring: -2 words"):
        run(program(LD=[load(2, signal=MPE)], MPE=lines))


def test_more_rows_than_the_buffer_has() -> None:
    words = MACHINE.input_words
    with pytest.raises(IllegalProgram, match=f"input: {words + 1} rows in a buffer of {words}"):
        run(program(LD=[load(words + 1, destination=2)]))


def many(count_: int, line: Line) -> list[Line]:
    return [loop(count_, 3), line, end_loop(1)]


def test_tokens_fill_a_counter() -> None:
    """255 fit; the next one, which nobody can take before, does not."""
    for number in (255, 256):
        last = [sync(signal=MPE)]
        takes = [sync(wait=ST), *[loop(number, 4), sync(wait=LD), end_loop(2)]]
        code = program(
            LD=[*many(number, sync(signal=MPE)), sync(signal=ST)],
            ST=[sync(wait=LD), *last],
            MPE=takes,
        )
        if number == 255:
            run(code)
            TimingEngine(code).run(1, 1)
            continue
        with pytest.raises(IllegalProgram, match="token overflow from LD at 1 to MPE"):
            run(code)
        with pytest.raises(IllegalProgram, match="token overflow"):
            TimingEngine(code).run(1, 1)


def test_more_tokens_pass_if_they_are_taken_in_time() -> None:
    code = program(LD=many(1000, sync(signal=MPE)), MPE=many(1000, sync(wait=LD)))
    assert TimingEngine(code).run(1, 1).instructions[Unit.MPE] == 1000
    run(code)


def test_only_time_tells_an_overflow_of_a_slow_taker() -> None:
    takes = many(300, vector(64, wait=LD, rows=8, a_pitch=32, d_pitch=32))
    code = program(LD=many(300, sync(signal=SFU)), SFU=takes)
    # Functionally the giver can be held; in hardware it is not.
    run(code)
    with pytest.raises(IllegalProgram, match="token overflow"):
        TimingEngine(code).run(1, 1)


@pytest.mark.parametrize("waiting", Unit, ids=lambda unit: unit.name)
def test_deadlock_names_the_unit_and_whom_it_waits_for(waiting: Unit) -> None:
    giver = Unit((waiting + 1) % len(Unit))
    code = program(**{waiting.name: [sync(), sync(wait=mask(giver))]})
    complaint = f"deadlock: {waiting.name} at 1 waits for {giver.name}"
    with pytest.raises(IllegalProgram, match=f"^{complaint}$"):
        run(code)
    with pytest.raises(IllegalProgram, match=f"^{complaint}$"):
        TimingEngine(code).run(1, 1)


def test_a_cycle_of_units_is_named_in_full() -> None:
    code = program(MPE=[sync(wait=SFU, signal=SFU)], SFU=[sync(wait=MPE | LD, signal=MPE)])
    complaint = "deadlock: MPE at 0 waits for SFU; SFU at 0 waits for LD, MPE"
    for attempt in (lambda: run(code), lambda: TimingEngine(code).run(1, 1)):
        with pytest.raises(IllegalProgram, match=f"^{complaint}$"):
            attempt()


def test_illegal_control_flow_is_named() -> None:
    code = program(ST=[sync(), end_loop(0)])
    for attempt in (lambda: run(code), lambda: TimingEngine(code).run(1, 1)):
        with pytest.raises(IllegalProgram, match="ST at 1 nests or closes loops wrongly"):
            attempt()


@pytest.mark.parametrize(
    "streams",
    [
        {"LD": [load(0)]},
        {"ST": [store(rows=0)]},
        {"ST": [store(pattern=0, steps=0)]},
        {"MPE": [matrix(0, 1)]},
        {"MPE": [matrix(1, 0)]},
        {"SFU": [vector(0)]},
        {"SFU": [vector(1, rows=0)]},
    ],
    ids=["length", "rows", "steps", "blocks", "matrix-steps", "elements", "vector-rows"],
)
def test_timing_refuses_counts_of_zero(streams: Streams) -> None:
    with pytest.raises(IllegalProgram, match=f"{next(iter(streams))} at 0: .*a count of zero"):
        TimingEngine(program(**streams)).run(1, 1)


def test_every_order_of_units_finds_the_race() -> None:
    streams = {"LD": [load(1, destination=2)], "SFU": [vector(1, a_source=1, **count("length", 1))]}
    for order in itertools.permutations(Unit):
        with pytest.raises(IllegalProgram, match="race on input"):
            run(program(**streams), order)


SECOND_VECTOR: dict[str, Streams] = {
    # Each row that is handed over belongs to the second vector alone.
    "activation": {
        "LD": [load(2, signal=MPE)],
        "SFU": [vector(8, signal=MPE, target=3, d_base=16 // MACHINE.lanes)],
        "MPE": [
            sync(wait=LD),
            matrix(1, 1, wait=SFU, activation_pitch=4, result_pitch=8, **count("vectors", 2)),
        ],
    },
    "matrix_scales": {
        "LD": [load(2, signal=MPE)],
        "SFU": [vector(1, signal=MPE, target=6, d_base=3)],
        "MPE": [sync(wait=LD), matrix(1, 1, wait=SFU, scale_pitch=3, **count("vectors", 2))],
    },
    "result": {
        "LD": [load(2, signal=MPE)],
        "MPE": [matrix(1, 1, wait=LD, signal=SFU, result_pitch=8, **count("vectors", 2))],
        "SFU": [vector(1, wait=MPE, a_source=3, a_base=8)],
    },
}


@pytest.mark.parametrize("buffer", SECOND_VECTOR)
def test_every_vector_is_looked_at(buffer: str) -> None:
    streams = dict(SECOND_VECTOR[buffer])
    run(program(**streams))
    reader, giver = ("SFU", "MPE") if buffer == "result" else ("MPE", "SFU")
    streams[reader] = [*streams[reader][:-1], *without(streams[reader][-1:], "wait")]
    streams[giver] = [*streams[giver][:-1], *without(streams[giver][-1:], "signal")]
    for order in (tuple(Unit), tuple(reversed(Unit))):
        with pytest.raises(IllegalProgram, match=f"race on {buffer}|ring: -"):
            run(program(**streams), order)
