"""Arrays of one kind of element, what they cost in area, and the fastest one that an area holds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import product

from emulator.pe.array_model import ArrayModel, Product, total_cycles
from hw.spec.processing_element import Operand, ProcessingElementSpec, ZeroPoint
from hw.spec.systolic_parts import SUM_CYCLES
from sim_tests.pe_charges import SHARED, SRAM_BIT_REGISTERS, Charges, Scaling

__all__ = ["Candidate", "Choices", "Design", "Skew", "best_at_area", "equal_count"]

ADDRESS_BITS = 16
"""Address and valid bit of a buffer's bank, handed on from row to row; assumed."""

RESULT_BITS = 32
ZERO_BITS = 4
SCALE_BITS = {Scaling.FLOAT: 16, Scaling.INTEGER: 16, Scaling.CHANNEL: 8}
"""Of a group's scale."""
LONGEST_GROUP = 1024
"""Taken for elements whose sums run over all of K."""
UNIT_CYCLES = 11
"""Of a dequantization unit, a few more or less; its registers are synthesized, this counts what waits meanwhile."""

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
    """An array of one candidate; `scaling` is None where sums need none.

    With `outputs`, what every array needs once an output is charged too: conversion to FP32, scales of columns and rows, in
    every unit or for so many columns (`columns_per_output`), and the buffer of results. Otherwise it is outside, of all arrays alike.
    """

    candidate: Candidate
    rows: int
    columns: int
    shadow: bool
    scaling: Scaling | None
    columns_per_unit: int
    skew: Skew = Skew.PORT
    outputs: bool = False
    columns_per_output: int | None = None

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
        charges = self.candidate.charges
        edges = self.rows * charges.row + self.columns * charges.column
        skew = self.skew_bits * charges.register
        return self.rows * self.columns * self.cell + skew + edges + self._units

    @property
    def cell(self) -> float:
        """An element with its registers, and its part of the memory of sums."""
        candidate, charges = self.candidate, self.candidate.charges
        spec = candidate.spec
        # With valid and clear; a shadow register also needs capture and whether it moves.
        control = 4 if self.shadow else 2
        operand_bits = spec.weight_bits + spec.activation_bits + spec.control_bits + control
        area = candidate.area + operand_bits * charges.register
        if self.shadow:
            area += spec.accumulator_bits * charges.shadow_bit
        if self.scaling is not None:
            sum_bits = 64 if self.scaling is Scaling.INTEGER else 32
            area += sum_bits * SRAM_BIT_REGISTERS * charges.register
        return area

    @property
    def _units(self) -> float:
        """Dequantization units with what they choose from and keep, and the registers between them."""
        charges, shared = self.candidate.charges, self.columns_per_unit
        units = -(-self.columns // shared)
        area = 0.0
        if self.scaling is not None:
            row_sums = self.candidate.spec.zero_point is ZeroPoint.ROW_SUM
            scale = SCALE_BITS[self.scaling] + (ZERO_BITS if row_sums else 0)
            area += units * charges.scaling[self.scaling]
            area += self.columns * self.scale_entries * scale * charges.store_bit.get(shared, 0.0)
        if self.scaling is not None or self.outputs:
            area += units * self.candidate.spec.accumulator_bits * charges.choice_bit.get(shared, 0)
            # Valid, end, open, close, entry and column pass from unit to unit.
            control = 4 + (self.rows - 1).bit_length() + (shared - 1).bit_length()
            area += self.columns * control * charges.register
        if self.outputs:
            area += -(-self.columns // (self.columns_per_output or shared)) * charges.output
            # Scales of rows, which pass from unit to unit and come round again for further columns.
            registers = RESULT_BITS * (self.columns + (self.rows if shared > 1 else 0))
            if self.scaling is Scaling.CHANNEL:
                registers += self.columns * self.scale_entries * 16
            registers += self.columns * RESULT_BITS * self.result_rows * SRAM_BIT_REGISTERS
            area += registers * charges.register
        return area

    @property
    def scale_entries(self) -> int:
        """Groups whose scales a unit holds at once, as `hw.spec.systolic` has it."""
        sums = self.rows * self.columns_per_unit
        busy = self.rows + sums + self.columns + SUM_CYCLES + UNIT_CYCLES
        return 1 << (-(-busy // sums)).bit_length()

    @property
    def result_rows(self) -> int:
        """Rows of results that may have to wait, as `hw.spec.systolic` has it."""
        late = (self.columns_per_unit - 1) * (self.rows - 1)
        return 2 * self.rows + self.columns + SUM_CYCLES + late + UNIT_CYCLES + 2

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
    """What a search may choose from, beside rows and columns, and whether `outputs` are charged."""

    scalings: Sequence[Scaling] = tuple(Scaling)
    shadows: Sequence[bool] = (True, False)
    shared: Sequence[int] = SHARED
    skews: Sequence[Skew] = (Skew.PORT, Skew.STORED)
    outputs: bool = False
    columns_per_output: int | None = None


def designs_at_area(candidate: Candidate, budget: float, choices: Choices) -> list[Design]:
    """Arrays that fill an area: all numbers of rows, and all that may be chosen.

    Columns share units as in generated arrays: a multiple of them, no longer than a group lasts, and not where there are row sums.
    """
    kinds: list[Scaling | None] = [s for s in choices.scalings if s in candidate.charges.scaling]
    row_sums = candidate.spec.zero_point is ZeroPoint.ROW_SUM
    found = []
    for rows in (8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 56, 64, 80, 96, 128):
        for shadow, skew, scaling in product(choices.shadows, choices.skews, kinds or [None]):
            shares = choices.shared if scaling or choices.outputs else (1,)
            for shared in (1,) if row_sums else shares:
                if shared > 1 and rows * shared > (candidate.group or LONGEST_GROUP):
                    continue
                least = Design(
                    candidate, rows, shared, shadow, scaling, shared, skew, choices.outputs,
                    choices.columns_per_output,
                )  # fmt: skip
                widest = _widest(least, budget)
                if widest is not None:
                    found.append(widest)
    return found


def _widest(least: Design, budget: float) -> Design | None:
    """The design with as many columns as an area holds, in steps of those of `least`; None: not even these."""
    if least.area > budget:
        return None
    step = least.columns
    # No more than this, because columns cost their cells at least; areas grow faster than columns from there.
    columns = int(budget / (least.rows * least.cell)) // step * step
    while True:
        design = replace(least, columns=max(columns, step))
        area = design.area
        if area <= budget:
            break
        columns = min(int(columns * budget / area) // step * step, columns - step)
    # A cut in proportion may have gone too far, because some costs do not grow with the columns.
    while (wider := replace(design, columns=design.columns + step)).area <= budget:
        design = wider
    return design


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
