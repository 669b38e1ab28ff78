"""The comparison finds, counts and names every difference that is planted into an equal run."""

import copy
import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from hw.spec.functions import Function
from hw.spec.instructions import Destination, Opcode, Pattern, Source, Target, Unit
from hw.spec.program import Program
from hw.spec.registers import ErrorCode, RunError
from mapping.lowering.assembler import Address, Assembler, Place, fixed, units
from mapping.lowering.vector_program import Operand, VectorProgram
from sim_tests.exactness import Expectation, Request, compare, expect
from sim_tests.fuzz_case import fuzz_machine
from sim_tests.run_result import SimulationResult

REQUEST = Request((3, 1), 2)


def example() -> Program:
    """LD and ST move two rounds of floats through the vector unit; SYS takes one token."""
    spec = fuzz_machine("tiny")
    code = {unit: Assembler(unit) for unit in Unit}
    rows = spec.granule // spec.lanes
    with code[Unit.LD].loop(fixed(2)) as level:
        code[Unit.LD].execute(
            signal=units(Unit.SFU),
            destination=int(Destination.INPUT),
            **Address(16, {level: rows}).fields(),
            **fixed(rows).fields("length"),
            **Place(0, {level: rows}).fields("buffer"),
        )
    vector = VectorProgram(code[Unit.SFU])
    with code[Unit.SFU].loop(fixed(2)) as level:
        vector.apply(
            fixed(spec.granule),
            Operand(Source.INPUT, Place(0, {level: rows})),
            function=Function.RECIPROCAL,
            target=Target.VECTOR,
            d=Place(8),
            wait=units(Unit.LD),
        )
        vector.apply(
            fixed(1),
            Operand(Source.VECTOR, Place(8)),
            target=Target.STORE_FLOAT,
            d=Place(0, {level: 1}),
            signal=units(Unit.ST),
        )
    with code[Unit.ST].loop(fixed(2)) as level:
        code[Unit.ST].execute(
            wait=units(Unit.SFU),
            pattern=int(Pattern.SCALAR),
            rows=1,
            steps=1,
            **Address(512, {level: 4}).fields(),
            **Place(0, {level: 1}).fields("source"),
        )
    code[Unit.SYS].execute()
    for assembler in code.values():
        assembler.emit(Opcode.HALT)
    memory = np.arange(64 * spec.lanes, dtype=np.float32).view(np.uint8).reshape(64, -1)
    words = {unit: assembler.words(spec.instructions) for unit, assembler in code.items()}
    return Program(spec, words, memory)


@pytest.fixture(scope="module")
def program() -> Program:
    return example()


@pytest.fixture(scope="module")
def expected(program: Program) -> Expectation:
    return expect(program, REQUEST)


def equal_result(expected: Expectation) -> SimulationResult:
    """What a simulation without a fault would report."""
    return SimulationResult(
        tokens=expected.tokens.copy(),
        cycles=expected.cycles,
        cores=tuple(copy.deepcopy(core) for core in expected.cores),
        error=RunError(ErrorCode.NONE, 0, 0, 0),
        cycles_per_second=1.0,
    )


def test_equal_runs_are_equal(program: Program, expected: Expectation) -> None:
    comparison = compare(program, expected, equal_result(expected))
    assert comparison.equal
    assert comparison.events_compared == 2 + 4 + 2 + 1
    assert comparison.words_compared == 2048
    assert (
        comparison.events_different,
        comparison.words_different,
        comparison.other_different,
    ) == (0, 0, 0)


def _plant(unit: Unit, at: int, field: str, value: int) -> Callable[[SimulationResult], None]:
    def plant(result: SimulationResult) -> None:
        result.trace[unit][at][field] = value

    return plant


def _later_and_earlier(result: SimulationResult) -> None:
    result.trace[Unit.ST]["end"] += 1
    result.trace[Unit.LD][0]["checksum"] ^= 1


def _missing(result: SimulationResult) -> None:
    result.trace[Unit.SFU] = result.trace[Unit.SFU][:3]


def _extra(result: SimulationResult) -> None:
    entries = result.trace[Unit.MPE]
    result.trace[Unit.MPE] = np.concatenate([entries, result.trace[Unit.LD][:1]])


