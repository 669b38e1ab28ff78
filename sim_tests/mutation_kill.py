"""Trials that show mutants: short programs, faulty programs, memory errors, and a host that does what it likes."""

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emulator.machine import Machine
from hw.host import CONTROL_INTERRUPT, load_script, run_script, timing_script
from hw.spec.instructions import Opcode, encode, instruction_bits
from hw.spec.machine import MachineSpec
from hw.spec.program import Program
from hw.spec.registers import STOP_TOKENS, ControlRegister, ErrorCode
from sim_tests.exactness import Expectation, compare, expect
from sim_tests.fuzz import FuzzCase, corpus
from sim_tests.fuzz_illegal import faults
from sim_tests.fuzz_run import ContinuedMachine, NativeRunner, Played
from sim_tests.mutation import PLUSARG, Mutant, MutatedNetlist

PATIENCE_SECONDS = 120
"""For one trial; a program that does not end is stopped by its number of cycles long before."""
LOOKED_AT = [
    *(ControlRegister.IDENTITY, ControlRegister.PROGRAM_HASH, ControlRegister.CONTROL),
    *(ControlRegister.STATUS, ControlRegister.PROMPT_LENGTH, ControlRegister.STEPS),
    *(
        ControlRegister.STOP_ENABLE,
        ControlRegister.INSTRUCTION_UNIT,
        ControlRegister.COUNTER_SELECT,
    ),
    *(ControlRegister.STOP_TOKEN + 4 * i for i in range(STOP_TOKENS)),
]
HOST_TRIALS = 4
MEMORY_TRIALS = 3
"""Of each kind of trouble with the memory."""
ADDRESSES_TRIED = 5
"""In each program, for a burst that ends with an error."""
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
        self.seed = seed
        self.more = more
        cases = corpus(spec, programs, seed).cases
        self._programs(cases, self.trials)
        rng = random.Random(seed)
        for case, expected in cases[:HOST_TRIALS]:
            self._host(rng, case, expected)
            far = far_end(rng, case)
            self.trials.append(self._legal(far, expect(far.program, far.request)))
        for wanted in (ErrorCode.READ_RESPONSE, ErrorCode.WRITE_RESPONSE):
            found = 0
            for case, expected in cases:
                found += self._memory_error(rng, case, expected, wanted)
                if found == MEMORY_TRIALS:
                    break
            else:
                raise RuntimeError(f"only {found} programs found that can end with {wanted.name}")
        for case, expected in cases[-MEMORY_TRIALS:]:
            self._silent_memory(rng, case, expected)

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
            plusargs=[f"+{PLUSARG}={number}"],
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

    def _host(self, rng: random.Random, case: FuzzCase, expected: Expectation) -> None:
        """Accesses of all kinds before a run, in it and behind it."""
        request, program = case.request, case.program
        limit = 2 * expected.cycles + 20 * self.spec.watchdog_cycles
        run = run_script(request.prompt, request.tokens, request.stop_tokens)
        start = run.index("run")
        script = accesses(rng, self.spec, 60) + _let_run_end()
        script += load_script(program) + rewrite_script(rng, program) + run[:start]
        script += accesses(rng, self.spec, 30)
        # Whatever was switched off or begun in between.
        script += [*_let_run_end(), *run[start:]]
        script += accesses(rng, self.spec, 60) + _let_run_end()
        script += load_script(program) + run + [f"read {int(register)}" for register in LOOKED_AT]
        trial = self._trial(f"seed {case.seed}, any host", program, script, limit)
        self.trials.append(trial)

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

    def _silent_memory(self, rng: random.Random, case: FuzzCase, expected: Expectation) -> None:
        """A memory that does not answer for a while: in a run, and when the next one is to begin."""
        request, program = case.request, case.program
        run = run_script(request.prompt, request.tokens, request.stop_tokens)
        start = run.index("run")
        patience = self.spec.watchdog_cycles
        script = [*load_script(program), *run[:start]]
        script += [f"wait {rng.randrange(max(1, expected.cycles))}", "fault stall 1", *run[start:]]
        script += [*run, *run[:start], f"wait {patience // 2}", "fault stall 0", *run[start:], *run]
        limit = 2 * expected.cycles + 4 * patience
        self.trials.append(self._trial(f"seed {case.seed}, silent memory", program, script, limit))

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

    def _first(self, mutant: Mutant, trials: Sequence[Trial]) -> str | None:
        for trial in trials:
            try:
                if self._play(mutant.number, trial) != trial.played:
                    return trial.name
            except RuntimeError as error:
                return f"{trial.name}: {str(error)[:60]}"
        return None


