"""What a run on simulated hardware leaves behind: retirements, memories, tokens, counters, status."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hw.spec.instructions import LOOP_DEPTH, Unit
from hw.spec.machine import MachineSpec
from hw.spec.registers import RunError, counters, decode_error

TRACE_DTYPE = np.dtype([
    ("pc", np.int32),
    ("index", np.int32, LOOP_DEPTH),
    ("issue", np.int64),
    ("end", np.int64),
    ("checksum", np.uint32),
])
"""One retirement; `docs/isa.md`, "Retirement trace"."""


@dataclass(frozen=True)
class CoreRun:
    """What one core did.

    Attributes
    ----------
    trace : dict of Unit to array of TRACE_DTYPE
        Retirements of each unit in their order.
    memory : uint8 [words, word_bytes]
        Memory after the run.
    counters : dict of str to int
        Performance counters by the names of `hw.spec.registers.counters`.
    """

    trace: dict[Unit, np.ndarray]
    memory: np.ndarray
    counters: dict[str, int]


@dataclass(frozen=True)
class SimulationResult:
    """What a run did.

    Attributes
    ----------
    tokens : int64 [length]
        Token buffer: the prompt and what was generated.
    cycles : int
        Cycles from start to end.
    cores : tuple of CoreRun
    error : RunError
        Why the run stopped, and where; NONE for a regular end.
    cycles_per_second : float
        Speed of the simulation between start and end.
    trace, memory, counters
        Those of core 0.
    """

    tokens: np.ndarray
    cycles: int
    cores: tuple[CoreRun, ...]
    error: RunError
    cycles_per_second: float

    @property
    def trace(self) -> dict[Unit, np.ndarray]:
        """Retirements of core 0."""
        return self.cores[0].trace

    @property
    def memory(self) -> np.ndarray:
        """Memory of core 0."""
        return self.cores[0].memory

    @property
    def counters(self) -> dict[str, int]:
        """Performance counters of core 0."""
        return self.cores[0].counters

    def with_memories(self, cores: Sequence[CoreRun]) -> "SimulationResult":
        """The result with other memories, for a run that was followed by another one: nobody has seen its own."""
        pairs = zip(self.cores, cores, strict=True)
        own = tuple(replace(mine, memory=theirs.memory) for mine, theirs in pairs)
        return replace(self, cores=own)


def read_memory(spec: MachineSpec, dumps: Sequence[str]) -> list[np.ndarray]:
    """Memory of each core from what $writememh wrote of each channel."""
    parts = []
    for dump in dumps:
        lines = [line for line in dump.split("\n") if line and not line.startswith(("//", "@"))]
        part = np.frombuffer(bytes.fromhex("".join(lines)), np.uint8).reshape(-1, spec.bus_bytes)
        parts.append(part[:, ::-1])
    return [
        np.concatenate(parts[first : first + spec.channels], axis=1)
        for first in range(0, len(parts), spec.channels)
    ]


def read_trace(text: str, cores: int = 1) -> list[dict[Unit, np.ndarray]]:
    """Retirements of each core by unit from what the trace writer wrote."""
    table = np.array(text.split(), dtype=np.int64).reshape(-1, 5 + LOOP_DEPTH)
    traces = []
    for core in range(cores):
        trace = {}
        for unit in Unit:
            rows = table[table[:, 0] == len(Unit) * core + unit]
            entries = np.empty(len(rows), TRACE_DTYPE)
            entries["pc"] = rows[:, 1]
            entries["index"] = rows[:, 2 : 2 + LOOP_DEPTH]
            for column, name in enumerate(("issue", "end", "checksum"), 2 + LOOP_DEPTH):
                entries[name] = rows[:, column]
            trace[unit] = entries
        traces.append(trace)
    return traces


def read_result(
    spec: MachineSpec,
    reads: Sequence[int],
    traces: Sequence[dict[Unit, np.ndarray]],
    memories: Sequence[np.ndarray],
    seconds: float,
) -> SimulationResult:
    """The result of a run from what the host read (`hw.host.run_script`), traces and memories of all cores."""
    _, error, length, *rest = reads
    names = [name for name, _ in counters()]
    runs = []
    for trace, memory in zip(traces, memories, strict=True):
        pairs, rest = rest[: 2 * len(names)], rest[2 * len(names) :]
        values = {
            name: low | high << 32
            for name, low, high in zip(names, pairs[::2], pairs[1::2], strict=True)
        }
        runs.append(CoreRun(trace, memory, values))
    cycles = runs[0].counters["cycles"]
    return SimulationResult(
        tokens=np.array(rest[:length], np.int64),
        cycles=cycles,
        cores=tuple(runs),
        error=decode_error(error),
        cycles_per_second=cycles / max(seconds, 1e-9),
    )
