"""One run of a program on the emulator: bit-exact tokens first, then the cycles that they take."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from emulator.machine import Machine, check_request
from emulator.timing import TimingEngine, TimingResult
from hw.spec.instructions import Unit
from hw.spec.program import Program

SECONDS_PER_INSTRUCTION = {False: 40e-6, True: 60e-6}
"""Of bit-exact emulation without and with the check for races: measured on one core of a server of 2023."""


@dataclass(frozen=True)
class Forecast:
    """What a run will take if no stop token ends it early.

    Attributes
    ----------
    instructions : int
        Unit instructions, loops unrolled.
    cycles : int
        On the target.
    seconds : float
        Of bit-exact emulation on an ordinary computer.
    """

    instructions: int
    cycles: int
    seconds: float


@dataclass(frozen=True)
class Speed:
    """Rates of a finished run on the target's clock.

    Attributes
    ----------
    seconds : float
        From start to done.
    prefill_seconds : float
        From start to the first generated token.
    tokens_per_second : float
        Generated tokens over the whole run.
    decode_tokens_per_second : float or None
        Of the tokens behind the first one; None if there is only one.
    """

    seconds: float
    prefill_seconds: float
    tokens_per_second: float
    decode_tokens_per_second: float | None


def forecast(engine: TimingEngine, prompt: list[int], tokens: int, check: bool) -> Forecast:
    """Count the instructions of a run, and from them the time that emulating it takes."""
    result = engine.run(len(prompt), tokens)
    instructions = sum(result.instructions.values())
    return Forecast(instructions, result.cycles, instructions * SECONDS_PER_INSTRUCTION[check])


class Generation:
    """Tokens one after another, bit-exact; then their timing.

    Parameters
    ----------
    program : Program
    prompt : list of int
    tokens : int
        At most so many; a stop token of the program ends the run earlier.
    check : bool
        Look for races and overruns while running.

    Attributes
    ----------
    generated : list of int
        So far.
    seconds : float
        Wall-clock seconds of the emulation so far.

    Raises
    ------
    InputError
        If the program cannot take this prompt and so many tokens.
    """

    def __init__(self, program: Program, prompt: list[int], tokens: int, check: bool = True) -> None:
        check_request(program, prompt, tokens)
        self.program, self.prompt, self.tokens, self.check = program, prompt, tokens, check
        self.engine = TimingEngine(program)
        self.generated: list[int] = []
        self.seconds = 0.0

    def forecast(self) -> Forecast:
        """What is to be expected."""
        return forecast(self.engine, self.prompt, self.tokens, self.check)

    @property
    def stopped(self) -> bool:
        """Whether a stop token ended the run."""
        stops = self.program.information.get("stop_tokens", [])
        return bool(self.generated) and self.generated[-1] in stops

    def stream(self) -> Iterator[int]:
        """Each token as soon as it is known."""
        begun = time.perf_counter()
        stops = tuple(self.program.information.get("stop_tokens", ()))
        machine = Machine(self.program, check=self.check, trace=False)
        for position, state in enumerate(machine.steps(self.prompt, self.tokens, stops)):
            if position >= len(self.prompt):
                self.generated.append(state.token)
                self.seconds = time.perf_counter() - begun
                yield state.token
        self.seconds = time.perf_counter() - begun

    def timing(self, record: bool = False) -> TimingResult:
        """Cycles of what was generated, early stop included."""
        end = len(self.prompt) + len(self.generated) - 1
        return self.engine.run(len(self.prompt), self.tokens, record=record, end_position=end)

    def speed(self, timing: TimingResult) -> Speed:
        """Rates of the run on the target's clock."""
        clock, count = self.program.machine.clock_hz, len(self.generated)
        prefill = self.engine.run(len(self.prompt), 1).cycles
        decode = (count - 1) * clock / (timing.cycles - prefill) if count > 1 else None
        return Speed(timing.cycles / clock, prefill / clock, count * clock / timing.cycles, decode)


def utilisation(timing: TimingResult) -> dict[str, dict[str, float]]:
    """Share of the run in which each unit was busy, and in which it waited for tokens."""
    return {
        unit.name: {"busy": timing.busy[unit] / timing.cycles, "waiting": timing.waited[unit] / timing.cycles}
        for unit in Unit
    }


def bandwidth_fraction(program: Program, timing: TimingResult) -> float:
    """Bytes moved over what the ports could have moved in that time."""
    moved = timing.bytes_read + timing.bytes_written
    return moved / (timing.cycles * program.machine.bus_bytes)
