"""Proofs about networks of adders, by algebra: what linear function of its inputs a network computes.

A full adder keeps ``a + b + c == sum + 2 * carry``, a half adder ``a + b``, an inverter ``1 - a``. So a weighted
sum of outputs can be rewritten, cell by cell from the outputs to the inputs, into a weighted sum of inputs, in
time proportional to the cells. This holds for all inputs at once, at any size, where a simulation only
samples.
"""

from collections.abc import Sequence

from hw.hardwired.base import BaseSpec, build_base_neuron
from hw.hardwired.netlist import ONE, REGISTERS, ZERO, Cell, CellKind, Netlist
from hw.spec.errors import CheckFailed

__all__ = ["check_base_neuron", "linear_form"]

_ADDERS = {CellKind.FULL_ADDER: 0, CellKind.HALF_ADDER: 0, CellKind.HALF_ADDER_ONE: 1}
"""Adders and the constant that they add."""


def linear_form(netlist: Netlist, nets: Sequence[int], modulus: int) -> tuple[dict[int, int], int]:
    """The number that nets spell, lowest bit first, as a weighted sum of other nets.

    Parameters
    ----------
    nets : sequence of int
        The number is ``sum(net << place)``, modulo `modulus`.

    Returns
    -------
    dict of int to int, int
        Factor of each net at which the network of adders and inverters begins (inputs, registers, outputs
        of other gates), and the constant.

    Raises
    ------
    CheckFailed
        If sum and carry of an adder are not used as its sum and carry.
    """
    factors: dict[int, int] = {}
    for place, net in enumerate(nets):
        factors[net] = (factors.get(net, 0) + (1 << place)) % modulus
    constant = 0
    for cell in reversed(netlist.cells):
        if cell.kind in _ADDERS:
            total = factors.pop(cell.outputs[0], 0)
            carry = factors.pop(cell.outputs[1], 0)
            if (carry - 2 * total) % modulus:
                raise CheckFailed(
                    f"net {cell.outputs[0]}: its sum counts {total} and its carry {carry}, not twice that"
                )
            constant += total * _ADDERS[cell.kind]
            parts = [(net, total) for net in cell.inputs]
        elif cell.kind is CellKind.NOT:
            factor = factors.pop(cell.outputs[0], 0)
            constant += factor
            parts = [(cell.inputs[0], -factor)]
        else:
            continue
        for net, factor in parts:
            factors[net] = (factors.get(net, 0) + factor) % modulus
    constant += factors.pop(ONE, 0)
    factors.pop(ZERO, None)
    return {net: factor for net, factor in factors.items() if factor}, constant % modulus


def check_base_neuron(spec: BaseSpec) -> None:
    """Prove that a base neuron counts ports, weighs slots and accumulates as its spec says.

    Raises
    ------
    CheckFailed
        Naming what is not so.
    """
    neuron = build_base_neuron(spec)
    netlist = neuron.netlist
    ports, slots = netlist.inputs["ports"], netlist.inputs["slots"]
    step = spec.slice_ports * spec.bits
    for number in range(spec.slices):
        counts = netlist.outputs["counts"][
            number * spec.count_bits : (number + 1) * spec.count_bits
        ]
        mine = ports[number * step : (number + 1) * step]
        expected = {net: 1 << place % spec.bits for place, net in enumerate(mine)}
        if linear_form(netlist, counts, 1 << spec.count_bits + 1) != (expected, 0):
            raise CheckFailed(f"base neuron: slice {number} does not count its ports")
    modulus = 1 << spec.result_bits
    total, start = _accumulator(spec, netlist)
    factors, constant = linear_form(netlist, total, modulus)
    expected = {net: (1 << place) % modulus for place, net in enumerate(start)}
    for region, value in enumerate(spec.magnitudes):
        for slot in range(*spec.slot_begin[region : region + 2]):
            for place in range(spec.count_bits):
                expected[slots[slot * spec.count_bits + place]] = (value << place) % modulus
    if factors != {net: factor for net, factor in expected.items() if factor}:
        raise CheckFailed("base neuron: a cycle's sum is not that of its slots and its accumulator")
    cycles, bits = spec.schedule.cycles, spec.bits
    missing = sum(constant << bits * cycle for cycle in range(cycles))
    if (missing + neuron.constant) % modulus:
        raise CheckFailed(
            "base neuron: the constants of the cycles are not made up for at the start"
        )


def _accumulator(spec: BaseSpec, netlist: Netlist) -> tuple[list[int], list[int]]:
    """Nets of a cycle's sum, and of what the accumulator contributes to it; checks what is between."""
    source: dict[int, Cell] = {net: cell for cell in netlist.cells for net in cell.outputs}
    y = netlist.outputs["y"]
    initial = netlist.inputs["start"]
    digits = spec.schedule.cycles * spec.bits
    if any(source[net].kind not in REGISTERS for net in y):
        raise CheckFailed("base neuron: a result bit is not registered")
    following = [source[net].inputs[0] for net in y]
    if spec.schedule.cycles == 1:
        return following, initial
    final, low = y[:digits], following[:digits]
    if low[: digits - spec.bits] != final[spec.bits :]:
        raise CheckFailed("base neuron: result bits do not move down by a digit a cycle")
    # The first registers above the final bits are part of the result; others follow from their sources.
    by_source = {
        cell.inputs[0]: cell.outputs[0] for cell in netlist.cells if cell.kind is CellKind.REGISTER
    }
    first = netlist.inputs["first"][0]
    start = [
        next(
            cell.outputs[0]
            for cell in netlist.cells
            if cell.kind in (CellKind.MULTIPLEXER, CellKind.AND)
            and cell.inputs[0] == first
            and cell.inputs[-1] == net
        )
        for net in initial
    ]
    total = low[digits - spec.bits :]
    for place, net in enumerate(start):
        old = source[net].inputs[1] if source[net].kind is CellKind.MULTIPLEXER else None
        if (old is None) != (place >= spec.result_bits - spec.bits):
            raise CheckFailed(f"base neuron: accumulator bit {place} has no register")
        if old is not None:
            total.append(source[old].inputs[0])
    if any(by_source.get(net) is None for net in total):
        raise CheckFailed("base neuron: a bit of the sum is not registered")
    return total, start
