"""Two cores on the simulated hardware: programs, the bundled model, errors, and cores that are not equally fast."""

import functools
import random
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from emulator.machine import Machine
from emulator.timing import TimingEngine
from hw.host import load_script, run_script, timing_script
from hw.spec.instructions import Opcode, Unit, decode
from hw.spec.machine_file import load_machine
from hw.spec.registers import ErrorCode
from mapping.compiler import compile_model
from mapping.frontend.model import load_model
from mapping.recipe import load_recipe
from sim_tests.exactness import Expectation, Request, compare, expect
from sim_tests.fuzz import corpus
from sim_tests.fuzz_case import FuzzCase, fuzz_machine
from sim_tests.fuzz_run import NativeRunner
from sim_tests.run_result import SimulationResult
from sim_tests.simulate import build_simulator, simulate
from sim_tests.token_program import STORED, TokenProgram

CORES = 2
PROGRAMS = 40
LATE_PROGRAMS = 30
PROMPT, GENERATED = [3, 1, 2], 5
MODEL_REQUEST = Request(tuple(b"def "), 6)


@functools.cache
def runner() -> NativeRunner:
    """The simulator of the fuzz machine."""
    spec = fuzz_machine("two-core")
    return NativeRunner(spec, build_simulator(spec, "native"))


@functools.cache
def programs() -> list[tuple[FuzzCase, Expectation]]:
    """Random programs, most of them with exchanges."""
    made = corpus(fuzz_machine("two-core"), PROGRAMS, seed=0)
    assert len(made.rejected) < 0.1 * PROGRAMS, made.rejected
    return made.cases


def limit(expected: Expectation) -> int:
    """Cycles after which a run has failed."""
    return 2 * expected.cycles + 2 * expected.program.machine.watchdog_cycles


def barriers(
    case: FuzzCase, expected: Expectation, elements: bool = False
) -> dict[Unit, np.ndarray]:
    """Which retirements of SFU and SYS wait for all cores: exchanges (or those of `elements`), and EXECUTEs of SYS."""
    found = {}
    for unit in (Unit.SFU, Unit.SYS):
        words = case.program.instructions[unit]
        fields = [decode(unit, words[pc]) for pc in expected.trace[unit]["pc"]]
        wanted = [
            f["opcode"] == Opcode.EXECUTE
            and (unit == Unit.SYS or (f["exchange"] == 1 and not (elements and f["reduce"])))
            for f in fields
        ]
        found[unit] = np.array(wanted, bool)
    return found


def play(case: FuzzCase, expected: Expectation, pauses: list[tuple[int, int]]) -> SimulationResult:
    """Run a program while memory pauses, given as mask of the cores and cycles, one behind the other."""
    request, machine = case.request, case.program.machine
    script = timing_script(machine.memory) + load_script(case.program)
    run = run_script(request.prompt, request.tokens, request.stop_tokens, CORES)
    lines = [line for mask, cycles in pauses for line in (f"fault stall {mask}", f"wait {cycles}")]
    at = run.index("run")
    script += [*run[:at], *lines, "fault stall 0", *run[at:]]
    played = runner().play_script(case.program, script, limit=limit(expected))
    (result,) = runner().results(played, request)
    return result


# -------------------------------------------------------------------------------- equally fast cores


def test_random_programs_are_exact_in_both_cores() -> None:
    bins: Counter[str] = Counter()
    for case, expected in programs():
        (result,) = runner().run(case.program, case.request, limit=limit(expected))
        comparison = compare(case.program, expected, result)
        assert comparison.equal, f"seed {case.seed}: {comparison.first_difference}"
        assert comparison.words_compared == CORES * case.program.machine.memory.words
        waiting = barriers(case, expected)
        bins["exchanges"] += int(waiting[Unit.SFU].sum())
        generated = expected.tokens[len(case.request.prompt) :]
        bins.update(f"token of core {token % CORES}" for token in generated.tolist())
        one, other = (core.trace[Unit.SFU]["checksum"] for core in expected.cores)
        bins["cores that compute something else"] += bool((one != other).any())
        # Both cores write all parts of an exchange of elements.
        assert (one == other)[barriers(case, expected, elements=True)[Unit.SFU]].all()
    print(dict(bins))
    assert bins["exchanges"] >= 2 * PROGRAMS
    assert bins["cores that compute something else"] > PROGRAMS // 2
    assert all(bins[f"token of core {core}"] for core in range(CORES))


def test_the_model_gives_the_tokens_of_one_core() -> None:
    model, recipe = load_model("pydoc-llama"), load_recipe("w4a8")
    one, two = (
        compile_model(model, load_machine(target), recipe, context=16)
        for target in ("tiny", "two-core")
    )
    state, _ = Machine(one, trace=False).run(list(MODEL_REQUEST.prompt), MODEL_REQUEST.tokens)
    expected = expect(two, MODEL_REQUEST)
    assert expected.tokens.tolist() == state.tokens[: len(expected.tokens)].tolist()
    bound = 2 * expected.cycles
    result = simulate(two.machine, two, MODEL_REQUEST.prompt, MODEL_REQUEST.tokens, limit=bound)
    comparison = compare(two, expected, result)
    assert comparison.equal, comparison.first_difference
    assert comparison.words_compared == CORES * two.machine.memory.words
    assert comparison.events_compared > 1000 * CORES
    assert result.tokens.tolist() == expected.tokens.tolist()
    # Each has half of the weights, and little that the other one has too.
    alone = TimingEngine(one).run(len(MODEL_REQUEST.prompt), MODEL_REQUEST.tokens).bytes_read
    assert all(core.counters["bytes_read"] < 0.65 * alone for core in result.cores)


