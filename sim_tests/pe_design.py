"""Arrays of one kind of element, what they cost in area, and the fastest one that an area holds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import product

from emulator.pe.array_model import ArrayModel, Product, total_cycles
from hw.spec.processing_element import Operand, ProcessingElementSpec
from sim_tests.pe_charges import SRAM_BIT_REGISTERS, Charges, Scaling

__all__ = ["Candidate", "Choices", "Design", "Skew", "best_at_area", "equal_count"]

ADDRESS_BITS = 16
"""Address and valid bit of a buffer's bank, handed on from row to row; assumed."""

STORED_BITS = {
    Operand.INT5: 4,
    Operand.INT12: 16,
    Operand.INT14: 16,
    Operand.INT24: 16,
    Operand.DECODED_FLINT: 4,
    Operand.DECODED_OLIVE: 4,
    Operand.BIT_TERM: 4,
}
"""Bits of a number in memory, where the port of the element has others."""


class Skew(Enum):
    """How row r of an array gets its operands r cycles later, and column c its own."""

    PORT = "registers"
    """Registers as wide as the element's ports."""
    STORED = "narrow registers"
    """Registers as wide as stored numbers; decoders, aligners and subtractors behind them."""
    ADDRESS = "addresses"
    """A bank of the buffer for each row and column, whose address is delayed instead of what it holds."""


@dataclass(frozen=True)
class Candidate:
    """A kind of element with all that does not depend on the size of the array.

    Parameters
    ----------
    spec : ProcessingElementSpec
        The element.
    area, delay : float
        Synthesized, in the library's units.
    charges : Charges
        What is beside it.
    group : int or None
        Weights that share a scale along K; None: a whole channel.
    products_per_cycle : float
        In the mode that is compared.
    passes : int
        Passes for products of two activations, whose operands are wider than a weight port.
    weight_bits, activation_bits : float
        In memory, scales included.
    switched : float
        Capacitance a cycle on real tensors, operand registers included, in the library's unit.
    snr : float
        Decibels, of quantization on real tensors.
    """

    spec: ProcessingElementSpec
    area: float
    delay: float
    charges: Charges
    group: int | None
    products_per_cycle: float
    passes: int
    weight_bits: float
    activation_bits: float
    switched: float
    snr: float


@dataclass(frozen=True)
class Design:
    """An array of one candidate; `scaling` is None where sums need none."""

    candidate: Candidate
    rows: int
    columns: int
    shadow: bool
    scaling: Scaling | None
    columns_per_unit: int
    skew: Skew = Skew.PORT

    @property
    def model(self) -> ArrayModel:
        """What its time depends on."""
        candidate = self.candidate
        return ArrayModel(
            rows=self.rows,
            columns=self.columns,
            products_per_cycle=candidate.products_per_cycle,
            group=candidate.group,
            shadow=self.shadow,
            columns_per_unit=self.columns_per_unit,
            passes=candidate.passes,
            weight_bits=candidate.weight_bits,
            activation_bits=candidate.activation_bits,
        )

    @property
    def area(self) -> float:
        """All that is charged, in the library's unit."""
        candidate, charges = self.candidate, self.candidate.charges
        spec = candidate.spec
        operand_bits = spec.weight_bits + spec.activation_bits + spec.control_bits + 2
        cell = candidate.area + operand_bits * charges.register
        if self.shadow:
            cell += spec.accumulator_bits * charges.shadow_bit
        if self.scaling is not None:
            sum_bits = 64 if self.scaling is Scaling.INTEGER else 32
            cell += sum_bits * SRAM_BIT_REGISTERS * charges.register
        units = 0.0
        if self.scaling is not None:
            units = -(-self.columns // self.columns_per_unit) * charges.scaling[self.scaling]
        edges = self.rows * charges.row + self.columns * charges.column
        skew = self.skew_bits * charges.register
        return self.rows * self.columns * cell + skew + units + edges

    @property
    def skew_bits(self) -> float:
        """Flip-flops that delay row r by r cycles and column c by c cycles."""
        spec = self.candidate.spec
        if self.skew is Skew.ADDRESS:
            return (self.rows + self.columns) * ADDRESS_BITS
        activation, weight = spec.activation_bits, spec.weight_bits
        if self.skew is Skew.STORED:
            activation = min(activation, STORED_BITS.get(spec.activation, activation))
            weight = min(weight, STORED_BITS.get(spec.weight, weight))
        bits = self.rows * (self.rows - 1) / 2 * activation
        return bits + self.columns * (self.columns - 1) / 2 * (weight + spec.control_bits)


@dataclass(frozen=True)
class Choices:
    """What a search may choose from, beside rows and columns."""

    scalings: Sequence[Scaling] = tuple(Scaling)
    shadows: Sequence[bool] = (True, False)
    shared: Sequence[int] = (1, 2, 4, 8, 16)
    skews: Sequence[Skew] = (Skew.PORT, Skew.STORED)


def designs_at_area(candidate: Candidate, budget: float, choices: Choices) -> list[Design]:
    """Arrays that fill an area: all numbers of rows, and all that may be chosen."""
    kinds: list[Scaling | None] = [s for s in choices.scalings if s in candidate.charges.scaling]
    found = []
    for rows in (8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 56, 64, 80, 96, 128):
        for shadow, skew, scaling in product(choices.shadows, choices.skews, kinds or [None]):
            for shared in choices.shared if scaling else (1,):
                design = Design(candidate, rows, 1, shadow, scaling, shared, skew)
                low, high = 0, 4096
                while low < high:  # the largest number of columns that fits
                    middle = (low + high + 1) // 2
                    if replace(design, columns=middle).area <= budget:
                        low = middle
                    else:
                        high = middle - 1
                if low:
                    found.append(replace(design, columns=low))
    return found


def best_at_area(
    candidate: Candidate, budget: float, products: Sequence[Product], choices: Choices
) -> Design | None:
    """The fastest array of an area, or None where not even eight elements fit."""
    designs = designs_at_area(candidate, budget, choices)
    return min(designs, key=lambda d: (total_cycles(d.model, products), d.area), default=None)


def equal_count(candidate: Candidate, rows: int, columns: int) -> Design:
    """An array of a given size, its units as in the paper: FP32, one for each column."""
    scaling = Scaling.FLOAT if candidate.charges.scaling else None
    return Design(candidate, rows, columns, True, scaling, 1)
