"""Verilog that runs a netlist and a changed one side by side: the same inputs, memories and products cut out."""

import json
import re
from pathlib import Path

from sim_tests.mutation import RAM
from sim_tests.mutation_scope import Scope

__all__ = ["CUT_PRODUCT", "PRODUCT", "SIDES", "pair", "products"]

SIDES = ("gold", "gate")
_RAM_PORTS = {
    "clk": None,
    "write_enable": ("write0", "write1"),
    "write_address": ("where0", "where1"),
    "write_data": ("what0", "what1"),
    "read_address": ("row0", "row1"),
    "read_data": ("data0", "data1"),
}
"""Ports of a memory, and what takes those of both sides in `ram_pair`."""

_RAM_PAIR = """
module ram_pair #(parameter WIDTH = 1, ADDRESS = 1, ENABLES = 1, KEEPS = 0) (
    input clk,
    input [ENABLES-1:0] write0, write1, input [ADDRESS-1:0] where0, where1, input [WIDTH-1:0] what0, what1,
    input [ADDRESS-1:0] row0, row1,
    input [WIDTH-1:0] content, other,
    output [WIDTH-1:0] data0, data1,
    output different
);
    // Whether both sides have read the same row, and the first one the same as before, which was not written since.
    reg same = 1, again = 0, written = 1;
    reg [ADDRESS-1:0] before = 0;
    reg [WIDTH-1:0] kept = 0;
    always @(posedge clk) begin
        same <= row0 == row1;
        again <= KEEPS && row0 == before && !written;
        written <= |write0 && where0 == row0;
        before <= row0;
        kept <= data0;
    end
    assign data0 = again ? kept : content;
    assign data1 = same ? data0 : other;
    localparam PART = WIDTH / ENABLES;
    wire [ENABLES-1:0] changed;
    genvar i;
    generate for (i = 0; i < ENABLES; i = i + 1)
        assign changed[i] = write0[i] && what0[i*PART+:PART] != what1[i*PART+:PART];
    endgenerate
    assign different = write0 != write1 || |changed || (|write0 && where0 != where1);
endmodule
"""

PRODUCT = """
module lpu_product #(parameter LEFT = 1, RIGHT = 1, WIDTH = 1) (
    input [LEFT-1:0] left, input [RIGHT-1:0] right, output [WIDTH-1:0] product
);
    assign product = left * right;
endmodule
"""
"""What stands for a product until it is cut out; its content does not matter."""
CUT_PRODUCT = """
module \\$mul (A, B, Y);
    parameter A_SIGNED = 0, B_SIGNED = 0, A_WIDTH = 1, B_WIDTH = 1, Y_WIDTH = 1;
    input [A_WIDTH-1:0] A;
    input [B_WIDTH-1:0] B;
    output [Y_WIDTH-1:0] Y;
    lpu_product #(.LEFT(A_WIDTH), .RIGHT(B_WIDTH), .WIDTH(Y_WIDTH)) _TECHMAP_REPLACE_ (
        .left(A), .right(B), .product(Y)
    );
endmodule
"""
_PRODUCT_PORTS = {
    "left": ("left0", "left1"),
    "right": ("right0", "right1"),
    "product": ("product0", "product1"),
}
_PRODUCT_PAIR = """
module product_pair #(parameter LEFT = 1, RIGHT = 1, WIDTH = 1) (
    input [LEFT-1:0] left0, left1, input [RIGHT-1:0] right0, right1,
    input [WIDTH-1:0] content, other,
    output [WIDTH-1:0] product0, product1
);
    // A bit of a product depends on no bit of a factor above it.
    wire [WIDTH-1:0] same;
    genvar i;
    generate for (i = 0; i < WIDTH; i = i + 1) begin
        localparam L = i < LEFT ? i : LEFT - 1, R = i < RIGHT ? i : RIGHT - 1;
        assign same[i] = left0[L:0] == left1[L:0] && right0[R:0] == right1[R:0];
    end endgenerate
    assign product0 = content;
    assign product1 = content & same | other & ~same;
endmodule
"""


def products(folder: Path, side: str, module: str) -> dict[str, str]:
    """What each product was in the netlist that `folder` has of a side, by name."""
    cells = json.loads((folder / f"{side}_cells.json").read_text())["modules"][module]["cells"]
    found = {name: cell for name, cell in cells.items() if "lpu_product" in cell["type"]}
    # Of the source, line and column; a changed module is read from another file.
    places = {
        name: re.findall(r":([\d.-]+)", cell["attributes"]["src"]) for name, cell in found.items()
    }
    return {name: f"{cell['type']} {places[name]}" for name, cell in found.items()}


