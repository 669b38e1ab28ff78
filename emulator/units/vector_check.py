"""Which SFU operations are illegal: field combinations, and accesses whose order would matter."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from emulator.errors import IllegalInstruction
from hw.spec.functions import Function
from hw.spec.instructions import Reduce, Source, Target
from hw.spec.machine import MachineSpec

__all__ = ["beats_of", "check_fields", "check_order", "exchanges_elements", "longest_row"]

Rows = npt.NDArray[np.int64]

OPERANDS = ("a", "b", "c")
OVERLAP = "SFU: a {what} is read and written at different beats of one instruction"
REDUCED = "SFU: scalar entry {entry} is read and reduced to in one instruction"


def beats_of(spec: MachineSpec, length: int) -> int:
    """Beats of one row: whole granules, each a power of two of beats."""
    return (length + spec.granule - 1) // spec.granule * spec.granule // spec.lanes


def longest_row(operation: Mapping[str, int]) -> int:
    """Elements of the longest row, whose beats all rows take."""
    if operation["causal"]:
        return operation["length"] + operation["rows"] - 1
    return operation["length"]


def exchanges_elements(operation: Mapping[str, int]) -> bool:
    """Whether what is written is written in all cores; where rows are reduced, an exchange is of the results."""
    return bool(operation["exchange"]) and operation["reduce"] == Reduce.NONE


def check_fields(operation: Mapping[str, int]) -> None:
    """Raise `IllegalInstruction` if the fields of an EXECUTE do not go together."""
    reduce, target = operation["reduce"], operation["target"]
    problem = None
    if not operation["rows"] or not operation["length"]:
        problem = "rows and length must not be zero"
    elif not Source.INPUT <= operation["a_source"] <= Source.SCALAR:
        problem = f"operand A cannot come from source {operation['a_source']}"
    elif operation["b_source"] > Source.CONSTANT or operation["c_source"] > Source.CONSTANT:
        problem = f"no such source: {max(operation['b_source'], operation['c_source'])}"
    elif operation["function"] >= len(Function):
        problem = f"no such function: {operation['function']}"
    elif reduce > Reduce.ARGMAX or target > Target.MATRIX_SCALE:
        problem = f"no such reduction or target: {reduce}, {target}"
    elif reduce == Reduce.ARGMAX and operation["rows"] != 1:
        problem = f"ARGMAX takes one row, not {operation['rows']}"
    elif target == Target.SCALAR and reduce not in (Reduce.NONE, Reduce.ARGMAX):
        problem = "a reduction and a SCALAR target share one write port"
    elif operation["exchange"] and reduce == Reduce.ARGMAX:
        problem = "ARGMAX is not exchanged"
    elif exchanges_elements(operation) and target not in (Target.VECTOR, Target.ACTIVATION):
        problem = "elements are exchanged to VECTOR or ACTIVATION only"
    if problem:
        raise IllegalInstruction(f"SFU: {problem}")


def check_order(spec: MachineSpec, operation: Mapping[str, int]) -> None:
    """Raise `IllegalInstruction` if a word is written at another beat than it is read at.

    Elements may replace the operand they are computed from: each beat is read long before it is
    written. Any other overlap would make the result depend on the length of the pipeline.
    """
    reduce, target = operation["reduce"], operation["target"]
    if reduce == Reduce.ARGMAX:
        return
    for name in OPERANDS:
        source = operation[f"{name}_source"]
        if source == Source.VECTOR and target == Target.VECTOR:
            beats = beats_of(spec, longest_row(operation))
            if exchanges_elements(operation):
                _check_exchanged(spec, operation, name, beats)
            else:
                _check_written(operation, name, beats, spec.vector_rows, "row")
        elif source == Source.SCALAR and target == Target.SCALAR:
            _check_written(operation, name, 1, spec.scalars, "scalar entry")
        elif source == Source.SCALAR and reduce:
            _check_reduced(operation, name, spec.scalars)


def _check_written(
    operation: Mapping[str, int], name: str, beats: int, depth: int, what: str
) -> None:
    """Beat k of D may be where beat k of the operand is, and where no other one is."""
    if _plainly_ordered(operation, name, beats, depth):
        return
    written = _rows(operation, "d", beats) % depth
    read = _rows(operation, name, beats) % depth
    order = np.arange(len(written))
    first, last = np.full(depth, -1), np.full(depth, -1)
    last[written] = order
    first[written[::-1]] = order[::-1]
    meets = first[read] >= 0
    if (meets & ((first[read] != order) | (last[read] != order))).any():
        raise IllegalInstruction(OVERLAP.format(what=what))


def _check_exchanged(
    spec: MachineSpec, operation: Mapping[str, int], name: str, beats: int
) -> None:
    """No row of the operand may be where the beats of any core are written."""
    parts = np.arange(spec.cores) * operation["exchange_pitch"]
    written = np.zeros(spec.vector_rows, bool)
    written[(_rows(operation, "d", beats)[:, None] + parts) % spec.vector_rows] = True
    if written[_rows(operation, name, beats) % spec.vector_rows].any():
        raise IllegalInstruction("SFU: a row is read and written in an exchange")


def _check_reduced(operation: Mapping[str, int], name: str, depth: int) -> None:
    """No entry of the operand may be one that a row is reduced to."""
    rows, start = operation["rows"], operation["reduce_entry"]
    first, pitch = operation[name], operation[f"{name}_pitch"]
    if rows == 1:
        clashes = [first] if (first - start) % depth == 0 else []
    else:
        read = first + pitch * np.arange(rows)
        # Distance of every entry read from the first one written, going round the file.
        clashes = read[(read - start) % depth < rows]
    if len(clashes):
        raise IllegalInstruction(REDUCED.format(entry=int(clashes[0]) % depth))


def _rows(operation: Mapping[str, int], name: str, beats: int) -> Rows:
    """Address of every beat of an operand (or of D), in order."""
    starts = operation[name] + operation[f"{name}_pitch"] * np.arange(operation["rows"])
    return (starts[:, None] + np.arange(beats)).reshape(-1)


def _plainly_ordered(operation: Mapping[str, int], name: str, beats: int, depth: int) -> bool:
    """Whether D is the operand, row for row, or lies wholly beside it: the usual cases, cheaply."""
    last = operation["rows"] - 1
    pitch, d_pitch = operation[f"{name}_pitch"], operation["d_pitch"]
    start, d = operation[name] % depth, operation["d"] % depth
    end, d_end = start + last * pitch + beats, d + last * d_pitch + beats
    if max(end, d_end) > depth:
        return False
    same = start == d and (last == 0 or (pitch == d_pitch and pitch >= beats))
    return same or end <= d or d_end <= start
