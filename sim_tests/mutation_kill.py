"""Trials that show mutants: short programs, faulty programs, memory errors, and a host that does what it likes."""

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emulator.machine import Machine
from hw.host import load_script, run_script, timing_script
from hw.spec.machine import MachineSpec
from hw.spec.program import Program
from hw.spec.registers import ErrorCode
from sim_tests.exactness import Expectation, compare, expect
from sim_tests.fuzz import corpus
from sim_tests.fuzz_case import FuzzCase
from sim_tests.fuzz_illegal import endless, faults
from sim_tests.fuzz_run import ContinuedMachine, NativeRunner, Played
from sim_tests.mutation import PLUSARG, Mutant, MutatedNetlist
from sim_tests.mutation_programs import (
    argmax_case,
    control_cases,
    last_cases,
    longest_cases,
    registers_case,
    steps_case,
    sums_case,
)
from sim_tests.mutation_scripts import (
    LOOKED_AT,
    far_end,
    far_script,
    host_script,
    reset_script,
    rewrite_script,
    silent_script,
    stop_scripts,
)

PATIENCE_SECONDS = 120
"""For one trial; a program that does not end is stopped by its number of cycles long before."""
HOST_TRIALS = 4
FAR_LIMIT = 100
"""Cycles of a run of very many steps, in the watchdog's patience."""
LONGEST_CYCLES = 10_000_000
"""Cycles of a run with a loop of very many rounds."""
MEMORY_TRIALS = 3
"""Of each kind of trouble with the memory."""
ADDRESSES_TRIED = 5
"""In each program, for a burst that ends with an error."""
RANDOM_CONTENT = ("+verilator+rand+reset+2", "+verilator+seed+1")
"""What memories and registers without a reset hold before they are written."""
_NOTHING = Played((), "", (), 0)


@dataclass(frozen=True)
class Trial:
    """A script with a program, and what the processor does with it."""

    name: str
    program: Program
    script: tuple[str, ...]
    limit: int
    played: Played


