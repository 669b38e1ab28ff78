"""Emulator and simulated hardware compared entry by entry: every retirement, every memory word, tokens, cycles."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emulator import sequencer
from emulator.decode import decode_unit
from emulator.errors import IllegalProgram
from emulator.machine import Machine, Traces
from emulator.timing import (
    RECORD_END,
    RECORD_ISSUE,
    RECORD_PC,
    TimingEngine,
    TimingResult,
)
from hw.spec.instructions import LOOP_DEPTH, Opcode, Pattern, Register, Unit, decode
from hw.spec.program import Program
from hw.spec.registers import ErrorCode
from sim_tests.instruction_text import evaluate_operation, instruction_text, operation_place
from sim_tests.run_result import TRACE_DTYPE, CoreRun, SimulationResult

_CHUNK = 256
Trace = dict[Unit, np.ndarray]


@dataclass(frozen=True)
class Request:
    """What is asked of a program: prompt, tokens to generate, and tokens that end the sequence."""

    prompt: tuple[int, ...]
    tokens: int
    stop_tokens: tuple[int, ...] = ()

    @property
    def steps(self) -> int:
        """Last position that SYS may reach."""
        return len(self.prompt) + self.tokens - 1


@dataclass(frozen=True)
class Expectation:
    """What the emulator says of a run.

    Attributes
    ----------
    program : Program
    request : Request
    end_position : int
        POSITION at which END is set.
    tokens : int64 [length]
        Token buffer, as far as SYS came.
    cycles : int
    cores : tuple of CoreRun
    timing : TimingResult
        Of any core, with records and bursts.
    trace, memory, counters
        Those of core 0.
    """

    program: Program
    request: Request
    end_position: int
    tokens: npt.NDArray[np.int64]
    cycles: int
    cores: tuple[CoreRun, ...]
    timing: TimingResult

    @property
    def trace(self) -> Trace:
        """Retirements of core 0."""
        return self.cores[0].trace

    @property
    def memory(self) -> npt.NDArray[np.uint8]:
        """Memory of core 0."""
        return self.cores[0].memory

    @property
    def counters(self) -> dict[str, int]:
        """Performance counters of core 0."""
        return self.cores[0].counters


@dataclass(frozen=True)
class Comparison:
    """Result of `compare`.

    Attributes
    ----------
    events_compared, events_different : int
        Retirements; one that only one side has counts as different.
    words_compared, words_different : int
        Memory words.
    other_different : int
        Tokens, cycle count, performance counters and error status that differ.
    first_difference : str or None
        The first one in one line.
    """

    events_compared: int
    events_different: int
    words_compared: int
    words_different: int
    other_different: int
    first_difference: str | None

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return self.first_difference is None


def expect(program: Program, request: Request, machine: Machine | None = None) -> Expectation:
    """Run the emulator, functional and timing.

    `machine` is one to use instead of a new `Machine(program)`, for example one that continues an earlier run.

    Raises
    ------
    InputError, IllegalProgram, IllegalInstruction
        See `emulator.machine.Machine.run`; also if the order of a branch on END and SYS depends on timing.
    """
    machine = machine or Machine(program, check=True, trace=True)
    state, _ = machine.run(list(request.prompt), request.tokens, request.stop_tokens)
    end_position = _end_position(state.tokens, request)
    timing = TimingEngine(program).run(
        len(request.prompt), request.tokens, record=True, end_position=end_position
    )
    counters = {"cycles": timing.cycles}
    counters |= {"bytes_read": timing.bytes_read, "bytes_written": timing.bytes_written}
    counters |= {f"busy_{unit.name.lower()}": timing.busy[unit] for unit in Unit}
    counters |= {f"wait_{unit.name.lower()}": timing.waited[unit] for unit in Unit}
    # One core's timing is all cores' timing.
    cores = tuple(
        CoreRun(_trace(timing, retired), core.memory.copy(), counters)
        for core, retired in zip(machine.states, machine.core_traces, strict=True)
    )
    length = _tokens_written(program, request, end_position)
    tokens = state.tokens[:length].copy()
    return Expectation(program, request, end_position, tokens, timing.cycles, cores, timing)


def _trace(timing: TimingResult, retired: Traces) -> Trace:
    """Retirements of a core: when, by the timing, and of what, by the functional machine."""
    trace: Trace = {}
    for unit in Unit:
        records = timing.records[unit]
        entries = np.zeros(len(records), TRACE_DTYPE)
        if [int(pc) for pc in records[:, RECORD_PC]] != retired[unit].pc:
            raise IllegalProgram(
                f"{unit.name} branches on END where tokens do not order that behind SYS"
            )
        entries["pc"] = records[:, RECORD_PC]
        entries["index"] = np.array(retired[unit].indices, np.int32).reshape(-1, LOOP_DEPTH)
        entries["issue"], entries["end"] = records[:, RECORD_ISSUE], records[:, RECORD_END]
        entries["checksum"] = retired[unit].checksum
        trace[unit] = entries
    return trace


def _end_position(tokens: npt.NDArray[np.int64], request: Request) -> int:
    """First position at which SYS sets END."""
    for position in range(len(request.prompt), request.steps):
        if int(tokens[position]) in request.stop_tokens:
            return position
    return request.steps


def _tokens_written(program: Program, request: Request, end_position: int) -> int:
    """One more than the position of SYS's last EXECUTE, the register LENGTH, as far as the host reads."""
    length = 0
    words = program.instructions.get(Unit.SYS, [])
    for entry in entries_of(program, Unit.SYS, request, end_position):
        if words[entry[sequencer.PC]] & 0xF == Opcode.EXECUTE:
            length = int(entry[sequencer.POSITION]) + 1
    return min(length, len(request.prompt) + request.tokens)


