"""Illegal programs made from legal ones: what the emulator must refuse and the hardware must stop at."""

import dataclasses
import random
from collections.abc import Callable
from dataclasses import dataclass

from hw.spec.instructions import (
    COUNT_BITS,
    Destination,
    Opcode,
    Pattern,
    Reduce,
    Target,
    Unit,
    decode,
    encode,
)
from hw.spec.machine import MachineSpec
from hw.spec.program import Program
from hw.spec.registers import ErrorCode
from hw.spec.weight_format import WeightFormat
from sim_tests.exactness import Expectation
from sim_tests.fuzz_case import FuzzCase


@dataclass(frozen=True)
class Fault:
    """An illegal program.

    Attributes
    ----------
    kind : str
    program : Program
    error : ErrorCode or None
        What the hardware must report; None where it does not notice.
    unit, pc : int or None
        Where it must say that it is.
    """

    kind: str
    program: Program
    error: ErrorCode | None
    unit: int | None = None
    pc: int | None = None


Change = Callable[[random.Random, FuzzCase, Expectation], Fault | None]


def faults(case: FuzzCase, expected: Expectation, seed: int) -> list[Fault]:
    """One of every kind that can be made from a legal program."""
    rng = random.Random(seed)
    made = [change(rng, case, expected) for change in CHANGES]
    return [fault for fault in made if fault is not None]


def drop_a_wait(rng: random.Random, case: FuzzCase, expected: Expectation) -> Program | None:
    """The program without one awaited token; it may happen to be legal still."""
    found = _executed(case, expected, lambda unit, fields: fields["wait"] != 0)
    if not found:
        return None
    unit, pc, fields = rng.choice(found)
    bits = [u for u in Unit if fields["wait"] >> u & 1]
    return _replaced(case, unit, pc, fields | {"wait": fields["wait"] & ~(1 << rng.choice(bits))})


def _drop_a_signal(rng: random.Random, case: FuzzCase, expected: Expectation) -> Fault | None:
    found = _executed(case, expected, lambda unit, fields: fields["signal"] != 0)
    if not found:
        return None
    unit, pc, fields = rng.choice(found)
    bits = [u for u in Unit if fields["signal"] >> u & 1]
    program = _replaced(
        case, unit, pc, fields | {"signal": fields["signal"] & ~(1 << rng.choice(bits))}
    )
    return Fault("a token that is never sent", program, ErrorCode.DEADLOCK)


def _no_count(rng: random.Random, case: FuzzCase, expected: Expectation) -> Fault | None:
    unit = rng.choice([Unit.LD, Unit.ST, Unit.MPE, Unit.SFU])
    found = _executed(case, expected, lambda u, f: u == unit and f["opcode"] == Opcode.EXECUTE)
    if not found:
        return None
    unit, pc, fields = rng.choice(found)
    names = {
        Unit.LD: ["length_cap"],
        Unit.ST: ["rows"],
        Unit.MPE: ["blocks_cap", "steps_cap", "vectors_cap"],
    }
    name = rng.choice(names.get(unit, ["length_cap", "rows_cap"]))
    program = _replaced(case, unit, pc, fields | {name: 0})
    return Fault("a count of zero", program, ErrorCode.ILLEGAL_INSTRUCTION, unit, pc)


def _no_opcode(rng: random.Random, case: FuzzCase, expected: Expectation) -> Fault | None:
    unit, pc, _ = rng.choice(_executed(case, expected, lambda unit, fields: True))
    word = case.program.instructions[unit][pc]
    code = rng.choice([0, *range(9, 16)])
    program = _with_word(case, unit, pc, word & ~0xF | code)
    return Fault("no such opcode", program, ErrorCode.ILLEGAL_INSTRUCTION, unit, pc)


