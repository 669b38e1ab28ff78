"""The hardwired neuron: inputs are grouped by the value of their weight, counted, and only then multiplied."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hw.hardwired.compressor import Columns, popcount_bits
from hw.hardwired.digits import odd_part, signed_digits
from hw.hardwired.netlist import Netlist
from hw.hardwired.operator import Operator, OperatorSpec
from hw.hardwired.ripple import sign_extend
from hw.hardwired.serial import (
    accumulate,
    digit_schedule,
    first_input,
    offset_correction,
    serial_correction,
)

__all__ = [
    "Region",
    "Regions",
    "add_regions",
    "build_distributive",
    "build_neuron",
    "group_by_value",
]


class Regions(enum.Enum):
    """Which weights share a region."""

    CODES = "codes"
    """Each value is one, zero too (its count is formed and not used); 16 for MXFP4, where -0 is a code."""
    SIGNED = "signed"
    """Each value but zero is one; 14 for MXFP4."""
    MERGED = "merged"
    """Each magnitude is one; 7 for MXFP4. Inputs of negative weights come inverted: -x = ~x + 1."""


@dataclass(frozen=True)
class Region:
    """Inputs of a row that count the same.

    Parameters
    ----------
    value : int
        What each input is multiplied by.
    plain, inverted : tuple of int
        Elements whose digits are counted as they are, and inverted.
    """

    value: int
    plain: tuple[int, ...]
    inverted: tuple[int, ...] = ()


def group_by_value(weights: Sequence[int], regions: Regions) -> list[Region]:
    """Regions of one row, by value."""
    plain: dict[int, list[int]] = {}
    inverted: dict[int, list[int]] = {}
    for element, weight in enumerate(weights):
        if weight < 0 and regions is Regions.MERGED:
            inverted.setdefault(-weight, []).append(element)
        elif weight or regions is Regions.CODES:
            plain.setdefault(weight, []).append(element)
    return [
        Region(value, tuple(plain.get(value, ())), tuple(inverted.get(value, ())))
        for value in sorted({*plain, *inverted})
    ]


def build_neuron(
    spec: OperatorSpec, keep: bool = True, regions: Regions = Regions.MERGED
) -> Operator:
    """A population count for each region and cycle, constant multipliers, one tree, an accumulator.

    Regions are as large as this matrix needs; `hw.hardwired.base` has those that do not know the matrix.
    """
    schedule = digit_schedule(spec.bits)
    netlist = Netlist(keep)
    first = first_input(netlist, schedule)
    x = netlist.input("x", spec.inputs * spec.bits)
    lines = [x[spec.bits * i : spec.bits * (i + 1)] for i in range(spec.inputs)]
    y: list[int] = []
    for row, weights in enumerate(spec.weights):
        columns = Columns(netlist, max(spec.row_bits[row], schedule.cycles * spec.bits))
        groups = group_by_value(weights, regions)
        counts = [(region.value, _count(netlist, region, lines, spec.bits)) for region in groups]
        add_regions(columns, counts)
        per_cycle = columns.take_constant() + _inverted_excess(groups, spec.bits)
        initial = (
            spec.bias(row)
            + offset_correction(schedule, sum(weights))
            + serial_correction(schedule, per_cycle)
        )
        bits = accumulate(netlist, columns, schedule, first, initial)
        y += sign_extend(tuple(bits), spec.result_bits)
    netlist.output("y", y)
    name = {
        Regions.CODES: "neuron_codes",
        Regions.SIGNED: "neuron_signed",
        Regions.MERGED: "neuron",
    }[regions]
    return Operator(name, spec, netlist, schedule)


def build_distributive(spec: OperatorSpec, keep: bool = True) -> Operator:
    """The distributive law in parallel: elements of equal weight are added whole, then multiplied once."""
    whole = build_neuron(replace(spec, bits=8), keep, Regions.MERGED)
    return replace(whole, name="distributive", spec=spec, schedule=replace(whole.schedule, bits=8))


def _count(netlist: Netlist, region: Region, lines: list[list[int]], bits: int) -> list[int]:
    inputs = len(region.plain) + len(region.inverted)
    columns = Columns(netlist, popcount_bits(inputs, bits))
    for element in region.plain:
        columns.add_number(lines[element])
    for element in region.inverted:
        columns.add_number([netlist.invert(net) for net in lines[element]])
    return columns.reduce()


def _inverted_excess(groups: list[Region], bits: int) -> int:
    """What to add in each cycle because inverted digits are larger by their maximum than negated ones."""
    return -sum(region.value * len(region.inverted) for region in groups) * ((1 << bits) - 1)


def add_regions(columns: Columns, counts: Sequence[tuple[int, Sequence[int]]]) -> None:
    """Multiply counts by the values of their regions, and add them to columns.

    Values that differ by a power of two, such as 3, 6 and 12, are first added to one number, so that there
    is one multiplier for each odd factor that needs one.
    """
    by_odd_part: dict[int, list[tuple[int, Sequence[int]]]] = {}
    for value, bits in counts:
        if value:
            odd, shift = odd_part(value)
            by_odd_part.setdefault(odd, []).append((shift, bits))
    for odd, numbers in sorted(by_odd_part.items()):
        shared = numbers
        if len(numbers) > 1 and len(signed_digits(odd)) > 1:
            largest = sum(((1 << len(bits)) - 1) << shift for shift, bits in numbers)
            group = Columns(columns.netlist, largest.bit_length())
            for shift, bits in numbers:
                group.add_number(bits, shift)
            shared = [(0, group.reduce())]
        for shift, bits in shared:
            for place, net in enumerate(bits):
                columns.add_product(net, odd << shift + place)
