"""Run a program on the Verilog of its machine, in Verilator: `simulate`.

Two engines play the same script of host accesses: `native`, a C++ harness that runs without Python, and
`cocotb`. In both, memory is loaded and dumped and the retirement trace written by the simulator itself, so
nothing but the clock runs in a cycle. Builds are kept between runs.
"""

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path

import cocotb_tools.config
from cocotb_tools.check_results import get_results

import hw
from hw.core.simulation import Simulation
from hw.host import load_script, memory_texts, run_script, timing_script
from hw.spec.errors import InputError
from hw.spec.machine import MachineSpec, MemorySpec
from hw.spec.program import Program
from hw.spec.registers import STOP_TOKENS
from hw.spec.wires import Wires
from hw.verilog import convert
from hw.wires_verilog import wires_verilog
from sim_tests import toolchain
from sim_tests.bench import BenchRunner, port_access
from sim_tests.fst import fst_from_pipe
from sim_tests.run_result import SimulationResult, read_memory, read_result, read_trace
from sim_tests.wave_view import check_wave

TOP = "lpu_simulation"
VERILOG = Path(__file__).parent / "verilog"
SUPPORT = ("memory_array.v", "trace_writer.sv")
# Read when they are imported: a file that changes later is not what this process runs.
HARDWARE_SOURCES = [
    path.read_text()
    for path in sorted(Path(hw.__file__).parent.rglob("*"))
    if path.suffix in {".py", ".v", ".json"} and path.parent.name != "targets"
]
ENGINES = ("native", "cocotb")
BLOCKS = r"^module (lpu_(?:core|matrix_row\w*|matrix_scaler|vector_lane))\("
BLOCKS_FROM_ROWS = 512
"""Rows of all cores from which on what is there many times is compiled once: it then takes less time, but runs slower."""
SCRIPT_VARIABLE = "OPENLPU_SCRIPT"
RESULTS_VARIABLE = "OPENLPU_RESULTS"


def simulate(
    spec: MachineSpec,
    program: Program,
    prompt: Sequence[int],
    tokens: int,
    engine: str = "native",
    memory_parameters: MemorySpec | None = None,
    wave: Path | None = None,
    *,
    stop_tokens: Sequence[int] = (),
    limit: int | None = None,
) -> SimulationResult:
    """Simulate a program from start to end.

    Parameters
    ----------
    spec : MachineSpec
        The machine that is built.
    program : Program
        Instructions and initial memory.
    prompt : sequence of int
        Token ids.
    tokens : int
        Tokens to generate, at least 1.
    engine : str
        `native` or `cocotb`.
    memory_parameters : MemorySpec or None
        Another timing of the memory (not another capacity); that of `spec` if None.
    wave : Path or None
        File to write, *.vcd or *.fst; needs a build of its own, and slows the run down.
    stop_tokens : sequence of int
        Up to four token ids that end the sequence.
    limit : int or None
        Raise RuntimeError after so many cycles.

    Raises
    ------
    InputError
        If an argument does not fit the machine, or a tool is missing.
    RuntimeError
        If the simulator failed or the run did not end; with what it printed.
    """
    timing = memory_parameters or spec.memory
    _check(spec, program, prompt, tokens, engine, timing, stop_tokens)
    toolchain.require_tools()
    if wave is not None:
        check_wave(wave)
    folder = build_simulator(spec, engine, wave=wave is not None, wires=program.wires)
    with tempfile.TemporaryDirectory(prefix="openlpu-simulation-") as scratch_name:
        scratch = Path(scratch_name)
        plusargs = [f"+trace_file={scratch / 'trace.txt'}"]
        dumps = []
        for number, text in enumerate(memory_texts(spec, program.memory)):
            image = scratch / f"memory{number}.hex"
            image.write_text(text)
            dumps.append(scratch / f"dump{number}.hex")
            plusargs += [f"+memory_load_{number}={image}", f"+memory_dump_{number}={dumps[-1]}"]
        if wave is not None:
            plusargs.append(f"+wave_file={scratch / 'dump.vcd'}")
        script = timing_script(timing) + load_script(program)
        script += run_script(prompt, tokens, stop_tokens, spec.cores)
        (scratch / "script.txt").write_text("\n".join(script) + "\n")
        run = _run_native if engine == "native" else _run_cocotb
        as_fst = wave is not None and wave.suffix == ".fst"
        with fst_from_pipe(scratch / "dump.vcd", wave) if wave and as_fst else nullcontext():
            reads, seconds = run(folder, scratch, plusargs, limit)
        if wave is not None and not as_fst:
            shutil.copyfile(scratch / "dump.vcd", wave)
        traces = read_trace((scratch / "trace.txt").read_text(), spec.cores)
        memories = read_memory(spec, [dump.read_text() for dump in dumps])
        return read_result(spec, reads, traces, memories, seconds)


