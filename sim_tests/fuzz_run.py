"""Short programs on one built simulator, a process each: start-up counts here, so nothing is built or looked up again."""

import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from emulator.machine import Machine
from emulator.state import MachineState
from hw.host import load_script, memory_texts, run_script, timing_script
from hw.spec.instructions import Unit
from hw.spec.machine import MachineSpec
from hw.spec.program import Program
from hw.spec.registers import counters
from sim_tests.exactness import Request
from sim_tests.run_result import SimulationResult, read_memory, read_result, read_trace

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
    earlier : sequence of MachineState
        Of every core.
    """

    def __init__(self, program: Program, earlier: Sequence[MachineState]) -> None:
        super().__init__(program, check=False, trace=True)
        self._earlier = earlier

    def _start(self, prompt: list[int], tokens: int, stop_tokens: tuple[int, ...]) -> None:
        super()._start(prompt, tokens, stop_tokens)
        for state, earlier in zip(self.states, self._earlier, strict=True):
            for name in (*CARRIED, "memory", "tokens"):
                getattr(state, name)[...] = getattr(earlier, name)
            state.tokens[: len(prompt)] = prompt


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
        Memory of each channel of each core at the end.
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
            script += run_script(
                request.prompt, request.tokens, request.stop_tokens, self.spec.cores
            )
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
        with tempfile.TemporaryDirectory(prefix="openlpu-fuzz-") as name:
            scratch = Path(name)
            (scratch / "script.txt").write_text("\n".join(script) + "\n")
            arguments = [f"+trace_file={scratch / 'trace.txt'}", *plusargs]
            dumps = []
            for number, text in enumerate(memory_texts(self.spec, program.memory)):
                load = scratch / f"memory{number}.hex"
                load.write_text(text)
                dumps.append(scratch / f"dump{number}.hex")
                arguments += [f"+memory_load_{number}={load}", f"+memory_dump_{number}={dumps[-1]}"]
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
        spec = self.spec
        memories = read_memory(spec, played.dumps)
        cores = [_split(trace, runs) for trace in read_trace(played.trace, spec.cores)]
        length = 3 + 2 * len(counters(spec.cores)) + len(request.prompt) + request.tokens
        return [
            read_result(
                spec,
                played.reads[i * length : (i + 1) * length],
                [traces[i] for traces in cores],
                memories,
                played.seconds,
            )
            for i in range(runs)
        ]


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
