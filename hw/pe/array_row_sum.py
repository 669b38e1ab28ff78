"""Sums of the activations of each row, for zero points: one more column, at the left of the array.

It is one cycle ahead of the first column of elements, so that its sums arrive below each column,
one register a column, together with the sums of that column.
"""

from collections.abc import Sequence

from amaranth.hdl import Module, Mux, Signal, Value

from hw.floating_values import register
from hw.pe.array_layout import row_sum_shape
from hw.spec.systolic import SystolicSpec

__all__ = ["output_stationary_row_sums", "weight_stationary_row_sums"]


def output_stationary_row_sums(
    m: Module,
    spec: SystolicSpec,
    operands: Sequence[tuple[Value, Value, Value]],
    captures: Sequence[Value],
    shift: Value,
) -> Value:
    """Sums over a group, kept in each row and shifted down like the sums of a column.

    Parameters
    ----------
    operands : sequence of (Value, Value, Value)
        Operand registers of the first column: activation, valid, clear.
    captures : sequence of Value
        `capture` as it enters each row.
    shift : Value
        `shift`, one cycle before the first column's.

    Returns
    -------
    Value
        The bottom register, one cycle before the sum of the first column that it belongs to.
    """
    shape = row_sum_shape(spec)
    above: Value | None = None
    moving: Value | None = None
    for row, ((activation, valid, clear), capture) in enumerate(
        zip(operands, captures, strict=True)
    ):
        total = Signal(shape, name=f"row_sum_{row}", reset_less=True)
        with m.If(valid):
            m.d.sync += total.eq(Mux(clear, 0, total) + activation.as_signed())
        shadow = Signal(shape, name=f"row_sum_shadow_{row}", reset_less=True)
        if above is not None:
            moves = Signal(name=f"row_sum_moves_{row}")
            m.d.comb += moves.eq(shift if moving is None else shift | moving)
            with m.If(moves):
                m.d.sync += shadow.eq(above)
            moving = Signal(name=f"row_sum_moved_{row}")
            m.d.sync += moving.eq(moves)
        with m.If(capture):
            m.d.sync += shadow.eq(total)
        above = shadow
    assert above is not None
    return above


def weight_stationary_row_sums(
    m: Module, spec: SystolicSpec, activations: Sequence[Value]
) -> Value:
    """Sums over all rows, flowing down like the partial sums of a column.

    Parameters
    ----------
    activations : sequence of Value
        Operand registers of the first column.

    Returns
    -------
    Value
        The sum, one cycle before the sum of the first column that it belongs to.
    """
    shape = row_sum_shape(spec)
    above: Value = Signal(shape, name="row_sum_top")
    for row, activation in enumerate(activations):
        late = register(m, f"row_sum_activation_{row}", activation)
        partial = Signal(shape, name=f"row_sum_{row}", reset_less=True)
        m.d.sync += partial.eq(above + late.as_signed())
        above = partial
    return above