def far_end(rng: random.Random, case: FuzzCase) -> FuzzCase:
    """The program, but each unit jumps to some place behind it, the last one or any other, before it halts."""
    depth = case.program.machine.instructions
    longer = {}
    for unit, words in case.program.instructions.items():
        if len(words) > depth - 2:
            longer[unit] = words
            continue
        place = max(rng.choice([depth - 2, rng.randrange(depth - 1)]), len(words))
        halt = encode(unit, Opcode.HALT)
        jump = encode(unit, Opcode.BRANCH, target=place)
        gap = [halt] * (place - len(words))
        longer[unit] = [*words[:-1], jump, *gap, encode(unit, Opcode.SYNC), halt]
    return dataclasses.replace(case, program=dataclasses.replace(case.program, instructions=longer))


def rewrite_script(rng: random.Random, program: Program) -> list[str]:
    """Writes of some instructions, the last one in part, that were there before: nothing is changed by them."""
    script = []
    for unit, words in program.instructions.items():
        parts = instruction_bits(unit) // 32
        data = [word >> 32 * part & 0xFFFFFFFF for word in words for part in range(parts)]
        script.append(f"write {int(ControlRegister.INSTRUCTION_UNIT)} {int(unit)}")
        count = rng.randrange(len(words)) * parts + rng.randrange(1, parts)
        script += [f"write {int(ControlRegister.INSTRUCTION_DATA)} {word}" for word in data[:count]]
    return script


def _let_run_end() -> list[str]:
    """Wait for the end of whatever was begun, the interrupt enabled; a start that is refused if it was nothing."""
    writes = [(ControlRegister.PROGRAM_HASH, 0), (ControlRegister.CONTROL, CONTROL_INTERRUPT | 1)]
    return [*(f"access 1 {int(r)} {value} 15 0 0 0 0 0" for r, value in writes), "run"]


def accesses(rng: random.Random, spec: MachineSpec, count: int) -> list[str]:
    """Random accesses to registers and to what is none, whole and partial, in all orders and with all waits."""
    known = [int(register) for register in ControlRegister]
    known += [ControlRegister.STOP_TOKEN + 4 * i for i in range(STOP_TOKENS)]
    tokens = int(ControlRegister.TOKENS)

    def address() -> int:
        places = [
            rng.choice(known),
            rng.choice(known) + rng.randrange(4),
            tokens + 4 * rng.randrange(spec.tokens),
            rng.choice(known) ^ 1 << rng.randrange(16),
            rng.getrandbits(16),
        ]
        return rng.choices(places, [6, 1, 3, 1, 1])[0] & 0xFFFF

    lines = []
    for _ in range(count):
        writes = rng.choice([1, 1, 2, 3]) if rng.random() < 0.6 else 0
        reads = rng.choice([1, 1, 2]) if not writes or rng.random() < 0.4 else 0
        data = rng.choice([rng.getrandbits(32), rng.randrange(8), 1 << rng.randrange(32)])
        strobe = 15 if rng.random() < 0.8 else rng.randrange(16)
        numbers = [writes, address(), data, strobe, rng.choice([0, 0, 0, 1, 3, -1, -2])]
        numbers += [reads, address(), rng.choice([0, 0, 1, 2, 5]), rng.choice([0, 0, 1, 2, 7])]
        lines.append("access " + " ".join(map(str, numbers)))
    return lines
