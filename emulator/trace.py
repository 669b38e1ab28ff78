"""A timed run as a trace that Chrome (chrome://tracing) and Perfetto show.

Every unit has two tracks: what it executes, and for whom it waits. Channels work in lockstep, so one track a
direction stands for all of them. Slices of one track never overlap: of loads that overlap, a slice shows
the time from the end of the one before; its true issue cycle is among its arguments, as are all cycle numbers.
Arrows lead from the instruction that sent the last token to the one that waited for it.
"""

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emulator.decode import SIGNAL, WAIT
from emulator.describe import Names
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
from hw.spec.instructions import Unit
from hw.spec.output import atomic_write

Table = npt.NDArray[np.int64]
Event = dict[str, Any]

_PROCESSOR, _MEMORY = 1, 2
_PICOSECONDS = 10**12


class _Clock:
    """Cycles to microseconds with six decimals: whole picoseconds, so that ends and starts that meet are equal."""

    def __init__(self, hertz: int) -> None:
        self.hertz = hertz

    def span(self, begin: int, end: int) -> dict[str, float]:
        first, last = self.picoseconds(begin), self.picoseconds(end)
        return {"ts": first / 10**6, "dur": (last - first) / 10**6}

    def picoseconds(self, cycle: int) -> int:
        return cycle * _PICOSECONDS // self.hertz


def write_trace(path: str | Path, engine: TimingEngine, result: TimingResult) -> None:
    """Write a trace file, compressed if its name ends in .gz; nothing is left if that fails.

    Parameters
    ----------
    path
        File to write.
    engine, result
        The engine, and what its `run` returned with `record=True`.
    """
    with atomic_write(path) as part:
        with gzip.open(part, "wt") if part.suffix == ".gz" else part.open("w") as file:
            file.write('{"displayTimeUnit": "ns", "traceEvents": [\n')
            separator = ""
            for event in trace_events(engine, result):
                file.write(separator + json.dumps(event))
                separator = ",\n"
            file.write("\n]}\n")


def trace_events(engine: TimingEngine, result: TimingResult) -> Iterator[Event]:
    """Events of the trace, track by track, each track in order of time.

    Raises
    ------
    ValueError
        If the run was not recorded.
    """
    if not any(map(len, result.records.values())) and any(result.instructions.values()):
        raise ValueError("the run was not recorded")
    clock = _Clock(engine.spec.clock_hz)
    yield from _track_names(engine.spec.channels)
    senders = token_senders(engine, result)
    for unit in Unit:
        names = Names(engine.codes[unit])
        records = result.records[unit]
        last = last_senders(records, senders[unit], result)
        yield from _executions(unit, names, records, clock)
        yield from _waits(unit, names, records, last, clock)
        yield from _arrows(unit, records, last, result, clock)
    yield from _bursts(result.bursts, clock)


def token_senders(engine: TimingEngine, result: TimingResult) -> dict[Unit, Table]:
    """Whose tokens each instruction took: int64 [instructions, units], row of the sender's records, or -1."""
    senders: dict[Unit, Table] = {}
    for taker in Unit:
        waits = engine.codes[taker].table[result.records[taker][:, RECORD_PC], WAIT]
        senders[taker] = np.full((len(waits), len(Unit)), -1, np.int64)
        for giver in Unit:
            signals = engine.codes[giver].table[result.records[giver][:, RECORD_PC], SIGNAL]
            # Tokens are taken in the order in which they were given.
            taking = np.flatnonzero(waits >> giver & 1)
            giving = np.flatnonzero(signals >> taker & 1)
            senders[taker][taking, giver] = giving[: len(taking)]
    return senders


def last_senders(
    records: Table, senders: Table, result: TimingResult
) -> list[tuple[Unit, int] | None]:
    """Who sent the last of the tokens that each instruction took, and in which instruction."""
    ends = np.full(senders.shape, -1, np.int64)
    for giver in Unit:
        given = senders[:, giver] >= 0
        ends[given, giver] = result.records[giver][senders[given, giver], RECORD_END]
    giver = ends.argmax(axis=1) if len(records) else np.zeros(0, np.int64)
    return [
        (Unit(g), int(senders[row, g])) if ends[row, g] >= 0 else None
        for row, g in enumerate(giver.tolist())
    ]