def _combinations(spec: MachineSpec) -> dict[Unit, list[dict[str, int]]]:
    """Field values that do not exist or do not go together."""
    formats = [{"format": int(weight)} for weight in WeightFormat if weight.name not in spec.weight_formats]  # fmt: skip
    sparse = [] if spec.sparse else [{"kept": 1}, {"kept": 2}, {"kept": 3}, {"bitmap": 1}]
    rows = dict.fromkeys(("rows_register", "rows_shift", "rows_step"), 0)
    rows |= {"rows_cap": 2, "rows_offset": 2, "rows_scale": 1}
    return {
        Unit.LD: [{"destination": max(Destination) + 1}],
        Unit.ST: [
            {"pattern": max(Pattern) + 1},
            {"pattern": 0, "address_register": 3, "address_shift": 15},
        ],
        Unit.MPE: [
            *({"scaled": 1, "group_steps": 0}, {"scaled": 1, "group_steps": 4095}),
            *(*formats, *sparse),
        ],
        Unit.SFU: [
            *({"a_source": 0}, {"a_source": 5}, {"b_source": 7}, {"target": 7}, {"reduce": 6}),
            {"reduce": int(Reduce.ARGMAX), "exchange": 0, **rows},
            *(
                {"reduce": int(reduce), "target": int(Target.SCALAR)}
                for reduce in (Reduce.MAXIMUM, Reduce.MAGNITUDE, Reduce.SUM)
            ),
        ],
    }


def _no_combination(unit: Unit) -> Change:
    """Such a combination in an instruction of a unit."""

    def change(rng: random.Random, case: FuzzCase, expected: Expectation) -> Fault | None:
        found = _executed(case, expected, lambda u, f: u == unit and f["opcode"] == Opcode.EXECUTE)
        values = rng.choice(_combinations(case.program.machine)[unit])
        if not found or ("address_register" in values and case.request.steps < 64):
            return None
        _, pc, fields = rng.choice(found)
        program = _replaced(case, unit, pc, fields | values)
        return Fault("no such combination", program, ErrorCode.ILLEGAL_INSTRUCTION, unit, pc)

    return change


def endless(case: FuzzCase, expected: Expectation, seed: int) -> list[Program]:
    """The program with a count of 2**18 or 2**19 in some instruction, for every count of every unit: no watchdog waits for it."""
    rng = random.Random(seed)
    programs = []
    for unit in (Unit.LD, Unit.MPE, Unit.SFU):
        found = _executed(case, expected, lambda u, f, of=unit: u == of and f["opcode"] == Opcode.EXECUTE)  # fmt: skip
        for name in ("length", "rows", "blocks", "steps", "vectors") if found else ():
            _, pc, fields = rng.choice(found)
            if f"{name}_cap" not in fields:
                continue
            for value in (1 << COUNT_BITS - 2, 1 << COUNT_BITS - 1):
                count = {"cap": value, "offset": value, "scale": 1}
                count |= dict.fromkeys(("register", "shift", "level", "step"), 0)
                changed = {f"{name}_{part}": number for part, number in count.items()}
                programs.append(_replaced(case, unit, pc, fields | changed))
    return programs


def _at_end(unit: Unit, lines: list[int]) -> Callable[[FuzzCase], tuple[Program, int]]:
    """Instructions in the place of a unit's HALT."""

    def change(case: FuzzCase) -> tuple[Program, int]:
        words = case.program.instructions[unit]
        changed = {**case.program.instructions, unit: [*words[:-1], *lines]}
        return dataclasses.replace(case.program, instructions=changed), len(words) - 1

    return change


def _end_loop(rng: random.Random, case: FuzzCase, expected: Expectation) -> Fault | None:
    unit = rng.choice(list(Unit))
    program, pc = _at_end(unit, [encode(unit, Opcode.END_LOOP)])(case)
    return Fault("the end of no loop", program, ErrorCode.ILLEGAL_INSTRUCTION, unit, pc)


