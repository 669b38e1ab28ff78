"""Verilog of networks of cells."""

import enum
from collections.abc import Iterator
from pathlib import Path

from hw.hardwired.netlist import ONE, REGISTERS, ZERO, Cell, CellKind, Netlist

__all__ = ["LUT_MODEL", "Adders", "netlist_verilog"]

LUT_MODEL = Path(__file__).with_name("lut6_2.v")
"""Model of the FPGA primitive, for simulation and proofs."""


class Adders(enum.Enum):
    """How full and half adders are written."""

    EQUATIONS = "equations"
    """As equations, for any tool."""
    LUT6_2 = "lut6_2"
    """As instances of the primitive of Xilinx FPGAs that computes sum and carry at once."""


def netlist_verilog(netlist: Netlist, name: str, adders: Adders = Adders.EQUATIONS) -> str:
    """A module with the ports of the network, and `clk`, `enable` and `clear` where it has registers.

    Registers take their inputs on rising edges with `enable`; those that can be cleared are, when `clear`
    is 1 as well. They start as after a clear.
    """
    registers = [cell for cell in netlist.cells if cell.kind in REGISTERS]
    controls = ["clk", "enable", "clear"] if registers else []
    ports = [f"  input {name}" for name in controls]
    ports += [f"  input [{len(n) - 1}:0] {port}" for port, n in netlist.inputs.items()]
    ports += [f"  output [{len(n) - 1}:0] {port}" for port, n in netlist.outputs.items()]
    lines = [f"module {name} (", ",\n".join(ports), ");"]
    names = {ZERO: "1'b0", ONE: "1'b1"}
    for port, nets in netlist.inputs.items():
        names |= {net: f"{port}[{place}]" for place, net in enumerate(nets)}
    writer = _Writer(netlist, names, adders)
    lines += writer.declarations(registers)
    lines += writer.body()
    lines += writer.assignments(registers)
    for port, nets in netlist.outputs.items():
        highest_first = ", ".join(writer.name(net) for net in reversed(nets))
        lines.append(f"  assign {port} = {{{highest_first}}};")
    return "\n".join([*lines, "endmodule", ""])


class _Writer:
    def __init__(self, netlist: Netlist, names: dict[int, str], adders: Adders):
        self._cells = netlist.cells
        self._names = names
        self._adders = adders
        self._inverted = {
            cell.outputs[0]: cell.inputs[0] for cell in netlist.cells if cell.kind is CellKind.NOT
        }

    def name(self, net: int) -> str:
        return self._names.get(net) or f"n{net}"

    def body(self) -> Iterator[str]:
        """Declarations and equations of all cells but registers."""
        for cell in self._cells:
            if cell.kind in REGISTERS:
                continue
            yield f"  wire {', '.join(self.name(net) for net in cell.outputs)};"
            if len(cell.outputs) == 2 and self._adders is Adders.LUT6_2:
                yield self._lut(cell)
            else:
                yield from self._equations(cell)

    def declarations(self, registers: list[Cell]) -> Iterator[str]:
        """Registers, which are read before they are assigned."""
        for cell in registers:
            start = int(cell.kind is CellKind.PRESET)
            yield f"  reg {self.name(cell.outputs[0])} = 1'b{start};"

    def assignments(self, registers: list[Cell]) -> Iterator[str]:
        """What registers take on a rising edge."""
        if registers:
            yield "  always @(posedge clk)"
            yield "    if (enable) begin"
            for cell in registers:
                q, d = self.name(cell.outputs[0]), self.name(cell.inputs[0])
                if cell.kind is not CellKind.REGISTER:
                    d = f"clear ? 1'b{int(cell.kind is CellKind.PRESET)} : {d}"
                yield f"      {q} <= {d};"
            yield "    end"

    def _equations(self, cell: Cell) -> Iterator[str]:
        a, b, c = [*(self.name(net) for net in cell.inputs), "", ""][:3]
        result = self.name(cell.outputs[0])
        match cell.kind:
            case CellKind.FULL_ADDER:
                yield f"  assign {result} = {a} ^ {b} ^ {c};"
                carry = f"({a} & {b}) | ({c} & ({a} | {b}))"
                yield f"  assign {self.name(cell.outputs[1])} = {carry};"
            case CellKind.HALF_ADDER:
                yield f"  assign {result} = {a} ^ {b};"
                yield f"  assign {self.name(cell.outputs[1])} = {a} & {b};"
            case CellKind.HALF_ADDER_ONE:
                yield f"  assign {result} = ~({a} ^ {b});"
                yield f"  assign {self.name(cell.outputs[1])} = {a} | {b};"
            case CellKind.NOT:
                yield f"  assign {result} = ~{a};"
            case CellKind.MULTIPLEXER:
                yield f"  assign {result} = {a} ? {c} : {b};"
            case kind:
                operator = {CellKind.AND: "&", CellKind.OR: "|", CellKind.XOR: "^"}[kind]
                yield f"  assign {result} = {a} {operator} {b};"

    def _lut(self, cell: Cell) -> str:
        """One LUT for sum and carry; inverters before it become part of its table."""
        sources = [self._inverted.get(net, net) for net in cell.inputs]
        flips = [net in self._inverted for net in cell.inputs]
        offset = int(cell.kind is CellKind.HALF_ADDER_ONE)
        sums = carries = 0
        for index in range(32):
            bits = [(index >> k & 1) ^ flip for k, flip in enumerate(flips)]
            total = sum(bits) + offset
            sums |= (total & 1) << index
            carries |= (total >> 1) << index
        pins = [f".I{k}({self.name(net)})" for k, net in enumerate(sources)]
        pins += [f".I{k}(1'b0)" for k in range(len(sources), 5)]
        pins += [".I5(1'b1)", f".O6({self.name(cell.outputs[0])})"]
        pins += [f".O5({self.name(cell.outputs[1])})"]
        table = f"64'h{sums:08x}{carries:08x}"
        return f"  LUT6_2 #(.INIT({table})) l{cell.outputs[0]} ({', '.join(pins)});"
