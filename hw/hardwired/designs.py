"""The designs of a hardwired matrix-vector product, by name."""

from dataclasses import dataclass

from hw.hardwired.adder_graph import build_adder_graph
from hw.hardwired.cell_embedding import build_cell, build_merged, build_naive
from hw.hardwired.memory_mac import build_memory_mac
from hw.hardwired.multiply_select import build_multiply_select
from hw.hardwired.neuron import Regions, build_distributive, build_neuron
from hw.hardwired.operator import Builder, Operator, OperatorSpec
from hw.hardwired.serial_cell import build_serial_cell

__all__ = ["DESIGNS", "Design"]


@dataclass(frozen=True)
class Design:
    """One way to build the product.

    Parameters
    ----------
    title : str
        For a table.
    build : Builder
        Makes it.
    knows_weights : bool
        The silicon is made for one matrix; otherwise a memory or a ROM holds the weights.
    """

    title: str
    build: Builder
    knows_weights: bool = True


def _signed_neuron(spec: OperatorSpec, keep: bool = True) -> Operator:
    return build_neuron(spec, keep, Regions.SIGNED)


def _code_neuron(spec: OperatorSpec, keep: bool = True) -> Operator:
    return build_neuron(spec, keep, Regions.CODES)


DESIGNS: dict[str, Design] = {
    "naive": Design("constant products, added in a chain", build_naive),
    "cell": Design("cell embedding, unmerged adder tree", build_cell),
    "merged": Design("cell embedding, one merged tree", build_merged),
    "distributive": Design("distributive law, parallel", build_distributive),
    "multiply_select": Design("multiply, select, add (ROM)", build_multiply_select, False),
    "memory_mac": Design("SRAM and MACs", build_memory_mac, False),
    "serial_cell": Design("cell embedding, bit-serial", build_serial_cell),
    "neuron_codes": Design("hardwired neuron, a region a code", _code_neuron),
    "neuron_signed": Design("hardwired neuron, a region a value", _signed_neuron),
    "neuron": Design("hardwired neuron, signs merged", build_neuron),
    "adder_graph": Design("shared adders, bit-serial", build_adder_graph),
}
"""All designs, parallel ones first."""
