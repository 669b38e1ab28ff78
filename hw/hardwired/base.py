"""The base netlist: neurons that do not know their weights, to be programmed by wires alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate as running_sum

from hw.hardwired.compressor import Columns, popcount_bits, sum_bits
from hw.hardwired.netlist import Netlist
from hw.hardwired.neuron import add_regions
from hw.hardwired.operator import ACTIVATION_BITS, MAXIMUM_MAGNITUDES, Schedule
from hw.hardwired.serial import accumulate, digit_schedule, first_input, serial_correction
from hw.spec.errors import InputError

__all__ = ["BaseSpec", "build_base_neuron", "plan_base"]

SLICE_PORTS = 16

SCATTER, LARGEST_SCATTER = 1.25, 2.0
"""Scatter of counts in rows of Gaussian MXFP4 over that of independent weights: measured 1.03 to 1.25, and 1.94."""


@dataclass(frozen=True, kw_only=True)
class BaseSpec:
    """Silicon for any matrix of a shape and an alphabet, as far as its slack goes.

    Each neuron has slices, which count the ones among a few ports, and for each magnitude a region with
    slots, which add counts up. Wires connect ports to inputs (or ground), slots to slices (or ground), and
    the bits of the initial accumulator to 0 or 1. So a slice serves whichever region needs it.

    Parameters
    ----------
    inputs, outputs : int
        Elements of vectors in and out.
    magnitudes : tuple of int
        Of weights, each with a region; signs are merged: ports of negative weights take inverted inputs.
    slices : int
        Of each neuron.
    slots : tuple of int
        Of each region.
    slice_ports : int
        Ports of a slice.
    taps : int
        Versions of each input, multiplied by 1, 2, 4 ..., for block scales.
    bits : int
        Bits of an element a cycle.
    bias_bits : int
        Bits of the largest bias, two's complement.

    Raises
    ------
    InputError
        If something is out of range.
    """

    inputs: int
    outputs: int
    magnitudes: tuple[int, ...]
    slices: int
    slots: tuple[int, ...]
    slice_ports: int = SLICE_PORTS
    taps: int = 1
    bits: int = 1
    bias_bits: int = 16

    def __post_init__(self) -> None:
        if min(self.inputs, self.outputs, self.slices, self.slice_ports, self.taps) < 1:
            raise InputError("base: expected sizes of 1 or more")
        if not self.magnitudes or len(self.magnitudes) > MAXIMUM_MAGNITUDES:
            raise InputError(
                f"base: expected 1 to {MAXIMUM_MAGNITUDES} magnitudes, found {len(self.magnitudes)}"
            )
        if min(self.magnitudes) < 1 or len(set(self.magnitudes)) != len(self.magnitudes):
            raise InputError("base: expected different magnitudes of 1 or more")
        if len(self.slots) != len(self.magnitudes):
            raise InputError("base: expected a number of slots for each magnitude")
        if self.bits not in (1, 2, 4, 8):
            raise InputError(f"base: bits: expected 1, 2, 4 or 8 a cycle, found {self.bits}")

    @property
    def ports(self) -> int:
        """Ports of a neuron."""
        return self.slices * self.slice_ports

    @property
    def count_bits(self) -> int:
        """Bits of what a slice counts in a cycle."""
        return popcount_bits(self.slice_ports, self.bits)

    @property
    def lines(self) -> int:
        """Lines that ports can be connected to: each tap of each input, as it is and inverted."""
        return 2 * self.inputs * self.taps

    @property
    def schedule(self) -> Schedule:
        """How it is fed."""
        return digit_schedule(self.bits, self.taps)

    @property
    def slot_begin(self) -> tuple[int, ...]:
        """The first slot of each region, and the number of slots."""
        return (0, *running_sum(self.slots))

    @cached_property
    def result_bits(self) -> int:
        """Bits of a result, whatever is connected to what."""
        half = 1 << ACTIVATION_BITS + self.taps - 2
        slots = zip(self.magnitudes, self.slots, strict=True)
        most = half * self.slice_ports * sum(value * count for value, count in slots)
        bias = 1 << self.bias_bits - 1
        digits = self.schedule.cycles * self.bits
        return max(sum_bits(-most - bias, most + bias), digits)


@dataclass(frozen=True)
class BaseNeuron:
    """One neuron as silicon.

    Parameters
    ----------
    netlist : Netlist
        Inputs `first`, `ports`, `slots`, `start`; outputs `counts`, `y`.
    constant : int
        What the accumulator must start from besides, because regions are multiplied with signed digits.
    """

    netlist: Netlist
    constant: int = field(default=0)


def build_base_neuron(spec: BaseSpec, keep: bool = True) -> BaseNeuron:
    """The neuron of a base; all neurons are equal, and nothing in them depends on weights."""
    netlist = Netlist(keep)
    first = first_input(netlist, spec.schedule)
    ports = netlist.input("ports", spec.ports * spec.bits)
    slots = netlist.input("slots", spec.slot_begin[-1] * spec.count_bits)
    initial = netlist.input("start", spec.result_bits)
    netlist.output("counts", count_slices(netlist, spec, ports))
    y, constant = sum_regions(netlist, spec, slots, initial, first)
    netlist.output("y", y)
    return BaseNeuron(netlist, constant)


def count_slices(netlist: Netlist, spec: BaseSpec, ports: Sequence[int]) -> list[int]:
    """Counts of all slices, one after another."""
    counts: list[int] = []
    step = spec.slice_ports * spec.bits
    for begin in range(0, spec.ports * spec.bits, step):
        columns = Columns(netlist, spec.count_bits)
        for port in range(begin, begin + step, spec.bits):
            columns.add_number(ports[port : port + spec.bits])
        counts += columns.reduce()
    return counts


def sum_regions(
    netlist: Netlist, spec: BaseSpec, slots: Sequence[int], initial: Sequence[int], first: int
) -> tuple[list[int], int]:
    """Result, and the constant that the accumulator has to start from besides."""
    counts: list[tuple[int, list[int]]] = []
    for region, value in enumerate(spec.magnitudes):
        begin, end = spec.slot_begin[region : region + 2]
        if begin == end:
            continue
        # For any bits in the slots, not only for counts, so that the proof holds for any wiring.
        columns = Columns(netlist, popcount_bits(end - begin, spec.count_bits))
        for slot in range(begin, end):
            columns.add_number(slots[slot * spec.count_bits : (slot + 1) * spec.count_bits])
        counts.append((value, columns.reduce()))
    columns = Columns(netlist, spec.result_bits)
    add_regions(columns, counts)
    constant = serial_correction(spec.schedule, columns.take_constant())
    return accumulate(netlist, columns, spec.schedule, first, initial), constant


def plan_base(
    inputs: int,
    outputs: int,
    shares: Mapping[int, float],
    *,
    taps: int = 1,
    bits: int = 1,
    margin: float | None = None,
    bias_bits: int = 16,
) -> BaseSpec:
    """A base with the slack that rows of random weights need.

    The weights of a row are taken as independent: counts of a magnitude scatter by their binomial standard
    deviation, times `SCATTER` for each region because weights of a block share a scale, and
    `LARGEST_SCATTER` for the largest magnitude, whose weights come together in blocks that their scale
    fits badly. Each region of a row leaves half a slice empty on average.

    Parameters
    ----------
    shares : mapping of int to float
        Expected share of each magnitude among all weights; zeros are the rest.
    margin : float, optional
        Standard deviations to be prepared for; by default those that no row of all outputs is expected to
        exceed, and one more.

    Raises
    ------
    InputError
        If shares are no shares.
    """
    values = tuple(sorted(value for value, share in shares.items() if value and share > 0))
    used = sum(shares[value] for value in values)
    if not values or used > 1 + 1e-9:
        raise InputError(
            f"base: expected shares of magnitudes that add up to at most 1, found {used}"
        )
    sigmas = math.sqrt(2 * math.log(max(outputs, 2))) + 1 if margin is None else margin
    scatter = [LARGEST_SCATTER if value == values[-1] else SCATTER for value in values]
    slots = tuple(
        min(-(-inputs // SLICE_PORTS), _slices(inputs, shares[value], sigmas * factor, 1))
        for value, factor in zip(values, scatter, strict=True)
    )
    empty = (len(values) - 1) / 2 + sigmas * math.sqrt(len(values) / 12)
    # Short rows may have one weight of each magnitude.
    slices = min(sum(slots), max(len(values), _slices(inputs, used, sigmas, empty)))
    return BaseSpec(
        inputs=inputs,
        outputs=outputs,
        magnitudes=values,
        slices=slices,
        slots=slots,
        taps=taps,
        bits=bits,
        bias_bits=bias_bits,
    )


def _slices(inputs: int, share: float, sigmas: float, empty: float) -> int:
    """Slices for a share of the inputs, with `empty` slices of ports that rounding leaves unused."""
    share = min(share, 1.0)
    most = min(inputs, inputs * share + sigmas * math.sqrt(inputs * share * (1 - share)))
    return math.ceil(most / SLICE_PORTS + empty)
