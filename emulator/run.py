"""One run of a program on the emulator: bit-exact tokens first, then the cycles that they take."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass

from emulator.machine import Machine, check_request
from emulator.report import Speed, speed
from emulator.timing import TimingEngine, TimingResult
from hw.spec.errors import InputError
from hw.spec.program import Program

SECONDS_PER_INSTRUCTION = {False: 5e-6, True: 60e-6}
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

    def __init__(
        self, program: Program, prompt: list[int], tokens: int, check: bool = True
    ) -> None:
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
        states = machine.steps(self.prompt, self.tokens, stops)
        for position in itertools.count():
            try:
                state = next(states, None)
            except MemoryError:
                spec = self.program.machine
                size = spec.memory.words * spec.word_bytes / 2**30
                raise InputError(
                    f"target {spec.name}: memory.words: {size:.3g} GiB are more than this computer can give"
                ) from None
            if state is None:
                break
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
        prompt = self.engine.run(len(self.prompt), 1)
        return speed(self.program.machine, prompt, timing, len(self.generated))