def test_tokens_and_logits_of_a_program_by_hand() -> None:
    program = TokenProgram(fuzz_machine("two-core"))
    (result,) = runner().run(program.program, Request(tuple(PROMPT), GENERATED), limit=100_000)
    tokens = program.tokens(PROMPT, GENERATED)
    assert result.error.code == ErrorCode.NONE
    assert result.tokens.tolist() == tokens
    for core, run in enumerate(result.cores):
        for position, token in enumerate(tokens[:-1]):
            address = program.output + STORED * position
            stored = run.memory[address : address + STORED].view(np.float32)[:, 0]
            assert stored.tolist() == program.stored(token, core)


# ------------------------------------------------------------------------------------- one is late


def late(case: FuzzCase, expected: Expectation, core: int) -> Iterator[str]:
    """Slow down the memory of one core; say what the other one waits for.

    The other one's memory is as ever, so that all it does is in its cycle until it has to wait for the late one.
    """
    rng = random.Random(f"{case.seed} {core}")
    pauses = []
    while sum(cycles for _, cycles in pauses) < expected.cycles:
        pauses += [(1 << core, rng.choice([1, 3, 20, 100, 300])), (0, rng.choice([1, 10, 50]))]
    result = play(case, expected, pauses)
    where = f"seed {case.seed}, core {core} late"
    assert result.error.code == ErrorCode.NONE, f"{where}: {result.error}"
    assert result.tokens.tolist() == expected.tokens.tolist(), where
    delayed: list[tuple[int, Unit, int]] = []
    for number, (ours, theirs) in enumerate(zip(expected.cores, result.cores, strict=True)):
        assert (ours.memory == theirs.memory).all(), where
        for unit in Unit:
            mine, other = ours.trace[unit], theirs.trace[unit]
            for name in ("pc", "index", "checksum"):
                assert (mine[name] == other[name]).all(), f"{where}: {name} of {unit.name}"
            if number != core:
                moved = np.flatnonzero(mine["issue"] != other["issue"])
                delayed += [(int(mine["issue"][i]), unit, int(i)) for i in moved[:1]]
    waiting = barriers(case, expected)
    for unit, chosen in waiting.items():
        issues = [core.trace[unit]["issue"][chosen] for core in result.cores]
        assert (issues[0] == issues[1]).all(), f"{where}: {unit.name} begins apart"
    if delayed:
        _, unit, number = min(delayed)
        assert unit in waiting and waiting[unit][number], f"{where}: {unit.name} waits at {number}"
        yield f"{'exchange' if unit == Unit.SFU else 'token'} waits for core {core}"


def test_a_late_core_delays_the_other_and_changes_nothing() -> None:
    bins: Counter[str] = Counter()
    for case, expected in programs()[:LATE_PROGRAMS]:
        for core in range(CORES):
            bins.update(late(case, expected, core))
    print(dict(bins))
    wanted = {
        f"{what} waits for core {core}" for what in ("exchange", "token") for core in range(CORES)
    }
    assert set(bins) == wanted


# ------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize("core", range(CORES))
def test_a_bus_error_names_its_core(core: int) -> None:
    program = TokenProgram(fuzz_machine("two-core"))
    request = Request(tuple(PROMPT), GENERATED)
    cases = {
        # The second load is the weights; the first store is that of the first token.
        ErrorCode.READ_RESPONSE: (1, Unit.LD, 3),
        ErrorCode.WRITE_RESPONSE: (program.output, Unit.ST, 2),
    }
    for code, (word, unit, pc) in cases.items():
        script = timing_script(program.spec.memory) + load_script(program.program)
        script += [f"fault address {word}", f"fault enable {1 << core}"]
        script += run_script(request.prompt, request.tokens, cores=CORES)
        played = runner().play_script(program.program, script, limit=100_000)
        (result,) = runner().results(played, request)
        assert result.error == (code, core, unit, pc)


@pytest.mark.parametrize("core", range(CORES))
def test_a_core_that_never_comes_to_its_exchange_is_a_deadlock(core: int) -> None:
    spec = fuzz_machine("two-core")
    program = TokenProgram(spec)
    request = Request(tuple(PROMPT), GENERATED)
    script = (
        timing_script(spec.memory) + load_script(program.program) + [f"fault stall {1 << core}"]
    )
    script += run_script(request.prompt, request.tokens, cores=CORES)
    played = runner().play_script(program.program, script, limit=100_000)
    (result,) = runner().results(played, request)
    assert result.error == (ErrorCode.DEADLOCK, 0, 0, 0)
    assert result.cycles > spec.watchdog_cycles
    # The other core has loaded what it needs, and waits with its exchange.
    assert len(result.cores[core].trace[Unit.LD]) == 1  # the SYNC behind the token
    assert len(result.cores[1 - core].trace[Unit.LD]) > 1
    for run in result.cores:
        assert len(run.trace[Unit.SFU]) == 1
