"""What an array needs beside its elements, synthesized with the same flow: registers, units at the edges."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from amaranth.lib import wiring

from hw.pe.edge import Aligner, FlintDecoder, OliveDecoder, RowSum, TermDecoder, ZeroSubtractor
from hw.spec.processing_element import Operand, ProcessingElementSpec, ZeroPoint
from sim_tests.liberty import Library
from sim_tests.pe_charge_circuits import (
    CHOICE_BITS,
    STORE_BITS,
    STORE_ENTRIES,
    Choice,
    Output,
    Registers,
    Scaling,
    ScalingUnit,
    Store,
)
from sim_tests.pe_synthesis import synthesize, synthesize_all

__all__ = [
    "SHARED",
    "SRAM_BIT_REGISTERS",
    "Areas",
    "Charges",
    "Scaling",
    "charge",
    "surroundings",
]

_Circuit = tuple[str, Callable[[], wiring.Component]]
"""A name, and what makes the circuit."""

SRAM_BIT_REGISTERS = 0.25
"""Area of a bit of a memory of sums or results, in flip-flops; assumed."""

SHARED = (1, 2, 4, 8, 16)
"""How many columns may share a unit."""


@dataclass(frozen=True)
class Charges:
    """Areas beside one kind of element, in the library's unit.

    Parameters
    ----------
    register, shadow_bit : float
        One flip-flop; one bit of a shadow register, its multiplexers included.
    row, column : float
        Units of a row and of a column.
    scaling : dict of Scaling to float
        Arithmetic of a dequantization unit for each group; empty where sums need none.
    output : float
        Arithmetic for each output: conversion to FP32, scales of column and row.
    store_bit, choice_bit : dict of int to float
        By the columns of a unit: a bit of a column's scale in one entry of a unit's store, and a bit of the multiplexer that chooses a
        column's sum.
    """

    register: float
    shadow_bit: float
    row: float
    column: float
    scaling: dict[Scaling, float]
    output: float = 0.0
    store_bit: dict[int, float] = field(default_factory=dict)
    choice_bit: dict[int, float] = field(default_factory=dict)


class Areas:
    """Areas of circuits in one library, each synthesized once; kept between runs.

    Parameters
    ----------
    library : Library
        The cells.
    """

    def __init__(self, library: Library) -> None:
        self.library = library
        self._known: dict[str, float] = {}

    def find(
        self, circuits: Sequence[_Circuit], done: Callable[[int], None] = lambda steps: None
    ) -> list[float]:
        """Area of each; a name stands for one circuit. `done` is told of each that is synthesized."""
        missing = {name: make for name, make in circuits if name not in self._known}
        tasks = [partial(synthesize, name, make(), self.library) for name, make in missing.items()]
        found = synthesize_all(tasks, done)
        self._known |= {name: r.area for name, r in zip(missing, found, strict=True)}
        return [self._known[name] for name, _ in circuits]


def _edges(spec: ProcessingElementSpec) -> tuple[list[_Circuit], list[_Circuit]]:
    """What stands before each row and before each column."""
    row: list[_Circuit] = []
    column: list[_Circuit] = []
    match spec.activation:
        case Operand.DECODED_FLINT:
            row, column = [("flint", FlintDecoder)], [("flint", FlintDecoder)]
        case Operand.DECODED_OLIVE:
            row, column = [("olive", OliveDecoder)], [("olive", OliveDecoder)]
        case Operand.INT12 | Operand.INT14 | Operand.INT24:
            bits = spec.activation_bits
            row = [(f"aligner-{bits}", partial(Aligner, bits))]
    if spec.weight is Operand.BIT_TERM:
        column = [("terms", TermDecoder)] * 4
    if spec.zero_point is ZeroPoint.ROW_SUM:
        row = [*row, ("row-sum", RowSum)]
    if spec.zero_point is ZeroPoint.EDGE:
        column = [*column, ("zero", ZeroSubtractor)]
    return row, column


def _scalings(spec: ProcessingElementSpec, grouped: bool) -> list[Scaling]:
    """What may be done with the sums of groups."""
    return ([Scaling.FLOAT] if spec.fp32 else list(Scaling)) if grouped else []


def surroundings(spec: ProcessingElementSpec, grouped: bool) -> list[list[_Circuit]]:
    """What an element needs around it: registers and outputs, of a row, of a column, stores, multiplexers, dequantization.

    Parameters
    ----------
    grouped : bool
        Groups along K have scales.
    """
    integer = not spec.fp32
    what = f"{spec.accumulator_bits}{'' if integer else '-fp32'}-{spec.zero_point.value}"
    return [
        [
            ("register", partial(Registers, False)),
            ("shadow", partial(Registers, True)),
            ("output" if integer else "output-fp32", partial(Output, integer)),
        ],
        *_edges(spec),
        [(f"store-{columns}", partial(Store, columns)) for columns in SHARED],
        [(f"choice-{columns}", partial(Choice, columns)) for columns in SHARED],
        [
            (f"scaling-{kind.value}-{what}", partial(ScalingUnit, spec, kind))
            for kind in _scalings(spec, grouped)
        ],
    ]


def charge(spec: ProcessingElementSpec, areas: Areas, grouped: bool) -> Charges:
    """Areas of what an element needs around it; synthesizes what was not before."""
    common, row, column, stores, choices, units = (
        areas.find(circuits) for circuits in surroundings(spec, grouped)
    )
    register, shadow, output = common
    return Charges(
        register=register / 32,
        shadow_bit=shadow / 32,
        output=output,
        store_bit={
            columns: area / (columns * STORE_ENTRIES * STORE_BITS)
            for columns, area in zip(SHARED, stores, strict=True)
        },
        choice_bit={
            columns: area / CHOICE_BITS for columns, area in zip(SHARED, choices, strict=True)
        },
        row=sum(row),
        column=sum(column),
        scaling=dict(zip(_scalings(spec, grouped), units, strict=True)),
    )