class Killer:
    """Runs mutants on trials until something differs from what the processor does.

    Every trial is first run on the netlist without a change. What legal programs do must then be equal to the
    emulator in every event, and what is wrong must be reported as such.

    Parameters
    ----------
    spec : MachineSpec
    netlist : MutatedNetlist
    programs : int
        Random legal programs, run twice in a row; some of them are also run with faults in them.
    seed : int
    more : int
        Further ones that only mutants see that the first ones and the host do not show.

    Raises
    ------
    RuntimeError
        If emulator and unchanged netlist differ.
    """

    def __init__(
        self, spec: MachineSpec, netlist: MutatedNetlist, programs: int, seed: int, more: int
    ) -> None:
        self.spec = spec
        self.runner = NativeRunner(spec, netlist.folder)
        self.trials: list[Trial] = []
        self.further: list[Trial] = []
        self.longest: list[Trial] = []
        self.seed = seed
        self.more = more
        cases = corpus(spec, programs, seed).cases
        self._programs(cases, self.trials)
        rng = random.Random(seed)
        directed = [sums_case(spec), steps_case(spec), argmax_case(spec), registers_case(spec)]
        directed += [*control_cases(spec), *last_cases(spec)]
        for number, case in enumerate(directed):
            case = dataclasses.replace(case, seed=number)
            self.trials.append(self._legal(case, expect(case.program, case.request)))
        self._far(rng, steps_case(spec))
        self._illegal_counts()
        for case, expected in cases[:HOST_TRIALS]:
            self._trouble(rng, case, expected)
            far = far_end(rng, case)
            self.trials.append(self._legal(far, expect(far.program, far.request)))
        looping = [(c, e) for c, e in cases if len(e.tokens) > len(c.request.prompt)]
        for case, expected in looping[:HOST_TRIALS]:
            self._lengths(rng, case, expected)
        for wanted in (ErrorCode.READ_RESPONSE, ErrorCode.WRITE_RESPONSE, ErrorCode.DEADLOCK):
            found = 0
            for case, expected in cases:
                if wanted == ErrorCode.DEADLOCK:
                    found += self._silent_memory(rng, case, expected)
                else:
                    found += self._memory_error(rng, case, expected, wanted)
                if found == MEMORY_TRIALS:
                    break
            else:
                raise RuntimeError(f"only {found} programs found that can end with {wanted.name}")

    def _programs(self, cases: Sequence[tuple[FuzzCase, Expectation]], trials: list[Trial]) -> None:
        for number, (case, expected) in enumerate(cases):
            trials.append(self._legal(case, expected))
            if number % 3 == 0:
                trials.extend(self._faulty(case, expected))

    def _play(self, number: int, trial: Trial) -> Played:
        return self.runner.play_script(
            trial.program,
            trial.script,
            limit=trial.limit,
            plusargs=[f"+{PLUSARG}={number}", *RANDOM_CONTENT],
            seconds=PATIENCE_SECONDS,
        )

    def _trial(self, name: str, program: Program, script: list[str], limit: int) -> Trial:
        lines = (*timing_script(program.machine.memory), *script)
        trial = Trial(name, program, lines, limit, _NOTHING)
        return dataclasses.replace(trial, played=self._play(0, trial))

    def _legal(self, case: FuzzCase, expected: Expectation) -> Trial:
        """A program twice in a row: what a run leaves behind is seen, too."""
        request = case.request
        limit = 2 * expected.cycles + 2 * self.spec.watchdog_cycles
        first = Machine(case.program)
        first.run(list(request.prompt), request.tokens, request.stop_tokens)
        again = expect(case.program, request, ContinuedMachine(case.program, first.states))
        run = run_script(request.prompt, request.tokens, request.stop_tokens)
        rewrite = rewrite_script(random.Random(case.seed), case.program)
        script = load_script(case.program) + run + rewrite + run
        script += [f"read {int(register)}" for register in LOOKED_AT]
        trial = self._trial(f"seed {case.seed}", case.program, script, limit)
        one, two = self.runner.results(trial.played, request, runs=2)
        one = one.with_memories(expected.cores)  # only those of the second run are seen
        for ours, theirs in ((expected, one), (again, two)):
            comparison = compare(case.program, ours, theirs)
            if not comparison.equal:
                raise RuntimeError(f"seed {case.seed}: {comparison.first_difference}")
        return trial

    def _faulty(self, case: FuzzCase, expected: Expectation) -> list[Trial]:
        limit = 10 * (expected.cycles + self.spec.watchdog_cycles)
        request = case.request
        trials = []
        for fault in faults(case, expected, case.seed):
            if fault.error is None:
                continue
            name = f"seed {case.seed}, {fault.kind}"
            script = load_script(fault.program)
            script += run_script(request.prompt, request.tokens, request.stop_tokens)
            trials.append(self._trial(name, fault.program, script, limit))
            (result,) = self.runner.results(trials[-1].played, request)
            if result.error.code != fault.error:
                raise RuntimeError(
                    f"{name}: {result.error.code.name} instead of {fault.error.name}"
                )
        return trials

    # ------------------------------------------------------------------------- host and memory

    def _trouble(self, rng: random.Random, case: FuzzCase, expected: Expectation) -> None:
        """Any host, and resets."""
        limit = 2 * expected.cycles + 20 * self.spec.watchdog_cycles
        for name, script in (
            ("any host", host_script(rng, case)),
            ("resets", reset_script(rng, case, expected)),
        ):
            name = f"seed {case.seed}, {name}"
            self.trials.append(self._trial(name, case.program, script, limit))

    def _far(self, rng: random.Random, case: FuzzCase) -> None:
        limit = FAR_LIMIT * self.spec.watchdog_cycles
        name = f"seed {case.seed}, far"
        self.trials.append(self._trial(name, case.program, far_script(rng, case), limit))

    def _illegal_counts(self) -> None:
        """Counts that depend on TOKEN: only programs must not ask for them."""
        case = registers_case(self.spec, token=True)
        script = load_script(case.program) + run_script(case.request.prompt, case.request.tokens)
        limit = 2 * self.spec.watchdog_cycles
        self.trials.append(self._trial("counts from TOKEN", case.program, script, limit))

    def _lengths(self, rng: random.Random, case: FuzzCase, expected: Expectation) -> None:
        """Other lengths, counts and stop tokens than the program is made for."""
        self._far(rng, case)
        limit = 2 * expected.cycles + 2 * self.spec.watchdog_cycles
        for number, program in enumerate(endless(case, expected, case.seed)):
            run = run_script(case.request.prompt, case.request.tokens)
            name = f"seed {case.seed}, endless {number}"
            self.trials.append(self._trial(name, program, [*load_script(program), *run], limit))
        for number, script in enumerate(stop_scripts(case, expected)):
            name = f"seed {case.seed}, stop token {number}"
            self.trials.append(self._trial(name, case.program, script, limit))

    def _memory_error(
        self, rng: random.Random, case: FuzzCase, expected: Expectation, wanted: ErrorCode
    ) -> bool:
        """A burst that ends with an error response, then the same without it; False if no such burst was found."""
        request, program = case.request, case.program
        run = run_script(request.prompt, request.tokens, request.stop_tokens)
        limit = 2 * expected.cycles + 4 * self.spec.watchdog_cycles
        words: Sequence[int] = range(len(program.memory))
        if wanted == ErrorCode.WRITE_RESPONSE:
            before = np.zeros_like(expected.memory)
            before[: len(program.memory)] = program.memory
            words = np.flatnonzero((before != expected.memory).any(axis=1)).tolist()
        for address in rng.sample(words, min(len(words), ADDRESSES_TRIED)):
            script = load_script(program) + ["fault enable 1", f"fault address {address}", *run]
            script += ["fault enable 0", *run]
            trial = self._trial(f"seed {case.seed}, {wanted.name}", program, script, limit)
            if trial.played.reads[1] & 0xFF == wanted:
                self.trials.append(trial)
                return True
        return False

    def _silent_memory(self, rng: random.Random, case: FuzzCase, expected: Expectation) -> bool:
        """A memory that answers again half-way, in the last cycle in which the next run is still begun, or later.

        False if what it holds up ends without it.
        """
        seed = rng.randrange(1 << 32)
        limit = 2 * expected.cycles + 4 * self.spec.watchdog_cycles

        def trial(late: int) -> tuple[Trial, bool]:
            script = silent_script(random.Random(seed), case, expected, late)
            made = self._trial(
                f"seed {case.seed}, memory silent for {late}", case.program, script, limit
            )
            second = self.runner.results(made.played, case.request, runs=3)[1]
            return made, second.error.code == ErrorCode.DEADLOCK

        early, late = 0, 2 * self.spec.watchdog_cycles
        first, last = trial(early), trial(late)
        if first[1] or not last[1]:
            return False
        self.trials.append(trial(self.spec.watchdog_cycles // 2)[0])
        while late - early > 1:
            middle = (early + late) // 2
            now = trial(middle)
            if now[1]:
                late, last = middle, now
            else:
                early, first = middle, now
        self.trials += [first[0], last[0]]
        return True

    # --------------------------------------------------------------------------------- verdicts

    def killed_by(self, mutant: Mutant) -> str | None:
        """The trial that shows the change, or None."""
        return self._first(mutant, self.trials)

    def killed_later_by(self, mutant: Mutant) -> str | None:
        """As `killed_by`, by the further programs."""
        if not self.further:
            cases = corpus(self.spec, self.more, self.seed + 100_000).cases
            self._programs(cases, self.further)
        return self._first(mutant, self.further)

    def killed_last_by(self, mutant: Mutant) -> str | None:
        """As `killed_by`, by loops of very many rounds, which take seconds each."""
        if not self.longest:
            for number, case in enumerate(longest_cases(self.spec)):
                script = [*load_script(case.program), *run_script((1,), 1)]
                trial = self._trial(f"longest loop {number}", case.program, script, LONGEST_CYCLES)
                (result,) = self.runner.results(trial.played, case.request)
                if result.error.code != ErrorCode.NONE:
                    raise RuntimeError(f"{trial.name}: {result.error.code.name}")
                self.longest.append(trial)
        return self._first(mutant, self.longest)

    def _first(self, mutant: Mutant, trials: Sequence[Trial]) -> str | None:
        for trial in trials:
            try:
                if self._play(mutant.number, trial) != trial.played:
                    return trial.name
            except RuntimeError as error:
                return f"{trial.name}: {str(error)[:60]}"
        return None
