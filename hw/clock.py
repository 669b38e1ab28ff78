"""Clock of Verilog on an ECP5-85 of speed grade 6, placed and routed by nextpnr, with the slowest path."""

import json
import re
from dataclasses import dataclass
from typing import Any

from hw.tools import cached_result, run_tool, tool_version

__all__ = ["ClockResult", "clock_of", "harness", "place_name"]

HARNESS = "lpu_clock_harness"
SEED = 1
WANTED_HZ = 150_000_000
"""What the router aims at; it reports what it reached."""
NEXTPNR = ["--85k", "--speed", "6", "--package", "CABGA756", "--seed", str(SEED), "-q"]
NEXTPNR += ["--json", "netlist.json", "--report", "report.json", "--timing-allow-fail"]
NEXTPNR += ["--lpf-allow-unconstrained", "--freq", str(WANTED_HZ // 1_000_000)]
CELL_SUFFIX = re.compile(r"(_TRELLIS_FF_Q(_\d+)?|(\.\d+)*(\$DPRAM_COMB\d+)?|(\.\d+)+)$")
"""What synthesis adds to the name of a register or memory: its cells, numbered by no bit of it."""
SCRIPT = "read_verilog -sv design.sv; synth_ecp5 -noiopad -top {top} -json netlist.json"


@dataclass(frozen=True)
class ClockResult:
    """Clock that a design reaches, and the path that limits it.

    Parameters
    ----------
    clock_hz : float
        Highest clock, between registers.
    source, sink : str
        What is at the ends of the slowest path, see `place_name`.
    logic_ns, routing_ns : float
        What it consists of.
    """

    clock_hz: float
    source: str
    sink: str
    logic_ns: float
    routing_ns: float


def module_ports(verilog: str, top: str) -> list[tuple[str, str, int]]:
    """Ports of a module: name, `input` or `output`, and bits.

    Raises
    ------
    ValueError
        If there is no such module.
    """
    body = re.search(rf"^module {re.escape(top)}\b.*?^endmodule", verilog, re.MULTILINE | re.DOTALL)
    if body is None:
        raise ValueError(f"{top}: no such module")
    declared = r"^\s*(input|output)\s+(?:reg\s+|wire\s+|signed\s+)*(?:\[(\d+):0\]\s*)?(\w+)\s*[,;)]"
    found = re.findall(declared, body[0], re.MULTILINE)
    return [(name, direction, int(high or 0) + 1) for direction, high, name in found]


def harness(verilog: str, top: str) -> str:
    """Verilog with a module around `top` that needs four pins: what a chip has too few of does not matter.

    Every input comes from a register of a shift register, every output goes to a register of another one,
    so that paths from and to ports count as between registers.
    """
    lines, connections = [], []
    bits = {"input": 0, "output": 0}
    for name, direction, width in module_ports(verilog, top):
        if name in ("clk", "rst"):
            connections.append(f".{name}({'clk' if name == 'clk' else 'reset'})")
            continue
        first = bits[direction]
        bits[direction] += width
        connections.append(f".{name}({direction}s[{first + width - 1}:{first}])")
    inputs, outputs = max(bits["input"], 2), max(bits["output"], 2)
    lines += [
        f"module {HARNESS} (input clk, input rst, input d, output q);",
        f"  reg [{inputs - 1}:0] inputs; reg [{outputs - 1}:0] folded; reg reset;",
        f"  wire [{outputs - 1}:0] outputs;",
        "  always @(posedge clk) begin",
        "    reset <= rst;",
        f"    inputs <= {{inputs[{inputs - 2}:0], d}};",
        f"    folded <= {{folded[{outputs - 2}:0], d}} ^ outputs;",
        "  end",
        f"  assign q = folded[{outputs - 1}];",
        f"  {top} dut ({', '.join(connections)});",
        "endmodule",
    ]
    return verilog + "\n" + "\n".join(lines) + "\n"


def clock_of(verilog: str, top: str) -> ClockResult:
    """Place and route a module of `verilog`, and report its clock. Kept between runs, by content."""
    wrapped = harness(verilog, top)
    versions = [tool_version("yosys"), tool_version("nextpnr-ecp5")]
    script = SCRIPT.format(top=HARNESS)

    def make() -> Any:
        files = {"design.sv": wrapped}
        netlist = run_tool("yosys", ["-q", "-p", script], files, "netlist.json")
        report = run_tool("nextpnr-ecp5", NEXTPNR, {"netlist.json": netlist}, "report.json")
        return _summary(json.loads(report))

    found = cached_result("clock", [wrapped, script, *NEXTPNR, *versions], make)
    ends = {end: place_name(found[end]) for end in ("source", "sink")}
    return ClockResult(**{**found, **ends})


def place_name(cell: str) -> str:
    """Register, memory or primitive of ours that a cell of the netlist is a part of; `port` for the harness's registers."""
    if not cell.startswith("dut."):
        return "port"
    return CELL_SUFFIX.sub("", cell.removeprefix("dut."))


def _summary(report: Any) -> dict[str, Any]:
    """The slowest path between registers of nextpnr's report."""
    slowest = min(report["fmax"].items(), key=lambda item: item[1]["achieved"])
    clock = f"posedge {slowest[0]}"
    path = next(p for p in report["critical_paths"] if p["from"] == p["to"] == clock)["path"]
    routing = sum(step["delay"] for step in path if step["type"] == "routing")
    return {
        "clock_hz": slowest[1]["achieved"] * 1e6,
        "source": path[0]["from"]["cell"],
        "sink": path[-1]["to"]["cell"],
        "logic_ns": sum(step["delay"] for step in path) - routing,
        "routing_ns": routing,
    }
