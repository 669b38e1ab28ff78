"""What a set of programs has exercised, in named bins; computed from programs, retirements and bursts."""

import enum
from collections import Counter
from collections.abc import Mapping

import numpy as np

from emulator.timing import (
    RECORD_END,
    RECORD_PC,
    RECORD_TAKEN,
    RECORD_WAIT_FROM,
)
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
from sim_tests.coverage_memory import MEMORY_BINS, cover_memory
from sim_tests.coverage_rings import cover_rings, format_bin
from sim_tests.coverage_walk import walk
from sim_tests.exactness import Expectation
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
    Opcode.SKIP,
)
_REGISTERS = (
    Register.ZERO,
    Register.POSITION,
    Register.PROMPT_LENGTH,
    Register.STEPS,
    Register.SKIPPED,
    Register.REST,
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
    bins |= {"SKIP to zero", "SKIP beyond zero"}
    bins |= {f"tokens {a.name} to {b.name}" for a in Unit for b in Unit}
    bins |= {f"{unit.name} {how}" for unit in Unit for how in ("waits for tokens", "finds tokens")}
    bins |= {f"tokens in flight {n}" for n in ("2 or more", "16 or more", "64 or more")}
    bins |= {
        f"memory {'write' if w else 'read'} {what}"
        for w in (0, 1)
        for what in ("row hit", "row miss", "row conflict")
    }
    bins |= {f"memory {what}" for what in MEMORY_BINS}
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
    bins |= {format_bin(step) for step in spec.step_formats}
    bins |= {"end by steps", "end by stop token"}
    return bins


def cover(case: FuzzCase, expected: Expectation) -> Bins:
    """Bins of one run and how often each was hit."""
    bins: Bins = Counter()
    program = case.program
    for unit in Unit:
        _cover_unit(bins, program, expected, unit)
    _cover_tokens(bins, program, expected)
    cover_memory(bins, program.machine, expected)
    cover_rings(bins, program, expected)
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
    for step in walk(program, expected, unit):
        fields, indices = step.fields, step.indices
        registers |= step.own
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
        if opcode == Opcode.SKIP:
            count = evaluate_count(fields, "count", indices, registers)
            bins["SKIP to zero" if count <= fields["less"] else "SKIP beyond zero"] += 1
        elif opcode == Opcode.LOOP:
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
