"""Short programs on one built simulator, a process each: start-up counts here, so nothing is built or looked up again."""

import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from emulator.machine import Machine
from emulator.state import MachineState
from hw.host import load_script, memory_text, run_script, timing_script
from hw.spec.instructions import Unit
from hw.spec.machine import MachineSpec
from hw.spec.program import Program
from hw.spec.registers import ErrorCode, counters
from sim_tests.exactness import Request
from sim_tests.simulate import SimulationResult, read_memory, read_trace

CARRIED = (
    "input",
    "vector",
    "result",
    "scalars",
    "matrix_scales",
    "activation",
    "store",
    "stream",
    "scale_ring",
)
"""Buffers that keep their content from one run to the next."""


class ContinuedMachine(Machine):
    """A machine whose buffers and memory are as an earlier run left them; start sets all else back.

    Parameters
    ----------
    program : Program
    earlier : MachineState
    """

    def __init__(self, program: Program, earlier: MachineState) -> None:
        super().__init__(program, check=False, trace=True)
        self._earlier = earlier

    def _start(self, prompt: list[int], tokens: int, stop_tokens: tuple[int, ...]) -> None:
        super()._start(prompt, tokens, stop_tokens)
        for name in (*CARRIED, "memory", "tokens"):
            getattr(self.state, name)[...] = getattr(self._earlier, name)
        self.state.tokens[: len(prompt)] = prompt


@dataclass(frozen=True)
class Played:
    """What a simulator wrote.

    Attributes
    ----------
    reads : tuple of int
        Data of all register reads.
    trace : str
        The retirement trace.
    dumps : tuple of str
        Memory of each channel at the end.
    seconds : float
        Between start and end of the runs.
    """

    reads: tuple[int, ...]
    trace: str
    dumps: tuple[str, ...]
    seconds: float = field(compare=False)


class NativeRunner:
    """Plays programs on the native simulator of one machine.

    Parameters
    ----------
    spec : MachineSpec
        The machine that was built; only the memory timing of a program may differ.
    folder : Path
        From `sim_tests.simulate.build_simulator`, or of a mutated netlist.
    """

    def __init__(self, spec: MachineSpec, folder: Path) -> None:
        self.spec = spec
        self.folder = folder

    def play(
        self,
        program: Program,
        request: Request,
        *,
        limit: int,
        runs: int = 1,
        plusargs: Sequence[str] = (),
        look: Sequence[int] = (),
        seconds: float | None = None,
    ) -> Played:
        """Run a program from reset, `runs` times without another reset between; then read the registers `look`.

        Raises
        ------
        RuntimeError
            If the simulator failed, a run took more than `limit` cycles, or all more than `seconds`.
        """
        script = timing_script(program.machine.memory) + load_script(program)
        for _ in range(runs):
            script += run_script(request.prompt, request.tokens, request.stop_tokens)
        script += [f"read {int(register)}" for register in look]
        return self.play_script(program, script, limit=limit, plusargs=plusargs, seconds=seconds)

    def play_script(
        self,
        program: Program,
        script: Sequence[str],
        *,
        limit: int,
        plusargs: Sequence[str] = (),
        seconds: float | None = None,
    ) -> Played:
        """Play the lines of a script, see `verilog/harness.cpp`, with the initial memory of a program.

        Raises
        ------
        RuntimeError
            As `play`.
        """
        spec = self.spec
        with tempfile.TemporaryDirectory(prefix="openlpu-fuzz-") as name:
            scratch = Path(name)
            (scratch / "script.txt").write_text("\n".join(script) + "\n")
            arguments = [f"+trace_file={scratch / 'trace.txt'}", *plusargs]
            dumps = [scratch / f"dump{channel}.hex" for channel in range(spec.channels)]
            for channel, dump in enumerate(dumps):
                load = scratch / f"memory{channel}.hex"
                load.write_text(memory_text(spec, program.memory, channel))
                arguments += [f"+memory_load_{channel}={load}", f"+memory_dump_{channel}={dump}"]
            files = [str(scratch / "script.txt"), str(scratch / "results.txt")]
            command = [str(self.folder / "Vtop"), *files, str(limit), *arguments]
            try:
                done = subprocess.run(
                    command, capture_output=True, text=True, check=False, timeout=seconds
                )
            except subprocess.TimeoutExpired:
                raise RuntimeError(f"the simulation took more than {seconds} seconds") from None
            if done.returncode:
                raise RuntimeError(
                    f"the simulation failed: {done.stdout[-500:]}{done.stderr[-500:]}"
                )
            *reads, last = (scratch / "results.txt").read_text().splitlines()
            return Played(
                tuple(int(value) for value in reads),
                (scratch / "trace.txt").read_text(),
                tuple(dump.read_text() for dump in dumps),
                float(last.split()[1]),
            )

    def run(
        self, program: Program, request: Request, *, limit: int, runs: int = 1
    ) -> list[SimulationResult]:
        """Results of a program that runs `runs` times; the memory in all of them is that at the end of the last.

        Raises
        ------
        RuntimeError
            As `play`.
        """
        return self.results(self.play(program, request, limit=limit, runs=runs), request, runs)

    def results(self, played: Played, request: Request, runs: int = 1) -> list[SimulationResult]:
        """Results of what was played."""
        memory = memory_of(self.spec, played.dumps)
        traces = _split(trace_of(played.trace), runs)
        length = 3 + 2 * len(counters()) + len(request.prompt) + request.tokens
        return [
            _result(
                list(played.reads[i * length : (i + 1) * length]), trace, memory, played.seconds
            )
            for i, trace in enumerate(traces)
        ]


def trace_of(text: str) -> dict[Unit, np.ndarray]:
    """`read_trace` of a text."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(text)
        file.flush()
        return read_trace(Path(file.name))


def memory_of(spec: MachineSpec, dumps: Sequence[str]) -> np.ndarray:
    """`read_memory` of texts."""
    with tempfile.TemporaryDirectory() as name:
        files = [Path(name, f"{channel}.hex") for channel in range(len(dumps))]
        for file, text in zip(files, dumps, strict=True):
            file.write_text(text)
        return read_memory(spec, files)


def _split(trace: dict[Unit, np.ndarray], runs: int) -> list[dict[Unit, np.ndarray]]:
    """Retirements of each of several runs that were the same: a unit's first instruction begins the next one."""
    if runs == 1:
        return [trace]
    result: list[dict[Unit, np.ndarray]] = [{} for _ in range(runs)]
    for unit, entries in trace.items():
        falls = np.flatnonzero(np.diff(entries["end"]) <= 0) + 1
        parts = np.split(entries, falls)
        parts += [entries[:0]] * (runs - len(parts))
        for number in range(runs):
            result[number][unit] = parts[number]
    return result


def _result(
    reads: list[int], trace: dict[Unit, np.ndarray], memory: np.ndarray, seconds: float
) -> SimulationResult:
    error, length = reads[1], reads[2]
    names = [name for name, _ in counters()]
    pairs = reads[3 : 3 + 2 * len(names)]
    values = {
        name: low | high << 32
        for name, low, high in zip(names, pairs[::2], pairs[1::2], strict=True)
    }
    return SimulationResult(
        tokens=np.array(reads[3 + 2 * len(names) :][:length], np.int64),
        cycles=values["cycles"],
        trace=trace,
        memory=memory,
        counters=values,
        error=ErrorCode(error & 0xFF),
        error_unit=error >> 8 & 0xFF,
        error_pc=error >> 16,
        cycles_per_second=values["cycles"] / max(seconds, 1e-9),
    )