def _track_names(channels: int) -> Iterator[Event]:
    yield _name("process_name", _PROCESSOR, 0, "processor")
    yield _name("process_name", _MEMORY, 0, "memory")
    for unit in Unit:
        yield _name("thread_name", _PROCESSOR, _execution_track(unit), unit.name)
        yield _name("thread_name", _PROCESSOR, _wait_track(unit), f"{unit.name} waits for")
    which = "channel 0" if channels == 1 else f"channels 0 to {channels - 1}, each"
    for direction, word in enumerate(("read", "write")):
        yield _name("thread_name", _MEMORY, direction + 1, f"{which}: {word}")


def _name(kind: str, process: int, thread: int, name: str) -> Event:
    return {"ph": "M", "name": kind, "pid": process, "tid": thread, "args": {"name": name}}


def _execution_track(unit: Unit) -> int:
    return 2 * unit + 1


def _wait_track(unit: Unit) -> int:
    return 2 * unit + 2


def _executions(unit: Unit, names: Names, records: Table, clock: _Clock) -> Iterator[Event]:
    shown = 0
    for record in records.tolist():
        issue, end = record[RECORD_ISSUE], record[RECORD_END]
        begin = max(issue, shown)
        shown = end
        yield {
            "ph": "X",
            "name": names.instruction(record[RECORD_PC], record[RECORD_INDEX:]),
            "pid": _PROCESSOR,
            "tid": _execution_track(unit),
            **clock.span(begin, end),
            "args": {"issue cycle": issue, "end cycle": end, "pc": record[RECORD_PC]},
        }


def _waits(
    unit: Unit, names: Names, records: Table, last: Sequence[tuple[Unit, int] | None], clock: _Clock
) -> Iterator[Event]:
    for record, sender in zip(records.tolist(), last, strict=True):
        begin, end = record[RECORD_WAIT_FROM], record[RECORD_TAKEN]
        if sender is not None and end > begin:
            yield {
                "ph": "X",
                "name": sender[0].name,
                "pid": _PROCESSOR,
                "tid": _wait_track(unit),
                **clock.span(begin, end),
                "args": {
                    "first cycle": begin,
                    "taken in cycle": end,
                    "waiting": names.instruction(record[RECORD_PC], record[RECORD_INDEX:]),
                },
            }


def _arrows(
    unit: Unit,
    records: Table,
    last: Sequence[tuple[Unit, int] | None],
    result: TimingResult,
    clock: _Clock,
) -> Iterator[Event]:
    for number, (record, sender) in enumerate(zip(records.tolist(), last, strict=True)):
        if sender is None or record[RECORD_TAKEN] == record[RECORD_WAIT_FROM]:
            continue
        giver, row = sender
        # Arrows hang on the slice that covers their time, so they leave in the sender's last cycle.
        leaves = int(result.records[giver][row, RECORD_END]) - 1
        arrow = {"name": "token", "cat": "token", "id": f"{unit.name}{number}", "pid": _PROCESSOR}
        yield arrow | {
            "ph": "s",
            "tid": _execution_track(giver),
            "ts": clock.span(leaves, leaves)["ts"],
        }
        arrives = clock.span(record[RECORD_END] - 1, record[RECORD_END])["ts"]
        yield arrow | {"ph": "f", "bp": "e", "tid": _execution_track(unit), "ts": arrives}


def _bursts(bursts: Table, clock: _Clock) -> Iterator[Event]:
    for direction in (0, 1):
        for burst in bursts[bursts[:, BURST_IS_WRITE] == direction].tolist():
            yield {
                "ph": "X",
                "name": f"{burst[BURST_BEATS]} words at {burst[BURST_WORD]}",
                "pid": _MEMORY,
                "tid": direction + 1,
                **clock.span(burst[BURST_FIRST], burst[BURST_LAST] + 1),
                "args": {
                    "accepted in cycle": burst[BURST_ACCEPTED],
                    "first beat": burst[BURST_FIRST],
                    "last beat": burst[BURST_LAST],
                    "complete": burst[BURST_COMPLETE],
                },
            }
