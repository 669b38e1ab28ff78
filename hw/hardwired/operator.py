"""What every design of a hardwired matrix-vector product has in common: its spec, its network, its schedule."""

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from hw.hardwired.compressor import sum_bits
from hw.hardwired.netlist import Netlist
from hw.spec.errors import InputError

__all__ = [
    "ACTIVATION_BITS",
    "MAXIMUM_MAGNITUDES",
    "Feed",
    "Operator",
    "OperatorSpec",
    "Schedule",
    "result_range",
]

ACTIVATION_BITS = 8
"""Activations are INT8, two's complement, -128 included."""

MAXIMUM_MAGNITUDES = 32
"""Different magnitudes that weights may have: each is a region of its own."""


class Feed(enum.Enum):
    """How a network is given its input vector."""

    WHOLE = "whole"
    """All bits of all elements at once; a result a cycle."""
    DIGITS = "digits"
    """Some bits of every element a cycle, lowest first, the sign flipped: numbers offset by half their range."""
    SIGNED_DIGITS = "signed digits"
    """As DIGITS, but two's complement with the sign repeated to the end."""
    ELEMENTS = "elements"
    """One whole element a cycle."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When a network is given what.

    Parameters
    ----------
    feed : Feed
        What it is given.
    cycles : int
        Cycles from one input vector to the next; the result is there after the last of them.
    bits : int
        Bits of an element a cycle.
    taps : int
        Versions of each element that are there at a time, version e multiplied by 2**e.
    """

    feed: Feed
    cycles: int
    bits: int = 1
    taps: int = 1


@dataclass(frozen=True)
class OperatorSpec:
    """A matrix of small integers, to be multiplied with vectors of INT8.

    Parameters
    ----------
    weights : tuple of tuple of int
        Row for each output, column for each input.
    biases : tuple of int
        Added to the outputs; empty for none.
    bits : int
        Bits of an element a cycle, in designs that are fed digits: 1, 2, 4 or 8.

    Raises
    ------
    InputError
        If rows differ in length, there are none, or the weights have too many magnitudes.
    """

    weights: tuple[tuple[int, ...], ...]
    biases: tuple[int, ...] = ()
    bits: int = 1

    def __post_init__(self) -> None:
        if not self.weights or not self.weights[0]:
            raise InputError("weights: expected at least one row and one column, found none")
        if len({len(row) for row in self.weights}) != 1:
            raise InputError("weights: expected rows of one length")
        if self.biases and len(self.biases) != len(self.weights):
            raise InputError(
                f"biases: expected one for each of {len(self.weights)} outputs, found {len(self.biases)}"
            )
        if self.bits not in (1, 2, 4, 8):
            raise InputError(f"bits: expected 1, 2, 4 or 8 a cycle, found {self.bits}")
        magnitudes = {abs(weight) for row in self.weights for weight in row} - {0}
        if len(magnitudes) > MAXIMUM_MAGNITUDES:
            raise InputError(
                f"weights: expected at most {MAXIMUM_MAGNITUDES} different magnitudes, found "
                f"{len(magnitudes)}; quantize them to 5 bits or less"
            )

    @property
    def inputs(self) -> int:
        """Elements of an input vector."""
        return len(self.weights[0])

    @property
    def outputs(self) -> int:
        """Elements of an output vector."""
        return len(self.weights)

    @cached_property
    def magnitudes(self) -> tuple[int, ...]:
        """Different absolute values of the weights that are not zero, smallest first."""
        return tuple(sorted({abs(weight) for row in self.weights for weight in row} - {0}))

    def bias(self, row: int) -> int:
        """Bias of one output."""
        return self.biases[row] if self.biases else 0

    @cached_property
    def row_bits(self) -> tuple[int, ...]:
        """Bits that hold every value of each output."""
        return tuple(
            sum_bits(*result_range(weights, self.bias(row)))
            for row, weights in enumerate(self.weights)
        )

    @property
    def result_bits(self) -> int:
        """Bits that hold every value of every output."""
        return max(self.row_bits)


@dataclass(frozen=True)
class Operator:
    """A design for one matrix.

    Parameters
    ----------
    name : str
        Of the design; a Verilog name.
    spec : OperatorSpec
        What it computes.
    netlist : Netlist
        Input `x` (and control inputs, see `hw.hardwired.frame`), output `y` of
        ``outputs * result_bits`` bits, registered.
    schedule : Schedule
        How it is fed.
    memory : tuple of int
        Words of the weight memory of a design that has one, for Feed.ELEMENTS.
    facts : mapping
        Figures of this design alone.
    """

    name: str
    spec: OperatorSpec
    netlist: Netlist
    schedule: Schedule
    memory: tuple[int, ...] = ()
    facts: Mapping[str, float] = field(default_factory=dict)


Builder = Callable[[OperatorSpec, bool], Operator]
"""Function that makes a design; the flag says whether cells are kept, or only counted."""


def result_range(row: Sequence[int], bias: int = 0) -> tuple[int, int]:
    """Smallest and largest value of an output, for any INT8 inputs."""
    half = 1 << ACTIVATION_BITS - 1
    low = sum(-half * w if w > 0 else (half - 1) * w for w in row)
    high = sum((half - 1) * w if w > 0 else -half * w for w in row)
    return low + bias, high + bias
