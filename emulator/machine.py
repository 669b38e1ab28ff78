"""The functional machine: executes a program bit for bit, in any order that tokens allow.

Timing is not its business (`emulator.timing`); a legal program gives the same bits in every order.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from emulator import sequencer as seq
from emulator.accesses import TOKEN, accesses
from emulator.decode import decode_unit
from emulator.errors import IllegalProgram
from emulator.kernels import layout
from emulator.kernels import machine as kernel
from emulator.operations import Instruction, check_registers, prepare
from emulator.races import RaceDetector
from emulator.state import MachineState, allocate
from emulator.units import load, matrix, store, system, vector
from hw.spec.errors import InputError
from hw.spec.instructions import SEMAPHORE_BITS, Unit
from hw.spec.program import Program
from hw.spec.registers import STOP_TOKENS

Traces = dict[Unit, "UnitTrace"]
_EXECUTE: dict[Unit, Callable[[MachineState, Mapping[str, int]], int]] = {
    Unit.LD: load.execute,
    Unit.ST: store.execute,
    Unit.MPE: matrix.execute,
    Unit.SFU: vector.execute,
}
_CHUNK = 256
_FULL = (1 << SEMAPHORE_BITS) - 1


@dataclass
class UnitTrace:
    """Retired unit instructions of one unit, in order.

    Attributes
    ----------
    pc, checksum : list of int
    indices : list of tuple of int
        The loop indices.
    """

    pc: list[int] = field(default_factory=list)
    indices: list[tuple[int, ...]] = field(default_factory=list)
    checksum: list[int] = field(default_factory=list)


class _UnitRun:
    """One unit in the middle of a run: its sequencer and the instructions expanded so far."""

    def __init__(self, unit: Unit, table: np.ndarray, instructions: list[Instruction]) -> None:
        self.unit = unit
        self.table = table
        self.instructions = instructions
        self.entries: list[list[int]] = []
        self.at = 0
        self._state = seq.new_state()
        self._room = np.zeros((_CHUNK, seq.ENTRY_COLUMNS), np.int64)
        self._status = seq.RUNNING

    def refill(self, state: MachineState, races: RaceDetector | None) -> bool:
        """Expand the next instructions; False once the unit has halted."""
        self.entries, self.at = [], 0
        while not self.entries:
            if self._status == seq.HALTED:
                return False
            if self._status in seq.BAD:
                pc = self._state[seq.STATE_PC]
                raise IllegalProgram(f"{self.unit.name} at {pc} {seq.BAD[self._status]}")
            if self._status == seq.PAUSED:
                if races:
                    races.read_end(self.unit)
                seq.answer_end(self._state, state.end)
            count, self._status = seq.expand(
                self.table, self._state, state.prompt_length, state.steps, -1, self._room
            )
            self.entries = self._room[:count].tolist()
        return True


class Machine:
    """One program on one machine, ready to run.

    Parameters
    ----------
    program : Program
    check : bool
        Detect races and ring overruns while running.
    trace : bool
        Keep every retirement with its checksum.
    order : sequence of Unit
        In which units are tried; what a legal program computes does not depend on it.

    Raises
    ------
    IllegalProgram
        If timing would depend on data.
    """

    def __init__(
        self,
        program: Program,
        check: bool = True,
        trace: bool = True,
        order: Sequence[Unit] = tuple(Unit),
    ) -> None:
        self.program = program
        self.check = check
        self.trace = trace
        self.order = order
        self._codes = {u: decode_unit(u, program.instructions.get(u, [])) for u in Unit}
        for code in self._codes.values():
            check_registers(code)
        self._instructions = {u: prepare(code) for u, code in self._codes.items()}

    def run(
        self, prompt: list[int], tokens: int, stop_tokens: tuple[int, ...] = ()
    ) -> tuple[MachineState, Traces]:
        """Run from the prompt until `tokens` tokens are generated or a stop token appears.

        Gives the state and the retirements of core 0; those of all cores are `states` and `core_traces`.

        Raises
        ------
        InputError
            If the prompt is empty, too long, or has an id outside the vocabulary.
        IllegalProgram, IllegalInstruction
            If the program is not legal.
        """
        for _ in self.steps(prompt, tokens, stop_tokens):
            pass
        return self.state, self.traces

    def steps(
        self,
        prompt: list[int],
        tokens: int,
        stop_tokens: tuple[int, ...] = (),
        forced: Sequence[int] = (),
    ) -> Iterator[MachineState]:
        """Like `run`, but yield the state of core 0 each time SYS has set a token.

        `forced` replaces the first generated tokens, so that logits along a given text can be read.
        """
        self._start(prompt, tokens, stop_tokens)
        self.state.forced = forced
        if not (self.check or self.trace or self.order != tuple(Unit)):
            yield from self._compiled_steps()
            return
        moved = True
        while moved:
            moved = False
            for unit in self.order:
                # SYS stops at every token, so that whoever asked for them sees it.
                while self._advance(self._units[unit]):
                    moved = True
                    if unit != Unit.SYS:
                        break
                    if self._token_set:
                        yield self.state
        self._refuse_if_stuck()

    def _compiled_steps(self) -> Iterator[MachineState]:
        """The same run by the compiled machine, which neither checks order nor keeps a trace."""
        spec, state = self.program.machine, self.state
        progress = kernel.new_progress()
        host = np.array([state.prompt_length, state.steps], np.int64)
        stop_tokens = np.array(state.stop_tokens, np.int64)
        forced = np.array(state.forced, np.int64)
        machine = (
            layout.parameters(spec),
            layout.format_table(spec),
            layout.scratch(spec, self.program.wires),
        )
        flat, code = layout.flat(self._arrays), kernel.assemble(self._codes)
        while True:
            status, unit = kernel.run_machine(
                code, progress, host, stop_tokens, forced, flat, *machine
            )
            if status != kernel.TOKEN_SET:
                break
            yield state
        self._show(progress)
        if status == kernel.BAD_PROGRAM:
            pc, ended = (
                int(progress.sequencers[unit, seq.STATE_PC]),
                int(progress.units[unit, kernel.STATUS]),
            )
            raise IllegalProgram(f"{Unit(unit).name} at {pc} {seq.BAD[ended]}")
        if status == kernel.ILLEGAL:
            self._explain_illegal(self._units[Unit(unit)])
        self._refuse_if_stuck()

    def _show(self, progress: kernel.Progress) -> None:
        """Put the compiled machine's progress where complaints are made from."""
        for unit, run in self._units.items():
            at, count = progress.units[unit, [kernel.AT, kernel.COUNT]].tolist()
            run.entries, run.at = progress.entries[unit, :count].tolist(), at
        self._counts = progress.tokens.tolist()

    def _explain_illegal(self, run: "_UnitRun") -> None:
        """Raise what the unit in NumPy says of the instruction that the compiled one refused."""
        entry = run.entries[run.at]
        operation = run.instructions[entry[0]].evaluate(entry, self.state.token)
        self._apply(run.unit, operation)
        raise AssertionError(f"{run.unit.name} at {entry[0]}: refused by the compiled unit alone")

    def _refuse_if_stuck(self) -> None:
        stuck = [run for run in self._units.values() if run.at < len(run.entries)]
        if stuck:
            raise IllegalProgram(self._complaint(stuck))

    def _start(self, prompt: list[int], tokens: int, stop_tokens: tuple[int, ...]) -> None:
        spec = self.program.machine
        check_request(self.program, prompt, tokens, stop_tokens)
        arrays = self._arrays = allocate(spec)
        self.states = [MachineState(spec, arrays, core) for core in range(spec.cores)]
        self.state = self.states[0]
        for state, image in zip(self.states, self.program.images, strict=True):
            state.checked = self.check
            state.wires = self.program.wires
            state.memory[: len(image)] = image
            state.tokens[: len(prompt)] = prompt
            state.prompt_length = len(prompt)
            state.steps = len(prompt) + tokens - 1
            state.stop_tokens = stop_tokens
        # Tokens that a unit (first index) has been given by another one and not taken.
        self._counts = [[0] * len(Unit) for _ in Unit]
        self._races = RaceDetector(spec) if self.check else None
        self._units = {u: _UnitRun(u, self._codes[u].table, self._instructions[u]) for u in Unit}
        self.core_traces: list[Traces] = [{u: UnitTrace() for u in Unit} for _ in self.states]
        self.traces = self.core_traces[0]

    def _advance(self, run: _UnitRun) -> bool:
        """Execute what tokens allow of a unit, of SYS up to the next token; whether there was anything."""
        counts, unit, moved = self._counts, run.unit, False
        self._token_set = False
        given = counts[unit]
        while run.at < len(run.entries) or run.refill(self.state, self._races):
            entry = run.entries[run.at]
            instruction = run.instructions[entry[0]]
            for giver in instruction.givers:
                if not given[giver]:
                    return moved
            for taker in instruction.takers:
                if counts[taker][unit] == _FULL and not self._makes_room(instruction, unit, taker):
                    return moved
            run.at += 1
            moved = True
            for giver in instruction.givers:
                given[giver] -= 1
            self._execute(run, instruction, entry)
            for taker in instruction.takers:
                counts[taker][unit] += 1
            if unit == Unit.SYS and not instruction.sync:
                self._token_set = True
                return True
        return moved

    @staticmethod
    def _makes_room(instruction: Instruction, unit: Unit, taker: int) -> bool:
        """Whether the instruction first takes a token of the counter that it then adds to."""
        return taker == unit and unit in instruction.givers

    def _execute(self, run: _UnitRun, instruction: Instruction, entry: list[int]) -> None:
        """Execute one instruction, with whatever is checked and kept of it."""
        checksums = [0] * len(self.states)
        if self._races:
            checksums = self._execute_checked(self._races, run, instruction, entry)
        elif not instruction.sync:
            checksums = self._apply(run.unit, instruction.evaluate(entry, self.state.token))
        if self.trace:
            for traces, checksum in zip(self.core_traces, checksums, strict=True):
                trace = traces[run.unit]
                trace.pc.append(entry[0])
                trace.indices.append(tuple(entry[seq.INDEX : seq.CONTROLS]))
                trace.checksum.append(checksum)

    def _apply(self, unit: Unit, operation: Mapping[str, int]) -> list[int]:
        """Apply an operation in all cores; their checksums."""
        states = self.states
        if unit == Unit.SYS:
            return [system.execute_cores(states, operation)] * len(states)
        if unit == Unit.SFU and operation["exchange"]:
            return vector.exchange(states, operation)
        return [_EXECUTE[unit](state, operation) for state in states]

    def _execute_checked(
        self, races: RaceDetector, run: _UnitRun, instruction: Instruction, entry: list[int]
    ) -> list[int]:
        """Checksums of an instruction whose accesses are found legal; otherwise raise `IllegalProgram`."""
        unit, state, checksums = run.unit, self.state, [0] * len(self.states)
        for giver in instruction.givers:
            races.take(giver, unit)
        if instruction.sync:
            races.access(unit, "", [], [])
        else:
            operation = instruction.evaluate(entry, state.token)
            reads, writes = accesses(unit, operation, state)
            if instruction.token_factor:
                reads = [*reads, TOKEN]
            races.access(unit, f"{unit.name} instruction {instruction.pc}", reads, writes)
            checksums = self._apply(unit, operation)
            races.check_rings(state)
        for taker in instruction.takers:
            races.give(unit, taker)
        return checksums

    def _complaint(self, stuck: list[_UnitRun]) -> str:
        """Why these units do not go on."""
        blocked = []
        for run in stuck:
            instruction = run.instructions[run.entries[run.at][0]]
            missing = [Unit(g).name for g in instruction.givers if not self._counts[run.unit][g]]
            if not missing:
                taker = next(t for t in instruction.takers if self._counts[t][run.unit] == _FULL)
                return (
                    f"token overflow from {run.unit.name} at {instruction.pc} to {Unit(taker).name}"
                )
            blocked.append(f"{run.unit.name} at {instruction.pc} waits for {', '.join(missing)}")
        return "deadlock: " + "; ".join(blocked)


def check_request(
    program: Program, prompt: Sequence[int], tokens: int, stop_tokens: Sequence[int] = ()
) -> None:
    """Refuse a prompt that the program cannot take.

    Raises
    ------
    InputError
        If the prompt is empty, an id is outside the vocabulary, prompt and answer are longer than the context,
        or there are more stop tokens than the processor can compare.
    """
    vocabulary = program.information.get("vocabulary_size")
    longest = min(
        program.information.get("context", program.machine.tokens), program.machine.tokens
    )
    if not prompt:
        raise InputError("prompt: expected at least one token")
    if tokens < 1:
        raise InputError(f"tokens: expected at least 1, found {tokens}")
    if len(prompt) + tokens > longest:
        raise InputError(
            f"prompt and tokens: {len(prompt)} + {tokens} exceed the program's context of {longest}"
        )
    if len(stop_tokens) > STOP_TOKENS:
        raise InputError(f"stop tokens: expected at most {STOP_TOKENS}, found {len(stop_tokens)}")
    for position, token in enumerate(prompt):
        if token < 0 or (vocabulary is not None and token >= vocabulary):
            limit = "" if vocabulary is None else f" to {vocabulary - 1}"
            raise InputError(f"prompt: token id {token} at position {position} is outside 0{limit}")
