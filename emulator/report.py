"""Figures of a timed run: where the cycles of each unit went, what bounds them, and how fast that is."""

from dataclasses import dataclass

import numpy as np

from emulator import sequencer as seq
from emulator.decode import OPCODE, decode_unit
from emulator.timing import TimingResult
from emulator.units.matrix_check import step_format
from emulator.units.wires import is_wired
from hw.spec.instructions import Opcode, Unit
from hw.spec.machine import MachineSpec
from hw.spec.program import Program

_CHUNK = 1024


@dataclass(frozen=True)
class UnitUse:
    """Where the cycles of one unit went; they add up to those of the run.

    Attributes
    ----------
    unit : Unit
    busy : int
        Cycles in which an instruction was under way.
    waiting : int
        Cycles in which none was and the next one waited for tokens.
    idle : int
        The others: fetching, control instructions, issue, and behind the last instruction.
    """

    unit: Unit
    busy: int
    waiting: int
    idle: int

    @property
    def cycles(self) -> int:
        """All cycles of the run."""
        return self.busy + self.waiting + self.idle

    @property
    def fractions(self) -> tuple[float, float, float]:
        """Busy, waiting and idle, of all cycles."""
        return self.busy / self.cycles, self.waiting / self.cycles, self.idle / self.cycles


@dataclass(frozen=True)
class Bounds:
    """Cycles that a run takes at least.

    Attributes
    ----------
    cycles : int
        What it takes in the emulator.
    bandwidth_cycles : float
        Bytes moved over the bytes that the bus carries a cycle.
    compute_cycles : float
        Multiplications over the matrix engine's multipliers.
    """

    cycles: int
    bandwidth_cycles: float
    compute_cycles: float

    @property
    def bandwidth_fraction(self) -> float:
        """Share of the bus that is used."""
        return self.bandwidth_cycles / self.cycles

    @property
    def compute_fraction(self) -> float:
        """Share of the multipliers that is used."""
        return self.compute_cycles / self.cycles

    @property
    def bound_by(self) -> str:
        """What bounds the run more: "bandwidth" or "compute"."""
        return "bandwidth" if self.bandwidth_cycles >= self.compute_cycles else "compute"


@dataclass(frozen=True)
class Speed:
    """Speed at the target's clock.

    Attributes
    ----------
    prompt_seconds : float
        From start to the first generated token.
    seconds : float
        The whole run.
    tokens_per_second : float or None
        Of the tokens behind the first; None if there is but one.
    """

    prompt_seconds: float
    seconds: float
    tokens_per_second: float | None


def utilisation(result: TimingResult) -> list[UnitUse]:
    """Use of every unit in a run."""
    uses = []
    for unit in Unit:
        busy, waiting = result.busy[unit], result.stalled[unit]
        uses.append(UnitUse(unit, busy, waiting, result.cycles - busy - waiting))
    return uses


def bounds(program: Program, result: TimingResult, prompt_length: int, tokens: int) -> Bounds:
    """Bounds of a run that generated `tokens` tokens behind a prompt of `prompt_length`."""
    spec = program.machine
    return Bounds(
        result.cycles,
        bandwidth_cycles(spec, result.bytes_read + result.bytes_written),
        multiplications(program, prompt_length, tokens) / (spec.multipliers * spec.matrix_columns),
    )


def bandwidth_cycles(spec: MachineSpec, channel_bytes: int) -> float:
    """Cycles in which a channel's bus can carry so many bytes."""
    beats = channel_bytes / spec.bus_bytes
    return beats * spec.memory.beat_denominator / spec.memory.beat_numerator


def multiplications(program: Program, prompt_length: int, tokens: int) -> int:
    """Weights times activations in the matrix engine in such a run, padding included."""
    spec, code = program.machine, decode_unit(Unit.MPE, program.instructions[Unit.MPE])
    steps, state = prompt_length + tokens - 1, seq.new_state()
    entries = np.zeros((_CHUNK, seq.ENTRY_COLUMNS), np.int64)
    # Weights of a row in a step, 0 for an instruction that is no EXECUTE.
    executes = code.table[:, OPCODE] == Opcode.EXECUTE
    wired = np.array([
        bool(executes[pc]) and is_wired(fields) for pc, fields in enumerate(code.fields)
    ])
    weights = np.array([
        step_format(fields).weight.step_weights if executes[pc] and not wired[pc] else 0
        for pc, fields in enumerate(code.fields)
    ])
    inputs = np.array([0, *(shape.inputs for shape in spec.wired_matrices)])
    total, status = 0, seq.RUNNING
    while status == seq.RUNNING:
        count, status = seq.expand(code.table, state, prompt_length, steps, steps, entries)
        done = entries[:count]
        blocks, steps_each, vectors = done[:, seq.COUNTS : seq.COUNTS + 3].T
        elements = steps_each * weights[done[:, seq.PC]]
        # What a hardwired product has for steps is the number of its matrix.
        hard = wired[done[:, seq.PC]]
        elements[hard] = inputs[steps_each[hard]]
        total += int((blocks * vectors * elements).sum())
    return total * spec.matrix_rows


def speed(spec: MachineSpec, prompt: TimingResult, whole: TimingResult, tokens: int) -> Speed:
    """Speed of a run that generated `tokens` tokens, given the run that stops behind the first of them."""
    rate = None
    if tokens > 1:
        rate = (tokens - 1) * spec.clock_hz / (whole.cycles - prompt.cycles)
    return Speed(prompt.cycles / spec.clock_hz, whole.cycles / spec.clock_hz, rate)