def _check(
    spec: MachineSpec,
    program: Program,
    prompt: Sequence[int],
    tokens: int,
    engine: str,
    timing: MemorySpec,
    stop_tokens: Sequence[int],
) -> None:
    if engine not in ENGINES:
        raise InputError(f"engine: expected {' or '.join(ENGINES)}, found {engine!r}")
    if len(prompt) == 0 or tokens < 1:
        raise InputError("prompt, tokens: expected at least one token each")
    if len(prompt) + tokens > spec.tokens:
        raise InputError(
            f"prompt, tokens: expected at most {spec.tokens} together, found {len(prompt) + tokens}"
        )
    if len(stop_tokens) > STOP_TOKENS:
        raise InputError(f"stop_tokens: expected at most {STOP_TOKENS}, found {len(stop_tokens)}")
    shape = program.memory.shape
    cores = (spec.cores,) if spec.cores > 1 else ()
    if shape[:-2] != cores or shape[-2] > spec.memory.words or shape[-1] != spec.word_bytes:
        raise InputError(
            f"program: memory: expected at most {spec.memory.words} words of {spec.word_bytes} bytes "
            f"in each of {spec.cores} cores, found {shape}"
        )
    if timing.words != spec.memory.words:
        raise InputError(
            f"memory_parameters: words: expected {spec.memory.words}, found {timing.words}"
        )
    for unit, words in program.instructions.items():
        if len(words) > spec.instructions:
            raise InputError(
                f"program: {unit.name}: expected at most {spec.instructions} instructions, found {len(words)}"
            )


def build_simulator(
    spec: MachineSpec, engine: str, *, wave: bool = False, wires: Wires | None = None
) -> Path:
    """Folder with the simulator of a machine, `Vtop` or `lpu_simulation`, built unless it is there already.

    With `wave` it can write a wave file, as VCD. `wires` are the weights of hardwired matrices.
    """
    netlist = simulation_netlist(spec, wires)
    support = [(VERILOG / name).read_text() for name in SUPPORT]
    harness = (VERILOG / "harness.cpp").read_text()
    access = port_access(netlist, TOP)
    libraries = str(cocotb_tools.config.libs_dir)
    arguments = [
        "--top-module",
        TOP,
        "-O3",
        "--x-assign",
        "fast",
        "--x-initial",
        "fast",
        "--noassert",
    ]
    arguments += ["-Wno-fatal", "-Wno-lint", "-Wno-style"]
    if wires is not None:
        # The rows of hardwired matrices are loops; unrolled they take minutes to compile.
        arguments += ["--unroll-count", "1"]
    if wave:
        arguments += ["--trace-vcd", "--trace-structs"]
    blocks = ""
    if spec.cores * spec.matrix_rows >= BLOCKS_FROM_ROWS and engine == "native" and not wave:
        blocks = hierarchical_blocks(netlist)
        arguments += ["--hierarchical"]
    key = [
        netlist,
        *support,
        harness,
        access,
        blocks,
        engine,
        libraries,
        *arguments,
        toolchain.toolchain_version(),
    ]

    def build(folder: Path) -> None:
        (folder / "netlist.sv").write_text(netlist)
        (folder / "ports.vlt").write_text(access)
        (folder / "harness.cpp").write_text(harness)
        sources = [str(folder / "netlist.sv"), *(str(VERILOG / name) for name in SUPPORT)]
        if engine == "native":
            main = ["--cc", "--exe", "-o", "Vtop", str(folder / "harness.cpp")]
            if blocks:
                (folder / "blocks.vlt").write_text(blocks)
                main.append(str(folder / "blocks.vlt"))
        else:
            cpp = cocotb_tools.config.share_dir / "lib" / "verilator" / "verilator.cpp"
            main = ["--cc", "--exe", "--vpi", "-o", TOP, str(cpp), str(folder / "ports.vlt")]
            main += ["-LDFLAGS", f"-Wl,-rpath,{libraries} -L{libraries} -lcocotbvpi_verilator"]
        toolchain.verilate(folder, [*arguments, *main, *sources])
        toolchain.compile_verilated(folder, "-O1" if blocks else "-O3")

    return toolchain.cached_build(f"simulation_{spec.name}_{engine}", key, build)


