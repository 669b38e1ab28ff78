"""Control flow and operand arithmetic, against an interpreter that reads `docs/isa.md` word for word."""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from emulator import sequencer as seq
from emulator.decode import UnitCode, decode_unit
from emulator.errors import IllegalProgram
from emulator.operations import check_registers, prepare
from hw.spec.instructions import (
    Condition,
    Opcode,
    Register,
    Unit,
    decode,
    encode,
    instruction_fields,
)
from tests.emulator.programs import HALT, Line, count, end_loop, execute, loop, sync

PROMPT_LENGTH, STEPS = 6, 9


def words_of(unit: Unit, lines: list[Line]) -> list[int]:
    return [encode(unit, opcode, **fields) for opcode, fields in lines]


class Interpreter:
    """One sequencer, an instruction at a time, with plain integers and a list of open loops."""

    def __init__(self, unit: Unit, words: list[int], token: int = 0) -> None:
        self.unit = unit
        self.lines = [decode(unit, word) for word in words]
        self.position = 0
        self.skipped = 0
        self.token = token
        # [index, rounds] of each open loop.
        self.loops: list[list[int]] = []

    def register(self, number: int) -> int:
        own = [self.skipped, self.position - min(self.position, self.skipped)]
        return [0, self.position, PROMPT_LENGTH, STEPS, self.token, *own][number]

    def index(self, level: int) -> int:
        return self.loops[level][0] if level < len(self.loops) else 0

    def count(self, fields: dict[str, int], name: str) -> int:
        f = {
            part: fields[f"{name}_{part}"]
            for part in ("cap", "register", "offset", "shift", "scale", "level", "step")
        }
        value = ((self.register(f["register"]) + f["offset"]) // 2 ** f["shift"]) * f["scale"]
        return min(f["cap"], max(0, value - self.index(f["level"]) * f["step"]))

    def operands(self, fields: dict[str, int]) -> dict[str, int]:
        result: dict[str, int] = {}
        for name in fields:
            operand, _, part = name.rpartition("_")
            if part == "cap":
                result[operand] = self.count(fields, operand)
            elif name == "address_base":
                value, shift = self.register(fields["address_register"]), fields["address_shift"]
                address = fields[name] + (value // 2**shift) * fields["address_factor"]
                address += sum(self.index(i) * fields[f"address_stride{i}"] for i in range(4))
                result["address"] = address % 2**28
                if self.unit == Unit.ST:
                    result["lane"] = value % 2**shift
            elif part == "base":
                value = fields[name]
                for term in "01":
                    if f"{operand}_level{term}" in fields:
                        value += (
                            self.index(fields[f"{operand}_level{term}"])
                            * fields[f"{operand}_stride{term}"]
                        )
                result[operand] = value % 2**16
        return result

    def run(
        self, end_position: int
    ) -> Iterator[tuple[int, tuple[int, ...], int, int, dict[str, int]]]:
        """Unit instructions: pc, indices, controls since the last one, position, operands."""
        pc = controls = 0
        while True:
            fields = self.lines[pc]
            opcode = fields["opcode"]
            if opcode in (Opcode.SYNC, Opcode.EXECUTE):
                indices = tuple(self.index(level) for level in range(4))
                operands = self.operands(fields) if opcode == Opcode.EXECUTE else {}
                yield pc, indices, controls, self.position, operands
                pc, controls = pc + 1, 0
                continue
            if opcode == Opcode.HALT:
                return
            controls += 1
            pc = self.control(pc, fields, end_position)

    def control(self, pc: int, fields: dict[str, int], end_position: int) -> int:
        match fields["opcode"]:
            case Opcode.INCREMENT:
                added = self.count(fields, "count")
                self.position += -added if fields["backward"] else added
                self.position %= 2**20
            case Opcode.SKIP:
                made = self.count(fields, "count")
                self.skipped = made - min(made, fields["less"])
            case Opcode.LOOP:
                rounds = self.count(fields, "count")
                if rounds == 0:
                    return fields["target"]
                self.loops.append([0, rounds])
            case Opcode.END_LOOP:
                self.loops[-1][0] += 1
                if self.loops[-1][0] < self.loops[-1][1]:
                    return fields["target"]
                self.loops.pop()
            case Opcode.BRANCH:
                holds = [True, self.position + 1 < PROMPT_LENGTH, self.position >= end_position]
                holds.append(self.position > self.skipped)
                if holds[fields["condition"]]:
                    for _ in range(fields["close"]):
                        self.loops.pop()
                    return fields["target"]
        return pc + 1


def expanded(
    code: UnitCode, end_position: int = STEPS, room: int = 7
) -> tuple[list[list[int]], int]:
    """All entries of a unit, in pieces of `room`, and the last status."""
    state, entries, result = seq.new_state(), np.zeros((room, seq.ENTRY_COLUMNS), np.int64), []
    while True:
        number, status = seq.expand(code.table, state, PROMPT_LENGTH, STEPS, end_position, entries)
        result += entries[:number].tolist()
        if status != seq.RUNNING:
            return result, status


def check(unit: Unit, lines: list[Line], token: int = 0) -> list[Any]:
    """Compare both on one program; what the interpreter says."""
    words = words_of(unit, lines)
    code = decode_unit(unit, words)
    entries, status = expanded(code)
    expected = list(Interpreter(unit, words, token).run(STEPS))
    assert status == seq.HALTED
    assert [e[seq.PC] for e in entries] == [e[0] for e in expected]
    instructions = prepare(code)
    for entry, (pc, indices, controls, position, operands) in zip(entries, expected, strict=True):
        assert tuple(entry[seq.INDEX : seq.CONTROLS]) == indices
        assert entry[seq.CONTROLS] == controls
        assert entry[seq.POSITION] == position
        operation = instructions[pc].evaluate(entry, token)
        assert {name: operation[name] for name in operands} == operands
    return expected


def random_fields(unit: Unit, generator: random.Random) -> dict[str, int]:
    """Any values in the operands of an EXECUTE, registers and shifts within reason."""
    fields = {}
    for field in instruction_fields(unit, Opcode.EXECUTE)[3:]:
        if field.name.endswith("_register"):
            tokens = field.name == "address_register" and unit == Unit.LD
            known = [number for number in Register if tokens or number != Register.TOKEN]
            fields[field.name] = generator.choice(known)
        else:
            wide = generator.random() < 0.3
            fields[field.name] = generator.randrange(
                1 << (field.width if wide else min(field.width, 4))
            )
    if unit == Unit.LD:
        fields["random"] = 1
    return fields


def random_body(unit: Unit, generator: random.Random, depth: int, at: int) -> list[Line]:
    """Instructions with nested loops and branches, the first of which stands at `at`."""
    lines: list[Line] = []
    for _ in range(generator.randrange(1, 4)):
        kind = generator.random()
        if kind < 0.3 and depth < 4:
            body = random_body(unit, generator, depth + 1, at + len(lines) + 1)
            fields = {f"count_{k}": v for k, v in random_count(generator, depth).items()}
            start = at + len(lines)
            lines += [
                (Opcode.LOOP, {"target": start + len(body) + 2, **fields}),
                *body,
                end_loop(start + 1),
            ]
        elif kind < 0.45:
            body = random_body(unit, generator, depth, at + len(lines) + 1)
            condition = int(generator.choice([Condition.PREFILL, Condition.ALWAYS, Condition.REST]))
            lines += [
                (
                    Opcode.BRANCH,
                    {"target": at + len(lines) + 1 + len(body), "condition": condition},
                ),
                *body,
            ]
        elif kind < 0.6:
            fields = {f"count_{k}": v for k, v in random_count(generator, depth).items()}
            lines.append((Opcode.INCREMENT, {"backward": generator.randrange(2), **fields}))
        elif kind < 0.7:
            fields = {f"count_{k}": v for k, v in random_count(generator, depth).items()}
            fields["count_cap"] = generator.choice([2, 5, (1 << 20) - 1])
            lines.append((Opcode.SKIP, {"less": generator.choice([0, 1, 2, 5]), **fields}))
        elif kind < 0.75:
            lines.append(sync())
        else:
            lines.append(execute(**random_fields(unit, generator)))
    return lines


def random_count(generator: random.Random, depth: int) -> dict[str, int]:
    return {
        "cap": generator.randrange(1, 4),
        "register": generator.choice([n for n in Register if n != Register.TOKEN]),
        "offset": generator.randrange(4),
        "shift": generator.randrange(3),
        "scale": generator.randrange(3),
        "level": generator.randrange(max(1, depth)),
        "step": generator.randrange(3),
    }


@pytest.mark.parametrize("unit", Unit, ids=lambda unit: unit.name)
@pytest.mark.parametrize("seed", range(12))
def test_random_programs(unit: Unit, seed: int) -> None:
    generator = random.Random(100 * seed + unit)
    lines = [*random_body(unit, generator, 0, 0), HALT]
    check(unit, lines, token=generator.randrange(1000))


def test_loops_nest_four_deep_and_leave_no_index_behind() -> None:
    lines = [
        loop(2, 9),
        loop(2, 8),
        loop(2, 7),
        loop(2, 6),
        sync(),
        end_loop(4),
        end_loop(3),
        end_loop(2),
    ]
    # The ends stand in the order of their loops; the last instruction sees none open.
    lines = [*lines, end_loop(1), sync(), HALT]
    entries = check(Unit.SFU, lines)
    assert len(entries) == 17
    assert entries[10][1] == (1, 0, 1, 0)
    assert entries[-1][1] == (0, 0, 0, 0)


def test_a_loop_of_no_rounds_is_skipped() -> None:
    entries = check(Unit.LD, [loop(0, 3), sync(), end_loop(1), sync(), HALT])
    assert [(pc, controls) for pc, _, controls, _, _ in entries] == [(3, 1)]


def test_a_token_loop_ends_at_end_and_closes_its_loop() -> None:
    branch: Line = (Opcode.BRANCH, {"target": 5, "condition": int(Condition.END), "close": 1})
    lines = [
        loop((1 << 20) - 1, 5),
        sync(),
        branch,
        (Opcode.INCREMENT, count("count", 1)),
        end_loop(1),
        sync(),
        HALT,
    ]
    entries = check(Unit.ST, lines)
    # Rounds at positions 0 to STEPS, the last cut short.
    assert len(entries) == STEPS + 2
    assert entries[-1] == (5, (0, 0, 0, 0), 1, STEPS, {})


def test_end_unknown_pauses_until_it_is_answered() -> None:
    branch: Line = (Opcode.BRANCH, {"target": 3, "condition": int(Condition.END), "close": 1})
    code = decode_unit(Unit.MPE, words_of(Unit.MPE, [loop(5, 3), branch, end_loop(1), HALT]))
    state, entries = seq.new_state(), np.zeros((4, seq.ENTRY_COLUMNS), np.int64)
    for end in (False, False, True):
        assert seq.expand(code.table, state, 1, 1, -1, entries) == (0, seq.PAUSED)
        assert seq.expand(code.table, state, 1, 1, -1, entries) == (0, seq.PAUSED)
        seq.answer_end(state, end)
    assert seq.expand(code.table, state, 1, 1, -1, entries) == (0, seq.HALTED)


@pytest.mark.parametrize(
    "lines, status",
    [
        ([sync()], seq.BAD_PC),
        ([(Opcode.BRANCH, {"target": 40})], seq.BAD_PC),
        ([end_loop(0)], seq.BAD_LOOP),
        ([loop(1, 9)] * 5, seq.BAD_LOOP),
        ([loop(1, 9), (Opcode.BRANCH, {"target": 0, "close": 2})], seq.BAD_LOOP),
    ],
    ids=["past-the-end", "branch-outside", "end-without-loop", "five-deep", "closes-too-many"],
)
def test_illegal_control_flow(lines: list[Line], status: int) -> None:
    assert expanded(decode_unit(Unit.SFU, words_of(Unit.SFU, lines)))[1] == status


@pytest.mark.parametrize("word", [0, 9, 12, 15])
def test_illegal_opcode(word: int) -> None:
    assert expanded(decode_unit(Unit.SFU, [word]))[1] == seq.BAD_OPCODE


def test_position_goes_forth_and_back_and_wraps() -> None:
    def moved(value: int, backward: int = 0) -> Line:
        return Opcode.INCREMENT, {"backward": backward, **count("count", value)}

    by_register = {"count_cap": 100, "count_register": int(Register.PROMPT_LENGTH)}
    lines = [moved(300), sync(), moved(0), sync(), moved(301, 1), sync(), moved(2), sync()]
    lines += [(Opcode.INCREMENT, by_register | {"count_scale": 3}), sync(), HALT]
    positions = [entry[3] for entry in check(Unit.MPE, lines)]
    assert positions == [300, 300, 2**20 - 1, 1, 1 + 3 * PROMPT_LENGTH]


def test_skip_and_rest_stop_at_zero() -> None:
    def skip(value: int, less: int) -> Line:
        return Opcode.SKIP, {"less": less, **count("count", value)}

    def load(at: int) -> list[Line]:
        """Length REST + 1 at address SKIPPED; and again, unless REST is zero."""
        length = {"length_register": int(Register.REST), "length_offset": 1, "length_scale": 1}
        address = {"address_register": int(Register.SKIPPED), "address_factor": 1}
        one = execute(length_cap=1000, **length, **address)
        jump = Opcode.BRANCH, {"condition": int(Condition.REST), "target": at + 3}
        return [one, jump, one]

    lines: list[Line] = [(Opcode.INCREMENT, count("count", 5))]
    for skipped in (skip(3, 1), skip(9, 2), skip(9, 9), skip(7, 2), skip(3, 4)):
        lines += [skipped, *load(len(lines) + 1)]
    # SKIPPED as a count, twice, and less.
    more = {"count_cap": 1000, "count_register": int(Register.SKIPPED), "count_scale": 1}
    lines += [skip(8, 0), (Opcode.SKIP, {**more, "count_offset": 4, "less": 9})]
    lines += [*load(len(lines)), HALT]
    found = [(entry[4]["address"], entry[4]["length"]) for entry in check(Unit.LD, lines)]
    assert found == [(2, 4), (7, 1), (7, 1), (0, 6), (5, 1), (5, 1), (0, 6), (3, 3)]


def test_an_address_follows_token() -> None:
    fields = {
        "address_base": 3,
        "address_register": int(Register.TOKEN),
        "address_factor": 5,
        "address_shift": 1,
    }
    expected = check(Unit.LD, [execute(random=1, **fields, **count("length", 1)), HALT], token=9)
    assert expected[0][4]["address"] == 3 + 4 * 5


@pytest.mark.parametrize(
    "unit, fields, what",
    [
        (Unit.LD, {"length_register": 4}, "length depends on TOKEN"),
        (Unit.LD, {"address_register": 4}, "not random"),
        (Unit.ST, {"address_register": 4}, "not random"),
        (Unit.MPE, {"steps_register": 4}, "steps depends on TOKEN"),
        (Unit.MPE, {"steps_register": 7}, "steps: no register 7"),
        (Unit.ST, {"address_register": 7}, "address: no register 7"),
    ],
)
def test_timing_must_not_depend_on_data(unit: Unit, fields: dict[str, int], what: str) -> None:
    with pytest.raises(IllegalProgram, match=what):
        check_registers(decode_unit(unit, words_of(unit, [execute(**fields)])))


def test_a_loop_must_not_depend_on_token() -> None:
    lines: list[Line] = [(Opcode.LOOP, {"count_register": int(Register.TOKEN)}), HALT]
    with pytest.raises(IllegalProgram, match="SYS at 0: count depends on TOKEN"):
        check_registers(decode_unit(Unit.SYS, words_of(Unit.SYS, lines)))


def test_the_second_term_of_a_buffer_address_alone_moves_it() -> None:
    moving = execute(result_base=5, result_level1=0, result_stride1=3, **count("blocks", 1))
    entries = check(Unit.MPE, [loop(3, 3), moving, end_loop(1), HALT])
    assert [operands["result"] for *_, operands in entries] == [5, 8, 11]
