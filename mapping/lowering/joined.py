"""Two matrices of the same inputs as one, where that leaves fewer padded outputs."""

from hw.spec.machine import MachineSpec
from mapping.lowering.tiles import MatrixPlan, plan_matrix

__all__ = ["FIRST", "SECOND", "join"]

FIRST, SECOND = "mlp.gate_proj", "mlp.up_proj"
"""Outputs of the second stand behind those of the first, in memory and among the results."""
_LEAST = 20
"""At least one of so many blocks must be saved: the vector unit could begin earlier with a matrix of its own."""


def join(spec: MachineSpec, matrices: dict[str, MatrixPlan], credits: int) -> MatrixPlan | None:
    """Gate and up projection as one matrix, or None where nothing is gained, or formats differ.

    A core's part of a feed-forward layer seldom is a multiple of `matrix_rows` outputs; together, both have one
    padded block at most.
    """
    first, second = matrices.get(FIRST), matrices.get(SECOND)
    if first is None or second is None or first.wired:
        return None
    formats = {piece.format for piece in (*first.pieces, *second.pieces)}
    alone = len(first.pieces) == len(second.pieces) == len(formats) == 1
    # The vector unit reads the second's results from a whole granule on.
    if not alone or first.rows != second.rows or first.rows % spec.granule:
        return None
    (format,) = formats
    if format.stored:
        return None
    apart = first.blocks + second.blocks
    whole = plan_matrix(spec, FIRST, 2 * first.rows, first.columns, format, credits)
    return whole if _LEAST * (apart - whole.blocks) >= apart else None
