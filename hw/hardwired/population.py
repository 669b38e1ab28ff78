"""Hardwired neurons at register-transfer level: the circuit of `hw.hardwired.neuron`, written with sums.

Cell by cell, a model of a hundred thousand weights is more Verilog than a simulator takes in a reasonable time.
Here a region is a population count of masked input bits, a row a sum of them, and all rows one loop over the
masks, which are constants: the metal program. Pins and cycles are the same.
"""

from collections.abc import Iterable, Sequence

from hw.hardwired.neuron import Regions, group_by_value
from hw.hardwired.operator import OperatorSpec
from hw.hardwired.serial import digit_schedule, offset_correction
from hw.spec.errors import InputError

__all__ = ["population_verilog"]


def population_verilog(spec: OperatorSpec, name: str) -> str:
    """SystemVerilog of a matrix, module `name`, with the pins of the network of `build_neuron`.

    Row r takes, in each cycle, the sum of magnitude * count over its regions and of what it kept (its start in the
    first cycle); the lowest bits of the total are final and leave to the right, the others are kept.

    Raises
    ------
    InputError
        If all bits of an element come in one cycle: then there is nothing to keep.
    """
    schedule = digit_schedule(spec.bits)
    if schedule.cycles == 1:
        raise InputError(f"{name}: bits: expected 1, 2 or 4 a cycle, found {spec.bits}")
    digits, bits, inputs = schedule.cycles * spec.bits, spec.bits, spec.inputs
    outputs, width = spec.outputs, spec.result_bits
    # At most one larger than the largest result, or the largest start.
    total = max(width, digits) + 2
    state = total - bits + digits
    lines = [
        f"module {name} (",
        "  input clk,",
        "  input enable,",
        "  input clear,",
        "  input first,",
        f"  input [{inputs * bits - 1}:0] x,",
        f"  output [{outputs * width - 1}:0] y",
        ");",
        _constant("START", [_start(spec, row, digits) for row in range(outputs)], total),
        _constant(
            "INVERTED", [_mask(i for i, w in enumerate(r) if w < 0) for r in spec.weights], inputs
        ),
    ]
    for value in spec.magnitudes:
        masks = [_mask(i for i, w in enumerate(r) if abs(w) == value) for r in spec.weights]
        lines.append(_constant(f"WEIGHT_{value}", masks, inputs))
    for plane in range(bits):
        members = ", ".join(f"x[{bits * i + plane}]" for i in reversed(range(inputs)))
        lines.append(f"  wire [{inputs - 1}:0] plane{plane} = {{{members}}};")
    high = f"state[{state} * row + {digits} +: {total - bits}]"
    sign = f"{{{bits}{{state[{state} * row + {state - 1}]}}}}"
    lines += [
        # Of each row: what it keeps, and below it the bits that are final.
        f"  reg [{outputs * state - 1}:0] state;",
        f"  reg [{inputs - 1}:0] ones;",
        f"  reg [{total - 1}:0] total;",
        "  integer row;",
        "  always @(posedge clk)",
        "    if (enable)",
        f"      for (row = 0; row < {outputs}; row = row + 1) begin",
        f"        total = first ? START[{total} * row +: {total}] : {{{sign}, {high}}};",
    ]
    for plane in range(bits):
        lines.append(f"        ones = plane{plane} ^ INVERTED[{inputs} * row +: {inputs}];")
        for value in spec.magnitudes:
            count = f"$countones(ones & WEIGHT_{value}[{inputs} * row +: {inputs}])"
            lines.append(f"        total = total + {total}'({value << plane} * {count});")
    lines += [
        f"        state[{state} * row +: {state}] <= {{total, state[{state} * row + {bits} +: {digits - bits}]}};",
        "      end",
        "  genvar result;",
        "  generate",
        f"    for (result = 0; result < {outputs}; result = result + 1) begin : results",
        f"      assign y[{width} * result +: {width}] = state[{state} * result +: {width}];",
        "    end",
        "  endgenerate",
    ]
    return "\n".join([*lines, "endmodule", ""])


def _start(spec: OperatorSpec, row: int, digits: int) -> int:
    """What a row starts from: its bias, less what inverted digits and offset numbers are too large by."""
    regions = group_by_value(spec.weights[row], Regions.MERGED)
    excess = sum(region.value * len(region.inverted) for region in regions) * ((1 << digits) - 1)
    offset = offset_correction(digit_schedule(spec.bits), sum(spec.weights[row]))
    return spec.bias(row) - excess + offset


def _mask(elements: Iterable[int]) -> int:
    return sum(1 << element for element in elements)


def _constant(name: str, values: Sequence[int], width: int) -> str:
    """A constant of fields, that of row 0 lowest."""
    bits = len(values) * width
    word = sum(value % (1 << width) << width * row for row, value in enumerate(values))
    return f"  localparam [{bits - 1}:0] {name} = {bits}'h{word:x};"