def pair(folder: Path, scope: Scope) -> str:
    """Verilog of module `pair`: both sides with one set of inputs; its output says that they differ."""
    ports = json.loads((folder / "gold.json").read_text())["modules"]["gold"]["ports"]
    cells = json.loads((folder / "gold_cells.json").read_text())["modules"][scope.module]["cells"]
    memories = [name for name, cell in cells.items() if RAM in cell["type"]]
    factors = products(folder, "gold", scope.module)
    width = {name: len(port["bits"]) for name, port in ports.items()}
    of_memory = {f"{memory}.{port}" for memory in memories for port in _RAM_PORTS}
    of_memory |= {f"{product}.{port}" for product in factors for port in _PRODUCT_PORTS}
    limits, narrow = dict(scope.below), dict(scope.narrow)
    # What a condition says of a signal is said of the first side.
    names = {
        name: _escaped(name if port["direction"] == "input" else f"gold:{name}")
        for name, port in ports.items()
    }
    unused = {name: condition.format_map(names) for name, condition in scope.unused}
    if unknown := (unused.keys() | narrow) - ports.keys():
        raise ValueError(f"{scope.module} has no {', '.join(sorted(unknown))}")
    inputs, lines, different = ["clk"], ["input clk; wire now; reg behind_end = 0;"], []
    for name, port in ports.items():
        if port["direction"] == "input" and name not in of_memory:
            if not _is_clock(name):
                inputs.append(name)
                bits = narrow.get(name, width[name])
                lines.append(f"input [{bits - 1}:0] {_escaped(name)};")
            continue
        both = [_escaped(f"{side}:{name}") for side in SIDES]
        lines.append(f"wire [{width[name] - 1}:0] {', '.join(both)};")
        if name not in of_memory and name not in limits and not _is_clock(name):
            used = f"!({unused[name]}) && " if name in unused else ""
            different.append(used + " != ".join(both))
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
        parameters = dict(zip(["WIDTH", "ADDRESS", "ENABLES"], map(str, sizes), strict=True))
        parameters["KEEPS"] = str(int(scope.registers))
        lines.append(_instance("ram_pair", f"pair{number}", connected, parameters))
    for number, product in enumerate(factors):
        sizes = [width[f"{product}.{port}"] for port in _PRODUCT_PORTS]
        values = [f"free{number}", f"different_free{number}"]
        inputs += values
        lines.append(f"input [{sizes[2] - 1}:0] {', '.join(values)};")
        connected = {"content": values[0], "other": values[1]}
        for port, inners in _PRODUCT_PORTS.items():
            for side, inner in zip(SIDES, inners, strict=True):
                connected[inner] = f"{side}:{product}.{port}"
        parameters = dict(zip(["LEFT", "RIGHT", "WIDTH"], map(str, sizes), strict=True))
        lines.append(_instance("product_pair", f"product_pair{number}", connected, parameters))
    # Beyond a limit both begin anew, so that they are equal in all states that there are.
    given: list[str] = []
    if limits or scope.ends:
        given = [name for name in inputs if name in ports and name not in {"clk", *limits}]
    for name in given:
        value = "1" if _is_reset(name) else "0"
        lines.append(
            f"wire [{narrow.get(name, width[name]) - 1}:0] {_escaped(f'given:{name}')}= now ? {value} : {_escaped(name)};"
        )
    for name in unused.keys() & set(inputs):
        size = f"[{narrow.get(name, width[name]) - 1}:0]"
        inputs.append(f"any:{name}")
        lines.append(f"input {size} {_escaped(f'any:{name}')};")
        same = _escaped(f"given:{name}" if name in given else name)
        value = f"{unused[name]} ? {_escaped(f'any:{name}')}: {same}"
        lines.append(f"wire {size} {_escaped(f'gate:{name}')}= {value};")
    for side in SIDES:
        connected = {name: name if name in inputs else f"{side}:{name}" for name in ports}
        connected |= {
            name: "clk"
            for name, port in ports.items()
            if port["direction"] == "input" and _is_clock(name)
        }
        connected |= {name: f"given:{name}" for name in given}
        if side == "gate":
            connected |= {name: f"gate:{name}" for name in unused if name in inputs}
        lines.append(_instance(side, f"{side}_side", connected, {}))
    head = f"module pair({', '.join(map(_escaped, inputs))}, output different);"
    beyond = [f"{names[name]}>= {limit}" for name, limit in scope.below]
    ends = [f"({condition.format_map(names)})" for condition in scope.ends]
    lines.append(f"always @(posedge clk) behind_end <= {' || '.join(['0', *ends])};")
    lines.append(f"assign now = {' || '.join(['behind_end', *beyond])};")
    lines.append(f"assign different = !now && ({' || '.join(different)});")
    return "\n".join([_RAM_PAIR, _PRODUCT_PAIR, head, *lines, "endmodule\n"])


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
    """Whether a port is a clock, of the module or of a part that was cut out: there is only one."""
    return name.endswith("clk")


def _is_reset(name: str) -> bool:
    """Whether an input is a reset, of whatever clock domain."""
    return name.endswith("rst")