def entries_of(
    program: Program, unit: Unit, request: Request, end_position: int
) -> Iterator[npt.NDArray[np.int64]]:
    """The unit instructions of one unit in order, with loop indices and POSITION (see `emulator.sequencer`)."""
    table = decode_unit(unit, program.instructions.get(unit, [])).table
    state = sequencer.new_state()
    status = sequencer.RUNNING
    while status == sequencer.RUNNING:
        entries = np.zeros((_CHUNK, sequencer.ENTRY_COLUMNS), np.int64)
        count, status = sequencer.expand(
            table, state, len(request.prompt), request.steps, end_position, entries
        )
        yield from entries[:count]


# ------------------------------------------------------------------------------------- comparison


def compare(program: Program, expected: Expectation, result: SimulationResult) -> Comparison:
    """Compare a simulation with what the emulator says of the same run."""
    events = events_different = words = 0
    first: tuple[int, int, Unit, int] | None = None  # cycle, core, unit, number of the event
    word: tuple[int, int] | None = None  # core, address
    for core, (ours, theirs) in enumerate(zip(expected.cores, result.cores, strict=True)):
        for unit in Unit:
            more, wrong, at, cycle = _compare_unit(ours.trace[unit], theirs.trace[unit])
            events += more
            events_different += wrong
            if at is not None and (first is None or cycle < first[0]):
                first = (cycle, core, unit, at)
        if ours.memory.shape != theirs.memory.shape:
            raise ValueError(
                f"memories of {ours.memory.shape} and {theirs.memory.shape} cannot be compared"
            )
        different = np.flatnonzero((ours.memory != theirs.memory).any(axis=1))
        words += len(different)
        if len(different) and word is None:
            word = (core, int(different[0]))
    message = None if first is None else _event_difference(expected, result, *first[1:])
    if message is None and word is not None:
        message = _word_difference(expected, result, *word)
    others = _other_differences(expected, result)
    if message is None and others:
        message = others[0]
    elif message is not None and result.error.code:
        message += f"; {_error_text(program, result)}"
    compared = sum(len(core.memory) for core in expected.cores)
    return Comparison(events, events_different, compared, words, len(others), message)


def _compare_unit(ours: np.ndarray, theirs: np.ndarray) -> tuple[int, int, int | None, int]:
    """Events, those that differ, number of the first of these, and its cycle."""
    both = min(len(ours), len(theirs))
    wrong = np.flatnonzero(ours[:both] != theirs[:both])
    different = len(wrong) + abs(len(ours) - len(theirs))
    at = int(wrong[0]) if len(wrong) else both if len(ours) != len(theirs) else None
    cycle = 0
    if at is not None:
        cycle = min(int(side[at]["issue"]) for side in (ours, theirs) if at < len(side))
    return max(len(ours), len(theirs)), different, at, cycle


def _of_core(expected: Expectation, core: int) -> str:
    """How a line about one of several cores begins."""
    return f"core {core}, " if len(expected.cores) > 1 else ""


def _event_difference(
    expected: Expectation, result: SimulationResult, core: int, unit: Unit, at: int
) -> str:
    """Unit, instruction, loop indices, cycle, address, both values."""
    ours, theirs = expected.cores[core].trace[unit], result.cores[core].trace[unit]
    event = ours[at] if at < len(ours) else theirs[at]
    name = _of_core(expected, core) + _instruction_name(expected.program, unit, int(event["pc"]))
    indices = tuple(int(i) for i in event["index"])
    place = _event_place(expected, unit, at)
    where = f"{name}, loop indices {indices}, cycle {int(event['issue'])}, {place}"
    if at >= len(theirs):
        return f"{where}: retirement {at} of the emulator, with checksum {int(event['checksum']):#010x}, is missing in RTL"
    if at >= len(ours):
        return f"{where}: retirement {at} of RTL, with checksum {int(event['checksum']):#010x}, is none of the emulator's"
    values = []
    for field in TRACE_DTYPE.names or ():
        if np.any(ours[at][field] != theirs[at][field]):
            a, b = (_value_text(field, side[at][field]) for side in (ours, theirs))
            values.append(f"{field}: emulator {a}, RTL {b}")
    return f"{where}: {'; '.join(values)}"


