"""Synthesized figures of the parts of processors, for the table beside `hw.spec.design`."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from amaranth.lib import wiring

from hw.core.buffers import Buffer
from hw.core.control import Control
from hw.core.exchange import Exchange, RowResults
from hw.core.load import LoadUnit
from hw.core.matrix_activations import MatrixActivations, MatrixWindow
from hw.core.matrix_drain import MatrixDrain
from hw.core.matrix_row import MatrixRow
from hw.core.matrix_scaler import MatrixScaler
from hw.core.matrix_sequence import MatrixSequence
from hw.core.matrix_skew import MatrixSkew
from hw.core.sequencer import Sequencer
from hw.core.store import StoreUnit
from hw.core.system import SystemUnit
from hw.core.vector_lane import VectorLane
from hw.core.vector_operand import VectorOperand
from hw.core.vector_reduce import VectorMaximum, VectorSum
from hw.core.vector_walk import VectorWalk
from hw.core.vector_write import VectorWrite
from hw.spec.board import KINDS
from hw.spec.design import TABLE, DesignPart, design_parts, find_part, forget_table
from hw.spec.instructions import Unit
from hw.spec.machine import MachineSpec
from hw.spec.output import atomic_write
from hw.synthesis import Resources, synthesize_flat
from hw.synthesis_ecp5 import synthesize_ecp5
from hw.verilog import PREFIX, convert

__all__ = ["synthesize_parts"]

_CHOICE = {"xcup": 1, "ecp5": 2}
"""Lookup tables of a choice of one of four."""
LARGEST = {"store": 128}
"""Sizes beyond which synthesis takes too long: larger ones are extrapolated from what the table has."""

_BUILD: dict[str, Callable[[MachineSpec], wiring.Component]] = {
    "matrix_scaler": MatrixScaler,
    "matrix_drain": MatrixDrain,
    "matrix_select": lambda spec: MatrixWindow(spec) if spec.sparse else MatrixActivations(spec),
    "matrix_skew": MatrixSkew,
    "matrix_sequence": MatrixSequence,
    "vector_lane": lambda _: VectorLane(),
    "vector_operand": VectorOperand,
    "vector_walk": VectorWalk,
    "vector_maximum": VectorMaximum,
    "vector_sum": VectorSum,
    "vector_write": VectorWrite,
    "load": LoadUnit,
    "store": StoreUnit,
    "system": SystemUnit,
    "control": Control,
    "exchange": Exchange,
    "row_results": RowResults,
}


def _component(part: DesignPart, spec: MachineSpec) -> wiring.Component:
    if part.shape and part.shape[0] == "buffer":
        _, depth, width, granularity, readers = part.shape
        return Buffer(depth, width, granularity, readers)
    if part.name == "matrix_row":
        return MatrixRow(spec, vendor=True, logic_slots=part.shape[-1])
    kind, _, unit = part.name.partition("_")
    if kind == "sequencer":
        return Sequencer(spec, Unit[unit.upper()])
    return _BUILD[part.name](spec)


def synthesize_parts(
    spec: MachineSpec, family: str = "xcup", store: bool = True
) -> Iterator[tuple[DesignPart, bool]]:
    """Bring the table up to date with the parts of a machine; yields each part, and whether it had to be made.

    Parts of `LARGEST` that are larger stay out of the table.

    Parameters
    ----------
    spec : MachineSpec
    family : str
        Of the part, see `hw.spec.board.Board`.
    store : bool
        Write each new figure into the table as soon as it is there.
    """
    for part in design_parts(spec):
        missing = find_part(part, family) is None and part.size <= LARGEST.get(part.name, part.size)
        if missing:
            row = {
                "family": family,
                "part": part.name,
                "shape": list(part.shape),
                "size": part.size,
            }
            row |= _resources(part, spec, family).to_dict()
            if store:
                _add(row)
        yield part, missing


def _resources(part: DesignPart, spec: MachineSpec, family: str) -> Resources:
    if part.name == "matrix_align":
        # Registers of two words, and a choice of one of four places for each bit where steps need not begin with a pair.
        word, shifted = part.shape
        return Resources(ff=16 * word, lut=_CHOICE[family] * 16 * word if shifted else 0)
    top = PREFIX + part.name
    make = synthesize_ecp5 if family == "ecp5" else synthesize_flat
    return make(convert(_component(part, spec), top), top, unread=("checksum",))


def _add(row: dict[str, Any]) -> None:
    rows = json.loads(TABLE.read_text()) if TABLE.exists() else []
    rows.append(row)
    rows.sort(key=lambda r: (r["family"], r["part"], str(r["shape"])))
    columns = ("family", "part", "shape", "size", *KINDS)
    lines = [json.dumps({name: r[name] for name in columns}) for r in rows]
    with atomic_write(TABLE) as temporary:
        temporary.write_text("[\n" + ",\n".join(lines) + "\n]\n")
    forget_table()