def _word(result: SimulationResult) -> None:
    result.memory[516, 1] ^= 0x10


def _word_of_nobody(result: SimulationResult) -> None:
    result.memory[900, 0] = 1


def _token(result: SimulationResult) -> None:
    result.tokens[0] += 1


def _counter(result: SimulationResult) -> None:
    result.counters["busy_sfu"] += 1


EVENT_CASES = {
    "checksum": (
        _plant(Unit.LD, 1, "checksum", 0x1234),
        1,
        ["LD instruction 1 (EXECUTE signal=SFU destination=INPUT", "(1, 0, 0, 0)", "memory word 0x14", "RTL 0x00001234"],
    ),
    "issue": (_plant(Unit.SFU, 2, "issue", 1), 1, ["SFU instruction 1", "issue: emulator ", "RTL 1", "vector 8"]),
    "end": (_plant(Unit.ST, 0, "end", 7), 1, ["ST instruction 1", "word 0x200 lane 0", "end: emulator ", "RTL 7"]),
    "pc": (_plant(Unit.SYS, 0, "pc", 9), 1, ["SYS instruction 0", "token 0", "pc: emulator 0, RTL 9"]),
    "index": (_plant(Unit.SFU, 3, "index", 3), 1, ["index: emulator (1, 0, 0, 0), RTL (3, 3, 3, 3)"]),
    "first": (_later_and_earlier, 3, ["LD instruction 1", "cycle ", "checksum: emulator"]),
    "missing": (_missing, 1, ["SFU instruction 2", "(1, 0, 0, 0)", "is missing in RTL"]),
    "extra": (_extra, 1, ["MPE instruction 1 (beyond the program)", "is none of the emulator's"]),
}  # fmt: skip


@pytest.mark.parametrize("case", list(EVENT_CASES))
def test_planted_event(case: str, program: Program, expected: Expectation) -> None:
    plant, count, parts = EVENT_CASES[case]
    result = equal_result(expected)
    plant(result)
    comparison = compare(program, expected, result)
    assert (comparison.events_different, comparison.words_different) == (count, 0)
    assert comparison.first_difference is not None
    assert "\n" not in comparison.first_difference
    for part in parts:
        assert part in comparison.first_difference


def test_planted_word(program: Program, expected: Expectation) -> None:
    result = equal_result(expected)
    _word(result)
    comparison = compare(program, expected, result)
    assert (comparison.events_different, comparison.words_different) == (0, 1)
    message = comparison.first_difference or ""
    for part in (
        "memory word 0x204 byte 1",
        "ST instruction 1",
        "(1, 0, 0, 0)",
        "emulator ",
        "RTL ",
    ):
        assert part in message
    result = equal_result(expected)
    _word_of_nobody(result)
    assert "word 0x384 byte 0, no store writes there" in (
        compare(program, expected, result).first_difference or ""
    )


@pytest.mark.parametrize(
    "plant, text", [(_token, "token at position 0"), (_counter, "counter busy_sfu")]
)
def test_planted_other(
    plant: Callable[[SimulationResult], None], text: str, program: Program, expected: Expectation
) -> None:
    result = equal_result(expected)
    plant(result)
    comparison = compare(program, expected, result)
    assert comparison.other_different == 1 and text in (comparison.first_difference or "")


def test_cycles_and_error(program: Program, expected: Expectation) -> None:
    longer = dataclasses.replace(equal_result(expected), cycles=expected.cycles + 1)
    assert f"RTL {expected.cycles + 1}" in (
        compare(program, expected, longer).first_difference or ""
    )
    stopped = dataclasses.replace(
        equal_result(expected), error=RunError(ErrorCode.DEADLOCK, 0, int(Unit.MPE), 4)
    )
    assert "DEADLOCK at MPE instruction 4" in (
        compare(program, expected, stopped).first_difference or ""
    )
    fewer = dataclasses.replace(equal_result(expected), tokens=expected.tokens[:0])
    assert "tokens: emulator 1, RTL 0" in (compare(program, expected, fewer).first_difference or "")
