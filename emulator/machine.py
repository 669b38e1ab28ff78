"""The functional machine: executes a program bit for bit, in any order that tokens allow.

Timing is not its business (`emulator.timing`); a legal program gives the same bits in every order.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from hw.spec.errors import InputError
from hw.spec.instructions import ADDRESS_BITS, LOOP_DEPTH, SEMAPHORE_BITS, Opcode, Register, Unit, operation_fields
from hw.spec.program import Program

from emulator import decode
from emulator import sequencer as seq
from emulator.accesses import accesses
from emulator.errors import IllegalProgram
from emulator.races import RaceDetector
from emulator.state import MachineState
from emulator.units import load, matrix, store, system, vector

_EXECUTE: dict[Unit, Callable[[MachineState, dict[str, int]], int]] = {
    Unit.LD: load.execute,
    Unit.ST: store.execute,
    Unit.MPE: matrix.execute,
    Unit.SFU: vector.execute,
    Unit.SYS: system.execute,
}
_CHUNK = 256


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


@dataclass
class _Sequencer:
    code: decode.UnitCode
    state: np.ndarray
    entries: np.ndarray
    count: int = 0
    at: int = 0
    status: int = seq.RUNNING


class Machine:
    """One program on one machine, ready to run.

    Parameters
    ----------
    program : Program
    check : bool
        Detect races and ring overruns while running.
    trace : bool
        Keep every retirement with its checksum.
    """

    def __init__(self, program: Program, check: bool = True, trace: bool = True) -> None:
        self.program = program
        self.check = check
        self.trace = trace
        self.codes = {unit: decode.decode_unit(unit, program.instructions.get(unit, [])) for unit in Unit}

    def run(
        self, prompt: list[int], tokens: int, stop_tokens: tuple[int, ...] = ()
    ) -> tuple[MachineState, dict[Unit, UnitTrace]]:
        """Run from the prompt until `tokens` tokens are generated or a stop token appears.

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
        self, prompt: list[int], tokens: int, stop_tokens: tuple[int, ...] = (), forced: Sequence[int] = ()
    ) -> Iterator[MachineState]:
        """Like `run`, but yield the state each time SYS has set a token.

        `forced` replaces the first generated tokens, so that logits along a given text can be read.
        """
        self._start(prompt, tokens, stop_tokens)
        self.state.forced = forced
        while True:
            progress = False
            for unit in Unit:
                for _ in self._advance(unit):
                    progress = True
                    if unit == Unit.SYS:
                        yield self.state
            if not progress:
                break
        waiting = [u for u in Unit if self._next(u) is not None]
        if waiting:
            raise IllegalProgram("deadlock: " + "; ".join(self._blocked(u) for u in waiting))

    def _start(self, prompt: list[int], tokens: int, stop_tokens: tuple[int, ...]) -> None:
        spec = self.program.machine
        check_request(self.program, prompt, tokens)
        state = self.state = MachineState(spec)
        state.memory[: len(self.program.memory)] = self.program.memory
        state.tokens[: len(prompt)] = prompt
        state.prompt_length = len(prompt)
        state.steps = len(prompt) + tokens - 1
        state.stop_tokens = stop_tokens
        self.traces = {unit: UnitTrace() for unit in Unit}
        self.counts = np.zeros((len(Unit), len(Unit)), np.int64)
        self.races = RaceDetector(spec) if self.check else None
        self.sequencers = {
            unit: _Sequencer(code, seq.new_state(), np.zeros((_CHUNK, seq.ENTRY_COLUMNS), np.int64))
            for unit, code in self.codes.items()
        }

    def _next(self, unit: Unit) -> np.ndarray | None:
        s = self.sequencers[unit]
        while s.at == s.count:
            if s.status == seq.HALTED:
                return None
            if s.status == seq.PAUSED:
                seq.answer_end(s.state, self.state.end)
            s.count, s.status = seq.expand(
                s.code.table, s.state, self.state.prompt_length, self.state.steps, -1, s.entries
            )
            s.at = 0
            if s.status in seq.BAD and s.count == 0:
                raise IllegalProgram(f"{unit.name} at {int(s.state[seq.STATE_PC])} {seq.BAD[s.status]}")
        return s.entries[s.at]

    def _advance(self, unit: Unit) -> Iterator[None]:
        s = self.sequencers[unit]
        while (entry := self._next(unit)) is not None:
            row = s.code.table[entry[seq.PC]]
            wait, signal = int(row[decode.WAIT]), int(row[decode.SIGNAL])
            if wait and not all(self.counts[giver, unit] for giver in Unit if wait >> giver & 1):
                return
            s.at += 1
            for giver in Unit:
                if wait >> giver & 1:
                    self.counts[giver, unit] -= 1
                    if self.races:
                        self.races.take(giver, unit)
            self._execute(unit, s.code, entry)
            for taker in Unit:
                if signal >> taker & 1:
                    self.counts[unit, taker] += 1
                    if self.counts[unit, taker] >= 1 << SEMAPHORE_BITS:
                        raise IllegalProgram(f"token overflow from {unit.name} to {taker.name}")
                    if self.races:
                        self.races.give(unit, taker)
            yield

    def _execute(self, unit: Unit, code: decode.UnitCode, entry: np.ndarray) -> None:
        pc = int(entry[seq.PC])
        operation = _operation(code, entry, self.state.token)
        checksum = 0
        if not operation["sync"]:
            if self.races:
                reads, writes = accesses(unit, operation, self.state)
                self.races.access(unit, f"{unit.name} instruction {pc}", reads, writes)
            checksum = _EXECUTE[unit](self.state, operation)
            if self.races:
                self._check_rings()
        elif self.races:
            self.races.access(unit, "", [], [])
        if self.trace:
            trace = self.traces[unit]
            trace.pc.append(pc)
            trace.indices.append(tuple(int(i) for i in entry[seq.INDEX : seq.INDEX + LOOP_DEPTH]))
            trace.checksum.append(checksum)

    def _check_rings(self) -> None:
        state, spec = self.state, self.program.machine
        rings = (
            ("stream", state.stream_write, state.stream_read, spec.stream_words),
            ("scale", state.scale_write, state.scale_read, spec.scale_words),
        )
        for name, written, read, depth in rings:
            if not 0 <= written - read <= depth:
                raise IllegalProgram(f"{name} ring: {written - read} words between LD and MPE, {depth} fit")

    def _blocked(self, unit: Unit) -> str:
        entry = self._next(unit)
        assert entry is not None
        row = self.codes[unit].table[entry[seq.PC]]
        givers = [g.name for g in Unit if int(row[decode.WAIT]) >> g & 1 and not self.counts[g, unit]]
        return f"{unit.name} at {int(entry[seq.PC])} waits for {', '.join(givers)}"


