"""Coverage of the rings: full, empty, wrapped, and read again."""

from collections import Counter

import numpy as np

from emulator import sequencer
from emulator.timing import (
    RECORD_END,
)
from emulator.units.matrix_check import step_format
from hw.spec.instructions import (
    Destination,
    Opcode,
    Unit,
    decode,
)
from hw.spec.program import Program
from hw.spec.weight_format import StepFormat
from sim_tests.exactness import Expectation, entries_of

Bins = Counter[str]


def cover_rings(bins: Bins, program: Program, expected: Expectation) -> None:
    """Fill of the rings over time, by the ends of loads and of popping MPE instructions."""
    spec = program.machine
    depths = {"stream": spec.stream_words, "scale": spec.scale_words}
    changes: dict[str, list[tuple[int, int]]] = {"stream": [], "scale": []}
    words = program.instructions.get(Unit.LD, [])
    records = expected.timing.records
    entries = entries_of(program, Unit.LD, expected.request, expected.end_position)
    for entry, record in zip(entries, records[Unit.LD], strict=True):
        fields = decode(Unit.LD, words[entry[sequencer.PC]])
        if fields["opcode"] == Opcode.EXECUTE and fields["destination"] != Destination.INPUT:
            ring = Destination(fields["destination"]).name.lower()
            changes[ring].append((int(record[RECORD_END]), int(entry[sequencer.COUNTS])))
    words = program.instructions.get(Unit.MPE, [])
    chain = 0
    entries = entries_of(program, Unit.MPE, expected.request, expected.end_position)
    for entry, record in zip(entries, records[Unit.MPE], strict=True):
        fields = decode(Unit.MPE, words[entry[sequencer.PC]])
        if fields["opcode"] != Opcode.EXECUTE:
            continue
        counts = entry[sequencer.COUNTS : sequencer.COUNTS + 3]
        blocks, steps, vectors = (int(v) for v in counts)
        step = step_format(fields)
        bins[format_bin(step)] += 1
        bins["MPE several vectors"] += vectors > 1
        bins["MPE several blocks"] += blocks > 1
        bins["MPE drain longer than steps"] += steps < spec.drain_cycles
        bins["MPE steps longer than drain"] += steps > spec.drain_cycles
        chain = 1 if fields["first"] else chain + 1
        bins["MPE chain of 2 or more"] += chain >= 2
        if fields["pop"]:
            taken = blocks * step.block_words(steps)
            changes["stream"].append((int(record[RECORD_END]), -taken))
            if fields["scaled"]:
                changes["scale"].append((
                    int(record[RECORD_END]),
                    -(blocks * steps // fields["group_steps"]),
                ))
    for ring, events in changes.items():
        loaded = sum(change for _, change in events if change > 0)
        bins[f"{ring} ring wraps"] += loaded > depths[ring]
        fill = np.cumsum([change for _, change in sorted(events)])
        bins[f"{ring} ring full"] += int(np.sum(fill == depths[ring]))
        bins[f"{ring} ring empty"] += int(np.sum(fill == 0))
    words = program.instructions.get(Unit.SFU, [])
    for entry in entries_of(program, Unit.SFU, expected.request, expected.end_position):
        if words[entry[sequencer.PC]] & 0xF == Opcode.EXECUTE:
            bins["SFU several rows"] += entry[sequencer.COUNTS] > 1
            bins["SFU length no multiple of the lanes"] += (
                entry[sequencer.COUNTS + 1] % spec.lanes != 0
            )


def format_bin(step: StepFormat) -> str:
    """The bin of a step's format."""
    kept = f", {step.kept} of 16" if step.kept else ""
    return f"MPE {step.weight.name}{kept}{' by bitmap' if step.bitmap else ''}"