def hierarchical_blocks(netlist: str) -> str:
    """Verilator control file that makes libraries of the modules that a large machine has many of."""
    names = re.findall(BLOCKS, netlist, re.MULTILINE)
    return "\n".join(["`verilator_config", *(f'hier_block -module "{n}"' for n in names), ""])


def simulation_netlist(spec: MachineSpec, wires: Wires | None = None) -> str:
    """Verilog of processor and memory; kept between runs, for it takes longer to write than to simulate."""
    key = [json.dumps(spec.to_dict()), version("amaranth"), *HARDWARE_SOURCES]

    def build(folder: Path) -> None:
        text = convert(Simulation(spec, wires=wires), TOP)
        text += wires_verilog(spec, wires) if wires else ""
        (folder / "netlist.sv").write_text(text)

    return (toolchain.cached_build(f"netlist_{spec.name}", key, build) / "netlist.sv").read_text()


def _run_native(
    folder: Path, scratch: Path, plusargs: list[str], limit: int | None
) -> tuple[list[int], float]:
    command = [str(folder / "Vtop"), str(scratch / "script.txt"), str(scratch / "results.txt")]
    command += [str(limit)] if limit is not None else []
    done = subprocess.run([*command, *plusargs], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the simulation failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    *reads, last = (scratch / "results.txt").read_text().splitlines()
    return [int(value) for value in reads], float(last.split()[1])


def _run_cocotb(
    folder: Path, scratch: Path, plusargs: list[str], limit: int | None
) -> tuple[list[int], float]:
    log, xml = scratch / "simulation.log", scratch / "results.xml"
    environment = {
        SCRIPT_VARIABLE: str(scratch / "script.txt"),
        RESULTS_VARIABLE: str(scratch / "results.json"),
        "OPENLPU_LIMIT": str(limit or 0),
    }
    waves = any(argument.startswith("+wave_file") for argument in plusargs)
    try:
        BenchRunner().test(
            hdl_toplevel=TOP,
            hdl_toplevel_lang="verilog",
            test_module="sim_tests.bench_simulation",
            extra_env=environment,
            plusargs=plusargs,
            build_dir=folder,
            test_dir=scratch,
            results_xml=str(xml),
            log_file=log,
            waves=waves,
        )
    except (SystemExit, RuntimeError):  # the runner exits with the simulator's status
        pass
    if not xml.exists() or get_results(xml) != (1, 0):
        raise RuntimeError(
            f"the simulation failed: {log.read_text()[-4000:] if log.exists() else ''}"
        )
    results = json.loads((scratch / "results.json").read_text())
    return results["reads"], results["seconds"]
