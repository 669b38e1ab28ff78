"""Random programs on hardware and emulator: equal in every event, and every bin of coverage hit."""

import dataclasses
import functools
import random
from collections import Counter

import pytest

from emulator.errors import IllegalInstruction, IllegalProgram
from emulator.machine import Machine
from hw.spec.machine import MachineSpec
from hw.spec.registers import ErrorCode
from sim_tests.coverage import all_bins, cover, report
from sim_tests.exactness import Expectation, compare, expect
from sim_tests.fuzz import corpus, generate
from sim_tests.fuzz_case import FuzzCase, fuzz_machine
from sim_tests.fuzz_illegal import drop_a_wait, faults
from sim_tests.fuzz_run import ContinuedMachine, NativeRunner
from sim_tests.simulate import build_simulator

TARGETS = ("tiny", "small")
PROGRAMS = 150
SLOW_PROGRAMS = 250
SLOW_PARTS = 10
ILLEGAL = (IllegalProgram, IllegalInstruction)


@functools.cache
def runner(target: str) -> NativeRunner:
    """The simulator of a target's fuzz machine."""
    spec = fuzz_machine(target)
    return NativeRunner(spec, build_simulator(spec, "native"))


def limit(expected: Expectation, spec: MachineSpec) -> int:
    """Cycles after which a run has failed."""
    return 2 * expected.cycles + 2 * spec.watchdog_cycles


def check(target: str, case: FuzzCase, expected: Expectation) -> None:
    """Run a program on the hardware; every event, word, token and counter must be equal."""
    spec = fuzz_machine(target)
    (result,) = runner(target).run(case.program, case.request, limit=limit(expected, spec))
    comparison = compare(case.program, expected, result)
    assert comparison.equal, f"{target}, seed {case.seed}: {comparison.first_difference}"
    assert comparison.events_compared > 0 and comparison.words_compared == spec.memory.words


def run_programs(target: str, count: int, seed: int) -> Counter[str]:
    """Generate, check and cover programs; few may be rejected by the emulator."""
    made = corpus(fuzz_machine(target), count, seed)
    assert len(made.rejected) < 0.1 * count, made.rejected
    bins: Counter[str] = Counter()
    for case, expected in made.cases:
        check(target, case, expected)
        bins += cover(case, expected)
    return bins


@pytest.mark.parametrize("target", TARGETS)
def test_random_programs(target: str) -> None:
    bins = run_programs(target, PROGRAMS, seed=0)
    print(report(bins, fuzz_machine(target)))
    missing = sorted(all_bins(fuzz_machine(target)) - set(bins))
    assert not missing, f"{target}: bins that no program hit: {missing}"


@pytest.mark.slow
@pytest.mark.parametrize("part", range(SLOW_PARTS))
@pytest.mark.parametrize("target", TARGETS)
def test_many_random_programs(target: str, part: int) -> None:
    run_programs(target, SLOW_PROGRAMS, seed=1_000_000 * (part + 1))


@pytest.mark.parametrize("target", TARGETS)
def test_second_run_without_reset(target: str) -> None:
    """A second start finds buffers and memory as they were left, and everything else set back."""
    spec = fuzz_machine(target)
    for case, expected in corpus(spec, 12, seed=500_000).cases:
        first = Machine(case.program)
        request = case.request
        first.run(list(request.prompt), request.tokens, request.stop_tokens)
        again = expect(case.program, request, ContinuedMachine(case.program, first.states))
        bound = limit(expected, spec) + limit(again, spec)
        one, two = runner(target).run(case.program, request, limit=bound, runs=2)
        # Memory is only seen at the end, when it is that of the second run.
        one = one.with_memories(expected.cores)
        for number, (ours, theirs) in enumerate([(expected, one), (again, two)], 1):
            comparison = compare(case.program, ours, theirs)
            assert comparison.equal, (
                f"{target}, seed {case.seed}, run {number}: {comparison.first_difference}"
            )


@pytest.mark.parametrize("target", TARGETS)
def test_illegal_programs(target: str) -> None:
    """The emulator refuses every fault, and the hardware reports those that it can see, and where."""
    spec = fuzz_machine(target)
    kinds: Counter[str] = Counter()
    for case, expected in corpus(spec, 10, seed=700_000).cases:
        request = case.request
        for fault in faults(case, expected, case.seed):
            kinds[fault.kind] += 1
            where = f"{target}, seed {case.seed}, {fault.kind}"
            with pytest.raises(ILLEGAL):
                Machine(fault.program).run(
                    list(request.prompt), request.tokens, request.stop_tokens
                )
                pytest.fail(f"{where}: the emulator accepts it")
            if fault.error is None:
                continue
            (result,) = runner(target).run(fault.program, request, limit=10 * limit(expected, spec))
            assert result.error.code == fault.error, (
                f"{where}: {result.error.code.name} instead of {fault.error.name}"
            )
            if fault.unit is not None:
                assert (result.error.unit, result.error.pc) == (fault.unit, fault.pc), where
    assert len(kinds) == 10, kinds


@pytest.mark.parametrize("target", TARGETS)
def test_dropped_waits(target: str) -> None:
    """Without an awaited token a program is refused, or it is legal and still equal."""
    spec = fuzz_machine(target)
    refused = 0
    for case, expected in corpus(spec, 30, seed=800_000).cases:
        program = drop_a_wait(random.Random(case.seed), case, expected)
        if program is None:
            continue
        changed = dataclasses.replace(case, program=program)
        try:
            still = expect(program, case.request)
        except ILLEGAL:
            refused += 1
            continue
        check(target, changed, still)
    assert refused >= 4


def test_program_of_another_machine() -> None:
    """The hardware refuses to start it."""
    spec = fuzz_machine("tiny")
    case = generate(spec, 1)
    other = dataclasses.replace(case.program.machine, scalars=2 * spec.scalars)
    program = dataclasses.replace(case.program, machine=other)
    (result,) = runner("tiny").run(program, case.request, limit=1000)
    assert result.error.code == ErrorCode.WRONG_PROGRAM and not any(
        len(t) for t in result.trace.values()
    )


def test_generator_repeats_itself() -> None:
    spec = fuzz_machine("small")
    one, two = generate(spec, 11), generate(spec, 11)
    assert one.program.instructions == two.program.instructions
    assert (one.program.memory == two.program.memory).all()
    assert one.request == two.request and one.program.machine == two.program.machine
    assert generate(spec, 12).program.instructions != one.program.instructions


def test_coverage_counts_what_retired() -> None:
    """Bins of one program against its retirements and bursts."""
    case = generate(fuzz_machine("tiny"), 3)
    expected = expect(case.program, case.request)
    bins = cover(case, expected)
    retired = [
        name for name in bins if name.startswith("opcode") and name.endswith((" EXECUTE", " SYNC"))
    ]
    assert sum(bins[name] for name in retired) == sum(len(t) for t in expected.trace.values())
    rows = [name for name in bins if " row " in name]
    assert sum(bins[name] for name in rows) + bins["memory random access"] == len(
        expected.timing.bursts
    )
    assert (
        not set(bins) - all_bins(fuzz_machine("tiny")) - {f"ST lane {lane}" for lane in range(64)}
    )
