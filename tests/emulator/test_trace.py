"""Traces parse, cover the run, and no two slices of a track overlap."""

import gzip
import json
from collections import defaultdict
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from emulator.timing import RECORD_END, RECORD_TAKEN, RECORD_WAIT_FROM, TimingEngine
from emulator.trace import trace_events, write_trace
from hw.spec.instructions import Unit
from tests.emulator.programs import MACHINE, compiled, load, mask, matrix, program, sync


@pytest.mark.parametrize("clock_hz", [200_000_000, 333_000_000, 97_654_321])
@pytest.mark.parametrize("suffix", ["json", "json.gz"])
def test_slices_do_not_overlap(tmp_path: Path, suffix: str, clock_hz: int) -> None:
    code = compiled("small", "w4a8")
    engine = TimingEngine(replace(code, machine=replace(code.machine, clock_hz=clock_hz)))
    result = engine.run(2, 2, record=True)
    path = tmp_path / f"trace.{suffix}"
    write_trace(path, engine, result)
    text = gzip.decompress(path.read_bytes()) if suffix.endswith("gz") else path.read_bytes()
    events = json.loads(text, parse_float=Decimal)["traceEvents"]
    tracks: dict[tuple[int, int], list[Any]] = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            tracks[event["pid"], event["tid"]].append(event)
    ends = []
    for slices in tracks.values():
        for before, after in zip(slices, slices[1:], strict=False):
            assert before["ts"] + before["dur"] <= after["ts"]
        assert all(s["dur"] > 0 for s in slices)
        ends.append(slices[-1]["ts"] + slices[-1]["dur"])
    names = {
        event["tid"]: event["args"]["name"]
        for event in events
        if event["name"] == "thread_name" and event["pid"] == 1
    }
    executed = {names[tid]: len(slices) for (pid, tid), slices in tracks.items() if pid == 1}
    for unit in Unit:
        assert executed[unit.name] == result.instructions[unit]
        waits = result.records[unit][:, RECORD_TAKEN] > result.records[unit][:, RECORD_WAIT_FROM]
        assert executed[f"{unit.name} waits for"] == waits.sum()
    assert sum(len(slices) for (pid, _), slices in tracks.items() if pid == 2) == len(result.bursts)
    last = max(int(records[-1, RECORD_END]) for records in result.records.values())
    assert float(max(ends)) == pytest.approx(last / clock_hz * 1e6)


def test_waits_name_who_sent_the_last_token() -> None:
    ld, mpe, sfu = mask(Unit.LD), mask(Unit.MPE), mask(Unit.SFU)
    lines = {
        "LD": [load(1, signal=sfu)],
        "MPE": [matrix(1, 500, signal=sfu)],
        "SFU": [sync(wait=ld | mpe)],
    }
    engine = TimingEngine(program(MACHINE, **lines))
    events = list(trace_events(engine, engine.run(1, 1, record=True)))
    waits = [e for e in events if e["ph"] == "X" and e["tid"] == 2 * Unit.SFU + 2]
    assert [(e["name"], e["args"]["waiting"]) for e in waits] == [("MPE", "SFU pc 0 sync")]
    leaves, arrives = (e for e in events if e["ph"] in "sf")
    # The arrow starts and ends in slices of the two instructions.
    for arrow in (leaves, arrives):
        slices = [
            e for e in events if e["ph"] == "X" and e["pid"] == 1 and e["tid"] == arrow["tid"]
        ]
        assert any(s["ts"] <= arrow["ts"] < s["ts"] + s["dur"] for s in slices)
    assert (leaves["tid"], arrives["tid"]) == (2 * Unit.MPE + 1, 2 * Unit.SFU + 1)
    assert leaves["id"] == arrives["id"]


def test_names_say_where_an_instruction_stands() -> None:
    engine = TimingEngine(compiled("small", "w8a8"))
    events = list(trace_events(engine, engine.run(2, 2, record=True)))
    names = {event["name"] for event in events}
    loads = {name for name in names if name.startswith("LD pc")}
    # The prompt is a chunk; tokens are counted behind it.
    assert any(name.endswith("stream chunk 0 layer 1 tile 0") for name in loads)
    assert any(name.endswith("stream token 0 layer 1 tile 0") for name in loads)
    # The output head has no layers.
    assert any(name.endswith("stream token 0 tile 0") for name in loads)
    assert any(name.startswith("SFU pc") and "argmax" in name for name in names)


def test_a_run_that_was_not_recorded_is_refused() -> None:
    engine = TimingEngine(compiled())
    with pytest.raises(ValueError, match="not recorded"):
        next(trace_events(engine, engine.run(1, 1)))
