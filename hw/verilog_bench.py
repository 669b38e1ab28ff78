"""What `lpu verilog` writes: Verilog, file list, summary, and a self-checking bench that needs no Python."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hw.core.simulation import Simulation
from hw.host import load_script, memory_text, run_script, timing_script
from hw.spec.machine import MachineSpec
from hw.spec.program import Program
from hw.verilog import LINT_OFF, PROCESSOR, convert, generate_verilog

SIMULATION = "lpu_simulation"
SOURCES = Path(__file__).resolve().parent.parent / "sim_tests" / "verilog"
"""Hand-written simulation sources: harness, trace writer, content of a memory channel."""

MAKEFILE = """\
# Builds the processor with a model of its memory in Verilator, runs a program, and compares every retirement
# (unit, program counter, loop indices, issue cycle, end cycle, checksum of what was written) and every
# register that the host reads with what is expected. Needs Verilator 5, a C++ compiler, make.
VERILATOR ?= verilator
SOURCES = {top}.sv memory_array.v trace_writer.sv harness.cpp
LOADS = {loads}

check: build/Vtop
\tbuild/Vtop script.txt build/results.txt $(LOADS) +trace_file=build/trace.txt
\tgrep -v seconds build/results.txt | cmp - expected_results.txt
\tcmp build/trace.txt expected_trace.txt
\t@echo "PASS: $$(wc -l < expected_trace.txt) retirements as expected"

build/Vtop: $(SOURCES)
\t$(VERILATOR) --cc --exe --build -O3 --x-assign fast --x-initial fast --noassert -Wno-fatal -Wno-lint -Wno-style \\
\t  --top-module {top} --prefix Vtop -Mdir build -CFLAGS -O2 $(SOURCES)

clean:
\trm -rf build

.PHONY: check clean
"""


def verilog_files(spec: MachineSpec) -> dict[str, str]:
    """Verilog of a machine, `filelist.f`, `summary.json` and `summary.txt`, by file name."""
    verilog = generate_verilog(spec)
    summary = summarize(spec, verilog)
    return {
        f"{PROCESSOR}.sv": verilog,
        "filelist.f": f"{PROCESSOR}.sv\n",
        "summary.json": json.dumps(summary, indent=2) + "\n",
        "summary.txt": _summary_text(summary),
    }


def bench_files(
    spec: MachineSpec,
    program: Program,
    prompt: Sequence[int],
    tokens: int,
    expected_trace: str,
    expected_results: str,
) -> dict[str, str]:
    """Files of a folder in which `make check` runs a program and compares what it does.

    Parameters
    ----------
    spec : MachineSpec
        The machine.
    program : Program
        What runs.
    prompt, tokens : sequence of int, int
        Token ids, and how many to generate.
    expected_trace : str
        A line a retirement, by end cycle and unit, as `sim_tests/verilog/trace_writer.sv` writes them.
    expected_results : str
        Values of the reads of `hw.host.run_script`, a line each, decimal.
    """
    files = {
        name: (SOURCES / name).read_text()
        for name in ("memory_array.v", "trace_writer.sv", "harness.cpp")
    }
    loads = []
    for channel in range(spec.channels):
        files[f"memory{channel}.hex"] = memory_text(spec, program.memory, channel)
        loads.append(f"+memory_load_{channel}=memory{channel}.hex")
    script = timing_script(spec.memory) + load_script(program) + run_script(prompt, tokens)
    return files | {
        f"{SIMULATION}.sv": convert(Simulation(spec), SIMULATION),
        "script.txt": "\n".join(script) + "\n",
        "expected_trace.txt": expected_trace,
        "expected_results.txt": expected_results,
        "Makefile": MAKEFILE.format(top=SIMULATION, loads=" ".join(loads)),
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
    lines += [f"  {name:32s} {count:5d}" for name, count in summary["modules"].items()]
    lines += ["", "Multipliers"]
    lines += [
        f"  {name:32s} {count:5d}" for name, count in summary["multipliers_by_module"].items()
    ]
    lines += ["", "Memories (rows x bits, copies)"]
    lines += [f"  {m['rows']:6d} x {m['bits']:4d} {m['copies']:5d}" for m in summary["memories"]]
    lines += ["", "Ports"]
    lines += [
        f"  {port['direction']:6s} {port['bits']:4d}  {port['name']}" for port in summary["ports"]
    ]
    return "\n".join(lines) + "\n"