_OPERATION_FIELDS = {unit: operation_fields(unit) for unit in Unit}
_ADDRESS_MASK = (1 << ADDRESS_BITS) - 1


def _operation(code: decode.UnitCode, entry: np.ndarray, token: int) -> dict[str, int]:
    """Fields that the unit receives for an entry (see `operation_fields`)."""
    fields = code.fields[int(entry[seq.PC])]
    values = {name: fields[name] for name, _ in _OPERATION_FIELDS[code.unit] if name in fields}
    values["sync"] = int(fields["opcode"] == Opcode.SYNC)
    for i, name in enumerate(code.counts):
        values[name] = int(entry[seq.COUNTS + i])
    for i, name in enumerate(code.buffers):
        values[name] = int(entry[seq.BUFFERS + i])
    address = int(entry[seq.WORD])
    if fields.get("address_register") == Register.TOKEN:
        address += (token >> fields["address_shift"]) * fields["address_factor"]
    values["address"] = address & _ADDRESS_MASK
    values["lane"] = int(entry[seq.LANE])
    values["position"] = int(entry[seq.POSITION])
    return values


def check_request(program: Program, prompt: list[int], tokens: int) -> None:
    """Refuse a prompt that the program cannot take.

    Raises
    ------
    InputError
        If the prompt is empty, an id is outside the vocabulary, or prompt and answer are longer than the context.
    """
    vocabulary = program.information.get("vocabulary_size")
    longest = program.information.get("context", program.machine.tokens)
    if not prompt:
        raise InputError("prompt: expected at least one token")
    if tokens < 1:
        raise InputError(f"tokens: expected at least 1, found {tokens}")
    if len(prompt) + tokens > longest:
        raise InputError(f"prompt and tokens: {len(prompt)} + {tokens} exceed the program's context of {longest}")
    for position, token in enumerate(prompt):
        if token < 0 or (vocabulary is not None and token >= vocabulary):
            raise InputError(f"prompt: token id {token} at position {position} is outside 0 to {(vocabulary or 0) - 1}")
