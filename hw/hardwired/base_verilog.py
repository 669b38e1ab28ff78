"""Base netlist and metal program as Verilog: two files that meet at the pins of the metal."""

from hw.hardwired.base import BaseSpec, build_base_neuron
from hw.hardwired.metal import MetalProgram
from hw.hardwired.verilog import netlist_verilog

__all__ = ["base_verilog", "metal_verilog", "programmed_verilog"]


def base_verilog(spec: BaseSpec, name: str) -> str:
    """Verilog of the silicon, modules `name`_base and `name`_neuron; no weight has an influence on it.

    Pins of the metal are `lines` and `counts`, which wires begin at, and `ports`, `slots` and `start`,
    which they end at; those of the first neuron are lowest. Line ``2 * (input * taps + tap) + inverted`` has
    the bits of a digit.
    """
    neuron = netlist_verilog(build_base_neuron(spec).netlist, f"{name}_neuron")
    widths = {
        "ports": spec.ports * spec.bits,
        "counts": spec.slices * spec.count_bits,
        "slots": spec.slot_begin[-1] * spec.count_bits,
        "start": spec.result_bits,
        "y": spec.result_bits,
    }
    directions = {"counts": "output", "y": "output"}
    pins = [
        f"  {directions.get(pin, 'input')} [{spec.outputs * width - 1}:0] {pin}"
        for pin, width in widths.items()
    ]
    slices = [f".{pin}({pin}[{width} * row +: {width}])" for pin, width in widths.items()]
    first = [".first(first)"] if spec.schedule.cycles > 1 else []
    elements = spec.inputs * spec.taps
    bits = spec.bits
    controls = ["clk", "enable", "clear", "first"]
    head = ",\n".join([
        *(f"  input {control}" for control in controls),
        f"  input [{elements * bits - 1}:0] x",
        f"  output [{spec.lines * bits - 1}:0] lines",
        *pins,
    ])
    connections = ", ".join([
        ".clk(clk)",
        ".enable(enable)",
        ".clear(clear)",
        *first,
        *slices,
    ])
    return f"""{neuron}
module {name}_base (
{head}
);
  genvar element, row;
  generate
    for (element = 0; element < {elements}; element = element + 1) begin : line
      assign lines[{2 * bits} * element +: {bits}] = x[{bits} * element +: {bits}];
      assign lines[{2 * bits} * element + {bits} +: {bits}] = ~x[{bits} * element +: {bits}];
    end
    for (row = 0; row < {spec.outputs}; row = row + 1) begin : neuron
      {name}_neuron n ({connections});
    end
  endgenerate
endmodule
"""


def metal_verilog(spec: BaseSpec, metal: MetalProgram, name: str) -> str:
    """Verilog of the wires, module `name`_metal: an assignment for each, and nothing else."""
    bits, count_bits = spec.bits, spec.count_bits
    slots, slices = spec.slot_begin[-1], spec.slices
    lines = [
        f"module {name}_metal (",
        f"  input [{spec.lines * bits - 1}:0] lines,",
        f"  input [{spec.outputs * slices * count_bits - 1}:0] counts,",
        f"  output [{spec.outputs * spec.ports * bits - 1}:0] ports,",
        f"  output [{spec.outputs * slots * count_bits - 1}:0] slots,",
        f"  output [{spec.outputs * spec.result_bits - 1}:0] start",
        ");",
    ]
    for row in range(spec.outputs):
        for port, line in enumerate(metal.ports[row].tolist()):
            source = f"lines[{(line - 1) * bits} +: {bits}]" if line else f"{bits}'d0"
            lines.append(
                f"  assign ports[{(row * spec.ports + port) * bits} +: {bits}] = {source};"
            )
        for slot, chosen in enumerate(metal.slots[row].tolist()):
            begin = (row * slices + chosen - 1) * count_bits
            source = f"counts[{begin} +: {count_bits}]" if chosen else f"{count_bits}'d0"
            target = (row * slots + slot) * count_bits
            lines.append(f"  assign slots[{target} +: {count_bits}] = {source};")
        width = spec.result_bits
        value = f"{width}'h{metal.initial[row]:x}"
        lines.append(f"  assign start[{row * width} +: {width}] = {value};")
    return "\n".join([*lines, "endmodule", ""])


def programmed_verilog(spec: BaseSpec, metal: MetalProgram, name: str) -> str:
    """Base and metal together, module `name`, with the pins of a hardwired operator's network."""
    widths = {
        "lines": spec.lines * spec.bits,
        "ports": spec.outputs * spec.ports * spec.bits,
        "counts": spec.outputs * spec.slices * spec.count_bits,
        "slots": spec.outputs * spec.slot_begin[-1] * spec.count_bits,
        "start": spec.outputs * spec.result_bits,
    }
    wires = "\n".join(f"  wire [{width - 1}:0] {pin};" for pin, width in widths.items())
    metal_pins = ", ".join(f".{pin}({pin})" for pin in widths)
    controls = ", ".join(f".{pin}({pin})" for pin in ("clk", "enable", "clear", "first", "x", "y"))
    return f"""{base_verilog(spec, name)}
{metal_verilog(spec, metal, name)}
module {name} (
  input clk,
  input enable,
  input clear,
  input first,
  input [{spec.inputs * spec.taps * spec.bits - 1}:0] x,
  output [{spec.outputs * spec.result_bits - 1}:0] y
);
{wires}
  {name}_base silicon ({controls}, {metal_pins});
  {name}_metal wires ({metal_pins});
endmodule
"""
