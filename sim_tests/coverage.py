"""What a set of programs has exercised, in named bins; computed from programs, retirements and bursts."""

import enum
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from emulator import memory as timing_model
from emulator import sequencer
from emulator.timing import (
    BURST_ACCEPTED,
    BURST_BEATS,
    BURST_COMPLETE,
    BURST_IS_WRITE,
    BURST_WORD,
    RECORD_END,
    RECORD_PC,
    RECORD_TAKEN,
    RECORD_WAIT_FROM,
)
from emulator.units.matrix_check import step_format
from hw.spec.functions import Function
from hw.spec.instructions import (
    LOOP_DEPTH,
    Condition,
    Destination,
    Opcode,
    Pattern,
    Reduce,
    Register,
    Source,
    Target,
    Unit,
    decode,
    instruction_fields,
)
from hw.spec.machine import MachineSpec
from hw.spec.program import Program
from hw.spec.weight_format import StepFormat
from sim_tests.exactness import Expectation, entries_of
from sim_tests.fuzz_case import FuzzCase
from sim_tests.instruction_text import evaluate_count

Bins = Counter[str]
_CONTROLS = (
    Opcode.SYNC,
    Opcode.LOOP,
    Opcode.END_LOOP,
    Opcode.BRANCH,
    Opcode.INCREMENT,
    Opcode.HALT,
)
_REGISTERS = (
    Register.ZERO,
    Register.POSITION,
    Register.PROMPT_LENGTH,
    Register.STEPS,
    Register.PREFILL_LENGTH,
)
_COUNTS = {
    Unit.LD: ("length",),
    Unit.MPE: ("blocks", "steps", "vectors"),
    Unit.SFU: ("rows", "length"),
}
_ENUMERATED: dict[Unit, dict[str, type[enum.IntEnum]]] = {
    Unit.LD: {"destination": Destination},
    Unit.ST: {"pattern": Pattern},
    Unit.SFU: {
        "reduce": Reduce,
        "target": Target,
        "a_source": Source,
        "b_source": Source,
        "c_source": Source,
    },
}
_FLAGS = {
    Unit.LD: ("random",),
    Unit.MPE: ("scaled", "first", "last", "pop"),
    Unit.SFU: ("restart", "causal", "exchange"),
}


def all_bins(spec: MachineSpec) -> set[str]:
    """Every bin that a large enough set of programs for a machine fills."""
    bins = {
        f"opcode {unit.name} {code.name}" for unit in Unit for code in (*_CONTROLS, Opcode.EXECUTE)
    }
    for unit, fields in _ENUMERATED.items():
        for name, kind in fields.items():
            bins |= {f"{unit.name} {name} {value.name}" for value in kind}
    bins -= {"SFU a_source NONE", "SFU a_source CONSTANT"}
    bins |= {f"SFU function {function.name}" for function in Function}
    bins |= {
        f"{unit.name} {name} {value}"
        for unit, names in _FLAGS.items()
        for name in names
        for value in (0, 1)
    }
    for unit, names in _COUNTS.items():
        for name in (*names, "count"):
            bins |= {f"{unit.name} {name} of {register.name}" for register in _REGISTERS}
            bins |= {
                f"{unit.name} {name} {how}" for how in ("shifted", "scaled", "charged", "capped")
            }
    for unit in (Unit.LD, Unit.ST):
        bins |= {f"{unit.name} address of {register.name}" for register in _REGISTERS}
        bins |= {f"{unit.name} address stride of loop {level}" for level in range(LOOP_DEPTH)}
        bins |= {f"{unit.name} {place}" for place in ("several bursts", "unaligned start")}
    bins.add("LD address of TOKEN")
    bins |= {f"ST lane {lane}" for lane in range(2)}
    bins |= {
        f"{unit.name} buffer stride of a loop" for unit in (Unit.LD, Unit.ST, Unit.MPE, Unit.SFU)
    }
    bins |= {f"{unit.name} loops {depth}" for unit in Unit for depth in range(LOOP_DEPTH + 1)}
    bins |= {f"{unit.name} loop of no rounds" for unit in Unit}
    bins |= {f"branch {c.name} {how}" for c in Condition for how in ("taken", "not taken")} - {
        "branch ALWAYS not taken"
    }
    bins |= {f"branch closing {n}" for n in range(3)}
    bins |= {f"tokens {a.name} to {b.name}" for a in Unit for b in Unit}
    bins |= {f"{unit.name} {how}" for unit in Unit for how in ("waits for tokens", "finds tokens")}
    bins |= {f"tokens in flight {n}" for n in ("2 or more", "16 or more", "64 or more")}
    bins |= {
        f"memory {'write' if w else 'read'} {what}"
        for w in (0, 1)
        for what in ("row hit", "row miss", "row conflict")
    }
    bins |= {f"memory {what}" for what in _MEMORY}
    bins |= {f"{unit} queue {how}" for unit in ("LD", "ST") for how in ("full", "empty")}
    bins |= {
        f"{ring} ring {how}" for ring in ("stream", "scale") for how in ("wraps", "full", "empty")
    }
    bins |= {
        "LD and MPE at once",
        "ST and LD at once",
        "MPE and SFU at once",
        "all of LD, ST, MPE, SFU at once",
    }
    bins |= {
        "MPE drain longer than steps",
        "MPE steps longer than drain",
        "MPE several blocks",
        "MPE several vectors",
        "MPE chain of 2 or more",
    }
    bins |= {"SFU several rows", "SFU length no multiple of the lanes", "SFU in place"}
    bins |= {_format_bin(step) for step in spec.step_formats}
    bins |= {"end by steps", "end by stop token"}
    return bins