def _close_loops(rng: random.Random, case: FuzzCase, expected: Expectation) -> Fault | None:
    unit = rng.choice(list(Unit))
    program, pc = _at_end(unit, [encode(unit, Opcode.BRANCH, close=rng.randint(1, 4))])(case)
    return Fault("a branch out of no loop", program, ErrorCode.ILLEGAL_INSTRUCTION, unit, pc)


def _fifth_loop(rng: random.Random, case: FuzzCase, expected: Expectation) -> Fault | None:
    unit = rng.choice(list(Unit))
    loop = encode(unit, Opcode.LOOP, count_cap=1, count_offset=1, count_scale=1)
    program, pc = _at_end(unit, [loop] * 5)(case)
    return Fault("a fifth loop", program, ErrorCode.ILLEGAL_INSTRUCTION, unit, pc + 4)


def _outside(rng: random.Random, case: FuzzCase, expected: Expectation) -> Fault | None:
    unit = rng.choice(list(Unit))
    target = rng.choice([case.program.machine.instructions, 4095])
    program, _ = _at_end(unit, [encode(unit, Opcode.BRANCH, target=target)])(case)
    return Fault("a jump beyond the program", program, ErrorCode.PROGRAM_COUNTER, unit, target)


def _overflow(rng: random.Random, case: FuzzCase, expected: Expectation) -> Fault | None:
    unit, taker = rng.choice(list(Unit)), rng.choice(list(Unit))
    program, pc = _at_end(unit, [])(case)
    loop = encode(unit, Opcode.LOOP, target=pc + 3, count_cap=400, count_offset=400, count_scale=1)
    lines = [loop, encode(unit, Opcode.SYNC, signal=1 << taker)]
    lines += [encode(unit, Opcode.END_LOOP, target=pc + 1), encode(unit, Opcode.HALT)]
    program, _ = _at_end(unit, lines)(case)
    return Fault("too many tokens", program, ErrorCode.TOKEN_OVERFLOW)


def _overrun(rng: random.Random, case: FuzzCase, expected: Expectation) -> Fault | None:
    """More words for a ring than it holds and anybody takes: only the emulator sees it."""
    destination = rng.choice([Destination.STREAM, Destination.SCALE])
    spec = case.program.machine
    words = spec.stream_words if destination == Destination.STREAM else spec.scale_words
    fields = {"length_cap": words + 1, "length_offset": words + 1, "length_scale": 1}
    load = encode(Unit.LD, Opcode.EXECUTE, destination=int(destination), **fields)
    program, _ = _at_end(Unit.LD, [load, encode(Unit.LD, Opcode.HALT)])(case)
    return Fault("an overrun ring", program, None)


CHANGES: list[Change] = [
    *(_drop_a_signal, _no_count, _no_opcode, _end_loop, _close_loops, _fifth_loop),
    *(_no_combination(unit) for unit in (Unit.LD, Unit.ST, Unit.MPE, Unit.SFU)),
    *(_outside, _overflow, _overrun),
]


def _executed(
    case: FuzzCase, expected: Expectation, wanted: Callable[[Unit, dict[str, int]], bool]
) -> list[tuple[Unit, int, dict[str, int]]]:
    """Unit instructions that are executed and wanted: unit, pc, fields."""
    result = []
    for unit in Unit:
        for pc in sorted({int(pc) for pc in expected.trace[unit]["pc"]}):
            fields = decode(unit, case.program.instructions[unit][pc])
            if wanted(unit, fields):
                result.append((unit, pc, fields))
    return result


def _replaced(case: FuzzCase, unit: Unit, pc: int, fields: dict[str, int]) -> Program:
    values = {name: value for name, value in fields.items() if name != "opcode"}
    return _with_word(case, unit, pc, encode(unit, Opcode(fields["opcode"]), **values))


def _with_word(case: FuzzCase, unit: Unit, pc: int, word: int) -> Program:
    words = list(case.program.instructions[unit])
    words[pc] = word
    return dataclasses.replace(
        case.program, instructions={**case.program.instructions, unit: words}
    )
