"""Verilog of a machine as files, with a file list and a summary of what it consists of."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hw.spec.machine import MachineSpec
from hw.spec.wires import Wires
from hw.verilog import LINT_OFF, PROCESSOR, generate_verilog
from hw.wires_verilog import wires_verilog

WIRES_FILE = "lpu_wires.sv"


def verilog_files(
    spec: MachineSpec,
    wires: Wires | None = None,
    networks: str = "counts",
    *,
    vendor: bool = False,
) -> dict[str, str]:
    """Verilog of a machine, `filelist.f`, `summary.json` and `summary.txt`, by file name.

    With `vendor` DSP slices are primitives, and not their behaviour. The networks of hardwired matrices, written as `hw.wires_verilog.NETWORKS` says, are a file of their own.
    """
    verilog = generate_verilog(spec, wires=wires, vendor=vendor)
    summary = summarize(spec, verilog)
    own = {f"{PROCESSOR}.sv": verilog}
    if wires is not None:
        own[WIRES_FILE] = wires_verilog(spec, wires, networks)
        summary |= {"hardwired_weights": wires.weights, "networks": networks}
    return {
        **own,
        "filelist.f": "".join(f"{name}\n" for name in own),
        "summary.json": json.dumps(summary, indent=2) + "\n",
        "summary.txt": _summary_text(summary),
    }


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write text files below a folder, which is made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def summarize(spec: MachineSpec, verilog: str) -> dict[str, Any]:
    """What the Verilog consists of: modules and how often each is there, ports, memories, multipliers.

    Multipliers are the `*` operators of each module, times its instances; memories are on-chip buffers
    (instances of `lpu_ram`), by shape.
    """
    bodies = dict(
        re.findall(r"^module (\w+).*?\n(.*?)^endmodule", verilog, re.MULTILINE | re.DOTALL)
    )
    instances = {name: _instances(body, bodies) for name, body in bodies.items()}
    copies: Counter[str] = Counter()

    def visit(name: str) -> None:
        copies[name] += 1
        for child in instances[name]:
            visit(child)

    visit(PROCESSOR)
    memories: Counter[tuple[int, int]] = Counter()
    for name, body in bodies.items():
        for text in re.findall(r"^  lpu_ram #\((.*?)\)\s+\w+ \(", body, re.MULTILINE | re.DOTALL):
            values = {key: int(value) for key, value in re.findall(r"\.(\w+)\(32'd(\d+)\)", text)}
            memories[values["DEPTH"], values["WIDTH"]] += copies[name]
    multipliers = {name: len(re.findall(r"= .* \* ", body)) for name, body in bodies.items()}
    ports = re.findall(
        r"^  (input|output) (?:\[(\d+):0\] )?(\w+);", bodies[PROCESSOR], re.MULTILINE
    )
    return {
        "target": spec.name,
        "machine_hash": f"{spec.hash:08x}",
        "top": PROCESSOR,
        "lint": {"command": "verilator --lint-only -Wall", "not looked at": LINT_OFF},
        "modules": dict(sorted(copies.items())),
        "ports": [{"name": n, "direction": d, "bits": int(high or 0) + 1} for d, high, n in ports],
        "memories": [
            {"rows": rows, "bits": bits, "copies": count}
            for (rows, bits), count in sorted(memories.items())
        ],
        "memory_bits": sum(rows * bits * count for (rows, bits), count in memories.items()),
        "multipliers": sum(count * copies[name] for name, count in multipliers.items()),
        "multipliers_by_module": {
            n: c * copies[n] for n, c in sorted(multipliers.items()) if c and copies[n]
        },
        "lines": verilog.count("\n"),
    }


def _instances(body: str, bodies: Mapping[str, str]) -> list[str]:
    found = re.findall(r"^  (\w+) (?:#\(.*?\)\s*)?\w+ \($", body, re.MULTILINE | re.DOTALL)
    return [name for name in found if name in bodies]


def _summary_text(summary: Mapping[str, Any]) -> str:
    lines = [f"{summary['top']}, target {summary['target']}, machine {summary['machine_hash']}", ""]
    lines.append(
        f"{summary['lines']} lines, {summary['multipliers']} multipliers, {summary['memory_bits']} memory bits"
    )
    lines += ["", "Modules (instances)"]
    lines += [f"  {name:40s} {count:5d}" for name, count in summary["modules"].items()]
    lines += ["", "Multipliers"]
    lines += [
        f"  {name:40s} {count:5d}" for name, count in summary["multipliers_by_module"].items()
    ]
    lines += ["", "Memories (rows x bits, copies)"]
    lines += [f"  {m['rows']:6d} x {m['bits']:4d} {m['copies']:5d}" for m in summary["memories"]]
    lines += ["", "Ports"]
    lines += [
        f"  {port['direction']:6s} {port['bits']:4d}  {port['name']}" for port in summary["ports"]
    ]
    return "\n".join(lines) + "\n"