def _format_bin(step: StepFormat) -> str:
    kept = f", {step.kept} of 16" if step.kept else ""
    return f"MPE {step.weight.name}{kept}{' by bitmap' if step.bitmap else ''}"


_MEMORY = (
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


def cover(case: FuzzCase, expected: Expectation) -> Bins:
    """Bins of one run and how often each was hit."""
    bins: Bins = Counter()
    program = case.program
    for unit in Unit:
        _cover_unit(bins, program, expected, unit)
    _cover_tokens(bins, program, expected)
    _cover_memory(bins, program.machine, expected)
    _cover_rings(bins, program, expected)
    _cover_overlap(bins, expected)
    if len(expected.tokens) > len(case.request.prompt):
        early = expected.end_position < case.request.steps
        bins["end by stop token" if early else "end by steps"] += 1
    return +bins


def report(bins: Mapping[str, int], spec: MachineSpec) -> str:
    """Hits of all bins of a machine, least first."""
    wanted = all_bins(spec)
    lines = [
        f"{bins.get(name, 0):>9}  {name}"
        for name in sorted(wanted, key=lambda n: (bins.get(n, 0), n))
    ]
    missing = sum(not bins.get(name) for name in wanted)
    return "\n".join([f"{len(wanted) - missing} of {len(wanted)} bins", *lines])


# ---------------------------------------------------------------------------------- instructions


def _cover_unit(bins: Bins, program: Program, expected: Expectation, unit: Unit) -> None:
    words = program.instructions.get(unit, [])
    executed = Counter(int(pc) for pc in expected.trace[unit]["pc"])
    for pc, hits in executed.items():
        fields = decode(unit, words[pc])
        bins[f"opcode {unit.name} {Opcode(fields['opcode']).name}"] += hits
        if fields["opcode"] == Opcode.EXECUTE:
            _cover_fields(bins, program.machine, unit, fields)
    request = expected.request
    registers = {Register.PROMPT_LENGTH: len(request.prompt), Register.STEPS: request.steps}
    registers[Register.PREFILL_LENGTH] = len(request.prompt) - 1
    for step in walk(program, expected, unit):
        fields, indices = step.fields, step.indices
        registers[Register.POSITION] = step.position
        opcode = Opcode(fields["opcode"])
        bins[f"{unit.name} loops {step.depth}"] += 1
        if opcode == Opcode.EXECUTE:
            for name in _COUNTS.get(unit, ()):
                _cover_count(bins, unit, name, fields, indices, registers)
            if unit == Unit.ST:
                value = registers.get(Register(fields["address_register"]), 0)
                bins[f"ST lane {value % (1 << fields['address_shift'])}"] += 1
        if opcode in (Opcode.EXECUTE, Opcode.SYNC):
            continue  # counted by their retirements
        bins[f"opcode {unit.name} {opcode.name}"] += 1
        if opcode == Opcode.LOOP:
            if unit in _COUNTS:
                _cover_count(bins, unit, "count", fields, indices, registers)
            if evaluate_count(fields, "count", indices, registers) == 0:
                bins[f"{unit.name} loop of no rounds"] += 1
        elif opcode == Opcode.BRANCH:
            taken = "taken" if step.taken else "not taken"
            bins[f"branch {Condition(fields['condition']).name} {taken}"] += 1
            bins[f"branch closing {fields['close']}"] += step.taken


def _cover_fields(bins: Bins, spec: MachineSpec, unit: Unit, fields: Mapping[str, int]) -> None:
    """What the instruction itself shows."""
    for name, kind in _ENUMERATED.get(unit, {}).items():
        bins[f"{unit.name} {name} {kind(fields[name]).name}"] += 1
    for name in _FLAGS.get(unit, ()):
        bins[f"{unit.name} {name} {fields[name]}"] += 1
    if "address_base" in fields:
        bins[f"{unit.name} address of {Register(fields['address_register']).name}"] += 1
        for level in range(LOOP_DEPTH):
            bins[f"{unit.name} address stride of loop {level}"] += (
                fields[f"address_stride{level}"] != 0
            )
        bins[f"{unit.name} unaligned start"] += fields["address_base"] % spec.burst_beats != 0
    strides = [
        value
        for name, value in fields.items()
        if "_stride" in name and not name.startswith("address")
    ]
    bins[f"{unit.name} buffer stride of a loop"] += any(strides)
    if unit == Unit.SFU:
        bins[f"SFU function {Function(fields['function']).name}"] += 1
        same = all(
            fields[f"a_{p}"] == fields[f"d_{p}"] for p in ("base", "level0", "stride0", "pitch")
        )
        bins["SFU in place"] += (
            same and fields["a_source"] == Source.VECTOR and fields["target"] == Target.VECTOR
        )


def _cover_count(
    bins: Bins,
    unit: Unit,
    name: str,
    fields: Mapping[str, int],
    indices: list[int],
    registers: Mapping[Register, int],
) -> None:
    bins[f"{unit.name} {name} of {Register(fields[f'{name}_register']).name}"] += 1
    bins[f"{unit.name} {name} shifted"] += fields[f"{name}_shift"] > 0
    bins[f"{unit.name} {name} scaled"] += fields[f"{name}_scale"] > 1
    bins[f"{unit.name} {name} charged"] += (
        indices[fields[f"{name}_level"]] * fields[f"{name}_step"] > 0
    )
    uncapped = {**fields, f"{name}_cap": 1 << 40}
    value = evaluate_count(uncapped, name, indices, registers)
    bins[f"{unit.name} {name} capped"] += value > fields[f"{name}_cap"]


class Walked:
    """One executed instruction: fields, loop indices, POSITION, open loops, and whether a branch was taken."""

    def __init__(
        self, fields: dict[str, int], indices: list[int], position: int, depth: int, taken: bool
    ) -> None:
        self.fields = fields
        self.indices = indices
        self.position = position
        self.depth = depth
        self.taken = taken


def walk(program: Program, expected: Expectation, unit: Unit) -> Iterator[Walked]:
    """Every instruction that a sequencer executes, control instructions too, in order.

    A plain interpreter of `docs/isa.md`; the emulator's entries do not show control instructions.
    """
    words = program.instructions.get(unit, [])
    decoded: dict[int, dict[str, int]] = {}
    request = expected.request
    registers = {Register.PROMPT_LENGTH: len(request.prompt), Register.STEPS: request.steps}
    registers[Register.PREFILL_LENGTH] = len(request.prompt) - 1
    pc = position = 0
    loops: list[list[int]] = []
    while True:
        fields = decoded.get(pc)
        if fields is None:
            fields = decoded[pc] = decode(unit, words[pc])
        opcode = Opcode(fields["opcode"])
        indices = [loop[0] for loop in loops] + [0] * (LOOP_DEPTH - len(loops))
        registers[Register.POSITION] = position
        taken = opcode == Opcode.BRANCH and (
            fields["condition"] == Condition.ALWAYS
            or (fields["condition"] == Condition.PREFILL and position + 1 < len(request.prompt))
            or (fields["condition"] == Condition.END and position >= expected.end_position)
        )
        yield Walked(fields, indices, position, len(loops), taken)
        pc += 1
        if opcode == Opcode.HALT:
            return
        if opcode == Opcode.INCREMENT:
            count = evaluate_count(fields, "count", indices, registers)
            position += -count if fields["backward"] else count
        elif opcode == Opcode.LOOP:
            rounds = evaluate_count(fields, "count", indices, registers)
            if rounds:
                loops.append([0, rounds])
            else:
                pc = fields["target"]
        elif opcode == Opcode.END_LOOP:
            loops[-1][0] += 1
            if loops[-1][0] < loops[-1][1]:
                pc = fields["target"]
            else:
                loops.pop()
        elif taken:
            pc = fields["target"]
            del loops[len(loops) - fields["close"] :]


# ---------------------------------------------------------------------------------------- events


def _cover_tokens(bins: Bins, program: Program, expected: Expectation) -> None:
    """Who waits for whom, and how many tokens are under way at most."""
    moves: dict[tuple[Unit, Unit], list[tuple[int, int]]] = {}
    for unit in Unit:
        words = program.instructions.get(unit, [])
        for record in expected.timing.records[unit]:
            pc, wait_from, taken, end = (
                int(record[c]) for c in (RECORD_PC, RECORD_WAIT_FROM, RECORD_TAKEN, RECORD_END)
            )
            masks = [words[pc] >> shift & 31 for shift in _mask_shifts(unit)]
            if masks[0]:
                bins[f"{unit.name} {'waits for' if taken > wait_from else 'finds'} tokens"] += 1
            for other in Unit:
                if masks[0] >> other & 1:
                    bins[f"tokens {other.name} to {unit.name}"] += 1
                    moves.setdefault((other, unit), []).append((taken, -1))
                if masks[1] >> other & 1:
                    moves.setdefault((unit, other), []).append((end, 1))
    for events in moves.values():
        under_way = most = 0
        for _, change in sorted(events):
            under_way += change
            most = max(most, under_way)
        for name, least in (("2 or more", 2), ("16 or more", 16), ("64 or more", 64)):
            bins[f"tokens in flight {name}"] += most >= least


def _mask_shifts(unit: Unit) -> tuple[int, int]:
    at = 0
    shifts = {}
    for field in instruction_fields(unit, Opcode.SYNC):
        shifts[field.name] = at
        at += field.width
    return shifts["wait"], shifts["signal"]


def _cover_memory(bins: Bins, spec: MachineSpec, expected: Expectation) -> None:
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


def _cover_rings(bins: Bins, program: Program, expected: Expectation) -> None:
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
        bins[_format_bin(step)] += 1
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


def _cover_overlap(bins: Bins, expected: Expectation) -> None:
    """Units that execute in the same cycle."""
    busy: dict[Unit, np.ndarray] = {}
    for unit in (Unit.LD, Unit.ST, Unit.MPE, Unit.SFU):
        busy[unit] = np.zeros(expected.cycles + 2, bool)
        for entry in expected.trace[unit]:
            busy[unit][entry["issue"] : entry["end"] + 1] = True
    bins["LD and MPE at once"] += int(np.sum(busy[Unit.LD] & busy[Unit.MPE]))
    bins["ST and LD at once"] += int(np.sum(busy[Unit.LD] & busy[Unit.ST]))
    bins["MPE and SFU at once"] += int(np.sum(busy[Unit.MPE] & busy[Unit.SFU]))
    together = busy[Unit.LD] & busy[Unit.ST] & busy[Unit.MPE] & busy[Unit.SFU]
    bins["all of LD, ST, MPE, SFU at once"] += int(np.sum(together))