def _value_text(field: str, value: np.generic) -> str:
    if field == "index":
        return str(tuple(int(i) for i in np.asarray(value)))
    return f"{int(value):#010x}" if field == "checksum" else str(int(value))


def _instruction_name(program: Program, unit: Unit, pc: int) -> str:
    words = program.instructions.get(unit, [])
    text = instruction_text(unit, words[pc]) if pc < len(words) else "beyond the program"
    return f"{unit.name} instruction {pc} ({text})"


def _event_place(expected: Expectation, unit: Unit, at: int) -> str:
    for number, operation in enumerate(_operations(expected, unit)):
        if number == at:
            return "no address" if operation is None else operation_place(unit, operation)
    return "no address"


def entry_registers(entry: npt.NDArray[np.int64], request: Request) -> dict[Register, int]:
    """Run-time registers, all but TOKEN, with which an entry of the sequencer was evaluated."""
    position, skipped = int(entry[sequencer.POSITION]), int(entry[sequencer.SKIPPED])
    return {
        Register.POSITION: position,
        Register.PROMPT_LENGTH: len(request.prompt),
        Register.STEPS: request.steps,
        Register.SKIPPED: skipped,
        Register.REST: max(0, position - skipped),
    }


def _operations(expected: Expectation, unit: Unit) -> Iterator[dict[str, int] | None]:
    """Evaluated operands of each unit instruction in order; None for SYNC."""
    program = expected.program
    words = program.instructions.get(unit, [])
    request = expected.request
    for entry in entries_of(program, unit, request, expected.end_position):
        word = words[entry[sequencer.PC]]
        if word & 0xF == Opcode.SYNC:
            yield None
            continue
        position = int(entry[sequencer.POSITION])
        token = int(expected.tokens[position]) if position < len(expected.tokens) else 0
        registers = entry_registers(entry, request) | {Register.TOKEN: token}
        indices = [int(i) for i in entry[sequencer.INDEX : sequencer.INDEX + LOOP_DEPTH]]
        yield evaluate_operation(unit, decode(unit, word), indices, registers)


def _word_difference(expected: Expectation, result: SimulationResult, core: int, word: int) -> str:
    """Address, both values, and the last store that wrote there."""
    ours, theirs = expected.cores[core].memory[word], result.cores[core].memory[word]
    byte = int(np.flatnonzero(ours != theirs)[0])
    writer = "no store writes there"
    for number, operation in enumerate(_operations(expected, Unit.ST)):
        if operation is not None and _stores(operation, word, len(expected.memory)):
            event = expected.trace[Unit.ST][number]
            indices = tuple(int(i) for i in event["index"])
            name = _instruction_name(expected.program, Unit.ST, int(event["pc"]))
            writer = f"last written by {name}, loop indices {indices}, cycle {int(event['end'])}"
    values = f"emulator {ours.tobytes().hex()}, RTL {theirs.tobytes().hex()}"
    return f"{_of_core(expected, core)}memory word {word:#x} byte {byte}, {writer}: {values}"


def _stores(operation: dict[str, int], word: int, depth: int) -> bool:
    """Whether a store's beats cover a word."""
    words = {Pattern.COLUMN: 2 * operation["steps"], Pattern.SPREAD: 2}.get(
        Pattern(operation["pattern"]), 1
    )
    starts = (operation["address"] + row * operation["pitch"] for row in range(operation["rows"]))
    return any((word - start) % depth < words for start in starts)


def _other_differences(expected: Expectation, result: SimulationResult) -> list[str]:
    """Tokens, cycles, counters and status that differ, a line each."""
    lines = []
    if result.error.code != ErrorCode.NONE:
        lines.append(_error_text(None, result))
    ours, theirs = expected.tokens, np.asarray(result.tokens)
    if len(ours) != len(theirs):
        lines.append(f"tokens: emulator {len(ours)}, RTL {len(theirs)}")
    for position in range(min(len(ours), len(theirs))):
        if ours[position] != theirs[position]:
            lines.append(
                f"token at position {position}: emulator {ours[position]}, RTL {theirs[position]}"
            )
    if expected.cycles != result.cycles:
        lines.append(f"cycles: emulator {expected.cycles}, RTL {result.cycles}")
    for core, (ours, theirs) in enumerate(zip(expected.cores, result.cores, strict=True)):
        for name, value in ours.counters.items():
            if name != "cycles" and theirs.counters[name] != value:
                where = f"{_of_core(expected, core)}counter {name}"
                lines.append(f"{where}: emulator {value}, RTL {theirs.counters[name]}")
    return lines


def _error_text(program: Program | None, result: SimulationResult) -> str:
    code, core, number, pc = result.error
    unit = Unit(number)
    where = (
        f"{unit.name} instruction {pc}" if program is None else _instruction_name(program, unit, pc)
    )
    of_core = f"core {core}, " if len(result.cores) > 1 else ""
    return f"RTL stopped with {code.name} at {of_core}{where}"
