"""Verilog of the networks of a machine's hardwired matrices, written in one of several ways."""

from collections import Counter
from collections.abc import Callable

from hw.core.matrix_wires import network_name, operator_spec
from hw.hardwired.base import plan_base
from hw.hardwired.base_verilog import programmed_verilog
from hw.hardwired.metal import fit
from hw.hardwired.neuron import build_neuron
from hw.hardwired.operator import OperatorSpec
from hw.hardwired.population import population_verilog
from hw.hardwired.verilog import netlist_verilog
from hw.spec.errors import InputError
from hw.spec.machine import MachineSpec
from hw.spec.wires import Wires

__all__ = ["NETWORKS", "wires_verilog"]


def _cells(spec: OperatorSpec, name: str) -> str:
    return netlist_verilog(build_neuron(spec).netlist, name)


def _base(spec: OperatorSpec, name: str) -> str:
    """Silicon that does not know the weights, and wires that program it; results cut to those of the other networks."""
    magnitudes = Counter(abs(weight) for row in spec.weights for weight in row)
    total = spec.inputs * spec.outputs
    shares = {value: count / total for value, count in magnitudes.items() if value}
    base = plan_base(spec.inputs, spec.outputs, shares, bits=spec.bits)
    metal = fit(base, spec.weights)
    width, wide = spec.result_bits, base.result_bits
    rows = ", ".join(f"whole[{wide * row} +: {width}]" for row in reversed(range(spec.outputs)))
    return f"""{programmed_verilog(base, metal, f"{name}_programmed")}
module {name} (
  input clk,
  input enable,
  input clear,
  input first,
  input [{spec.inputs * spec.bits - 1}:0] x,
  output [{spec.outputs * width - 1}:0] y
);
  wire [{spec.outputs * wide - 1}:0] whole;
  {name}_programmed programmed (
    .clk(clk), .enable(enable), .clear(clear), .first(first), .x(x), .y(whole)
  );
  assign y = {{{rows}}};
endmodule
"""


NETWORKS: dict[str, Callable[[OperatorSpec, str], str]] = {
    "counts": population_verilog,
    "cells": _cells,
    "base": _base,
}
"""How neurons are written: `counts`, a population count for each region, quick to simulate; `cells`, adder by adder;
`base`, cells that do not know the weights, and the wires of a metal program."""


def wires_verilog(spec: MachineSpec, wires: Wires, networks: str = "counts") -> str:
    """Verilog of the networks; the processor has an instance of each.

    Raises
    ------
    InputError
        If there is no such way to write them.
    """
    if networks not in NETWORKS:
        raise InputError(f"wires: expected {' or '.join(NETWORKS)}, found {networks}")
    write = NETWORKS[networks]
    return "\n".join(
        write(operator_spec(spec, matrix), network_name(number))
        for number, matrix in enumerate(wires.matrices, 1)
    )
