"""Coverage of the memory: refresh, turnaround, order, and how bursts of the units meet."""

import itertools
from collections import Counter
from collections.abc import Iterator

from emulator import memory as timing_model
from emulator import sequencer
from emulator.timing import (
    BURST_ACCEPTED,
    BURST_BEATS,
    BURST_COMPLETE,
    BURST_IS_WRITE,
    BURST_WORD,
)
from hw.spec.instructions import (
    Opcode,
    Unit,
    decode,
)
from hw.spec.machine import MachineSpec
from sim_tests.exactness import Expectation, entries_of

Bins = Counter[str]
MEMORY_BINS = (
    "turnaround to write",
    "turnaround to read",
    "refresh inside a read",
    "refresh inside a write",
    "refresh before a burst",
    "refresh while idle",
    "random access",
    "write wins over read",
    "beats slower than cycles",
    "address wraps",
)


def cover_memory(bins: Bins, spec: MachineSpec, expected: Expectation) -> None:
    """Replays the bursts on the memory model and looks at its state before and after each."""
    state = timing_model.memory_state(spec.memory)
    bursts = expected.timing.bursts
    if len(bursts) and spec.memory.beat_numerator < spec.memory.beat_denominator:
        bins["memory beats slower than cycles"] += 1
    random = _random_bursts(expected, spec)
    ends: dict[int, list[int]] = {0: [], 1: []}
    limits = (spec.read_outstanding, spec.write_outstanding)
    columns = [BURST_ACCEPTED, BURST_COMPLETE, BURST_WORD, BURST_BEATS, BURST_IS_WRITE]
    for number, (accepted, complete, word, beats, write) in enumerate(bursts[:, columns].tolist()):
        refreshed = state[timing_model.NEXT_REFRESH]
        idle = state[timing_model.BUS_FREE] < refreshed * state[timing_model.NUMERATOR]
        timing_model.refresh_until(state, accepted)
        bins["memory refresh while idle"] += bool(
            state[timing_model.NEXT_REFRESH] != refreshed and idle
        )
        kind = "write" if write else "read"
        if random[number]:
            bins["memory random access"] += 1
        else:
            row = word // spec.memory.row_words
            at = timing_model.FIRST_BANK + timing_model.BANK_ENTRIES * (row % spec.memory.banks)
            found = state[at + timing_model.OPEN_ROW]
            hit = found == row // spec.memory.banks
            bins[f"memory {kind} row {'hit' if hit else 'miss' if found < 0 else 'conflict'}"] += 1
        bins[f"memory turnaround to {kind}"] += bool(state[timing_model.WRITING] != write)
        before = state[timing_model.NEXT_REFRESH]
        if write:
            timing_model.accept_write(state, accepted, word, beats)
        else:
            timing_model.accept_read(state, accepted, word, beats, random[number])
        if state[timing_model.NEXT_REFRESH] != before:
            inside = state[timing_model.BOUNDARY] >= 0
            bins[
                f"memory refresh inside a {kind}" if inside else "memory refresh before a burst"
            ] += 1
        bins["memory address wraps"] += word >= spec.memory.words
        unit = "ST" if write else "LD"
        done = ends[write]
        under_way = sum(end >= accepted for end in done[-limits[write] :])
        bins[f"{unit} queue empty"] += under_way == 0
        if len(done) >= limits[write] and done[-limits[write]] + 1 == accepted:
            bins[f"{unit} queue full"] += 1
        done.append(complete)
    _cover_bursts_of_units(bins, expected, spec)


def _random_bursts(expected: Expectation, spec: MachineSpec) -> list[int]:
    """Whether each burst belongs to a load whose address counts as random."""
    flags: list[int] = []
    loads = iter(_loads(expected))
    left = flag = 0
    for beats, write in expected.timing.bursts[:, [BURST_BEATS, BURST_IS_WRITE]].tolist():
        if write:
            flags.append(0)
            continue
        if left == 0:
            left, flag = next(loads)
        left -= beats
        flags.append(flag)
    return flags


def _loads(expected: Expectation) -> Iterator[tuple[int, int]]:
    """Words and random flag of every load, in order."""
    program = expected.program
    words = program.instructions.get(Unit.LD, [])
    for entry in entries_of(program, Unit.LD, expected.request, expected.end_position):
        fields = decode(Unit.LD, words[entry[sequencer.PC]])
        if fields["opcode"] == Opcode.EXECUTE:
            yield int(entry[sequencer.COUNTS]), fields["random"]


def _cover_bursts_of_units(bins: Bins, expected: Expectation, spec: MachineSpec) -> None:
    """Several bursts an instruction, and reads that lost against a write."""
    bursts = expected.timing.bursts
    writes = set(bursts[bursts[:, BURST_IS_WRITE] == 1, BURST_ACCEPTED].tolist())
    for write, unit in ((0, Unit.LD), (1, Unit.ST)):
        accepted = bursts[bursts[:, BURST_IS_WRITE] == write, BURST_ACCEPTED]
        issues = expected.trace[unit]["issue"]
        for issue, following in itertools.pairwise([*issues.tolist(), expected.cycles]):
            between = accepted[(accepted > issue) & (accepted <= following)]
            bins[f"{unit.name} several bursts"] += len(between) > 1
            if write == 0 and len(between) and issue + 1 < between[0]:
                bins["memory write wins over read"] += (
                    between[0] - 1 in writes and issue + 1 <= between[0] - 1
                )
