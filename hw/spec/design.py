"""What a processor is made of, and what it takes of a part: synthesized figures of its parts times their instances.

Figures stand in `resources.json` beside this file, which `lpu synth --target T --parts` brings up to date: it
synthesizes those parts of a target that the file lacks. Of a part that is not there for just these parameters, the
nearest one's figures are extrapolated in proportion to its size, and said to be.
"""

import json
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hw.spec.board import KINDS, Board
from hw.spec.cascade import row_kinds, rows_together
from hw.spec.errors import InputError
from hw.spec.instructions import Unit
from hw.spec.machine import MachineSpec

__all__ = [
    "TABLE",
    "DesignPart",
    "PartResources",
    "check_fits",
    "design_parts",
    "design_resources",
    "forget_table",
    "total_resources",
]

TABLE = Path(__file__).with_name("resources.json")
SYNTHESIZED, EXTRAPOLATED = "synthesized", "extrapolated"
STREAM_PAIR = 8
"""Stream alignment, in quarters of a word, at which words need not be shifted."""


@dataclass(frozen=True)
class DesignPart:
    """One kind of component of a processor.

    Attributes
    ----------
    name : str
    instances : int
        In the whole processor, all cores.
    shape : tuple
        The parameters on which its resources depend.
    size : float
        What its resources are about proportional to, where only the shape's numbers differ.
    """

    name: str
    instances: int
    shape: tuple[Any, ...] = ()
    size: float = 1.0


@dataclass(frozen=True)
class PartResources:
    """Resources of one kind of component.

    Attributes
    ----------
    part : DesignPart
    each : dict of str to float
        Of one instance, by `KINDS`.
    source : str
        "synthesized" or "extrapolated".
    """

    part: DesignPart
    each: dict[str, float]
    source: str


def design_parts(spec: MachineSpec) -> list[DesignPart]:
    """All parts of a processor, the largest kinds first."""
    word, lanes, cores, columns = spec.word_bytes, spec.lanes, spec.cores, spec.matrix_columns
    rows, formats = spec.matrix_rows, "+".join(sorted(spec.weight_formats))
    kind: tuple[Any, ...] = (spec.matrix_element, columns, spec.sparse, formats)
    kinds = row_kinds(spec)
    skew = []
    if spec.matrix_element == "dsp":
        # The order of a cascade depends on the other rows.
        kind += (max(kinds) if len(kinds) > 1 else 0,)
        skew.append(DesignPart("matrix_skew", columns, (spec.sparse, "+".join(map(str, kinds)))))
    slots = Counter(spec.row_logic_slots(row) for row in range(0, rows, rows_together(spec)))
    parts = [
        *(DesignPart("matrix_row", count, (*kind, logic)) for logic, count in slots.items()),
        DesignPart("matrix_scaler", rows // spec.rows_per_scaler, (columns, spec.rows_per_scaler)),
        DesignPart("matrix_drain", 1, (rows, columns, spec.drain_lanes), rows * columns),
        DesignPart("matrix_align", 1, (word, spec.stream_alignment < STREAM_PAIR), word),
        DesignPart("matrix_select", columns, (spec.sparse, formats, spec.activation_rows)),
        *skew,
        DesignPart("matrix_sequence", 1, (spec.sparse, formats, word), 1),
        DesignPart("vector_lane", lanes),
        DesignPart("vector_operand", 3, (lanes, spec.word_rows), lanes),
        DesignPart("vector_walk", 1, (lanes,)),
        DesignPart("vector_maximum", 1, (lanes,), lanes),
        DesignPart("vector_sum", 1, (lanes, int(cores > 1)), lanes),
        DesignPart("vector_write", 1, (lanes, cores), lanes),
        DesignPart("load", 1, (spec.channels, spec.bus_bytes, spec.read_outstanding), word),
        DesignPart("store", 1, (spec.channels, spec.bus_bytes, spec.write_outstanding), word),
        DesignPart("system", 1, (spec.tokens,), spec.tokens),
        DesignPart("control", 1, ()),
        *(DesignPart(f"sequencer_{unit.name.lower()}", 1, (spec.instructions,)) for unit in Unit),
        *_buffers(spec),
    ]
    parts = [DesignPart(part.name, cores * part.instances, part.shape, part.size) for part in parts]
    if cores > 1:
        parts.append(DesignPart("exchange", 1, (cores, lanes), cores * lanes))
        parts.append(DesignPart("row_results", 1, (cores, spec.exchange_latency), cores))
    return parts


def _buffers(spec: MachineSpec) -> list[DesignPart]:
    """Memories: name, depth, width in bits, bits of a write enable, reading ports."""
    word, row = 8 * spec.word_bytes, 32 * spec.lanes
    ring = spec.stream_words // 2
    activation = 8 * spec.activation_row_bytes
    depth = spec.activation_rows * spec.lanes // spec.activation_row_bytes
    shapes = [
        ("stream_ring", 2, ring, word, word, 1),
        ("scale_ring", 1, spec.scale_words, word, word, 1),
        ("input_buffer", spec.word_rows, spec.input_words, row, row, 3),
        ("vector_buffer", 1, spec.vector_rows, row, row, 3),
        ("result_buffer", 1, spec.result_rows, row, 32 * spec.drain_lanes, 3),
        ("scalar_file", 1, spec.scalars, 32, 32, 3),
        ("activation_buffer", 1, depth, activation, 8 * spec.lanes, spec.matrix_columns),
        ("matrix_scales", 1, spec.matrix_scales, 32, 32, 1),
        ("store_buffer", 1, spec.store_rows, 8 * spec.matrix_rows, 8 * min(spec.lanes, 4), 1),
    ]
    return [
        DesignPart(name, count, ("buffer", *shape), shape[0] * shape[1] * shape[3])
        for name, count, *shape in shapes
    ]


@cache
def _table() -> list[dict[str, Any]]:
    return json.loads(TABLE.read_text()) if TABLE.exists() else []


def forget_table() -> None:
    """The table has changed: read it again when it is needed."""
    _table.cache_clear()


def find_part(part: DesignPart, family: str) -> dict[str, float] | None:
    """Synthesized figures of one instance, if the table has them."""
    for row in _table():
        if row["family"] == family and row["shape"] == list(part.shape) and _same(row, part):
            return {kind: row[kind] for kind in KINDS}
    return None


def _same(row: dict[str, Any], part: DesignPart) -> bool:
    """Whether a row is of this kind of part; buffers of equal shape are equal, whatever they hold."""
    return row["part"] == part.name or bool(part.shape and part.shape[0] == "buffer")


def _nearest(part: DesignPart, family: str) -> dict[str, float]:
    """Figures of the part whose parameters differ least, in proportion to the size."""
    rows = [row for row in _table() if row["family"] == family and row["part"] == part.name]
    if not rows:
        raise InputError(
            f"{part.name}: no synthesized figures for {family}; lpu synth --target T --parts makes them"
        )

    def distance(row: dict[str, Any]) -> tuple[int, float]:
        different = sum(a != b for a, b in zip(row["shape"], part.shape, strict=False))
        return different, max(row["size"] / part.size, part.size / row["size"])

    nearest = min(rows, key=distance)
    return {kind: nearest[kind] * part.size / nearest["size"] for kind in KINDS}


def design_resources(spec: MachineSpec, family: str = "xcup") -> list[PartResources]:
    """Resources of every part of a processor.

    Parameters
    ----------
    spec : MachineSpec
    family : str
        See `hw.spec.board.Board`.
    """
    result = []
    for part in design_parts(spec):
        each = find_part(part, family)
        if each is None:
            result.append(PartResources(part, _nearest(part, family), EXTRAPOLATED))
        else:
            result.append(PartResources(part, each, SYNTHESIZED))
    return result


def total_resources(parts: list[PartResources]) -> dict[str, float]:
    """Sums over parts and instances, by `KINDS`."""
    return {kind: sum(p.each[kind] * p.part.instances for p in parts) for kind in KINDS}


def check_fits(spec: MachineSpec, board: Board) -> dict[str, Any]:
    """Refuse a processor that its board does not hold.

    Returns
    -------
    dict
        `used`, `available`, and `source`, "synthesized" or how much of it is extrapolated.

    Raises
    ------
    InputError
        Naming each resource of which there is too little, and by how much.
    """
    parts = design_resources(spec, board.family)
    used, available = total_resources(parts), board.resources()
    lacking = [
        f"{kind.upper()}: needs {round(used[kind]):,}, the board has {available[kind]:,} "
        f"({round(used[kind] - available[kind]):,} too few)"
        for kind in KINDS
        if used[kind] > available[kind]
    ]
    memory = spec.cores * spec.memory.words * spec.word_bytes
    if memory > board.memory_bytes:
        lacking.append(
            f"memory: needs {memory:,} bytes, the board has {board.memory_bytes:,} "
            f"({memory - board.memory_bytes:,} too few)"
        )
    if lacking:
        raise InputError(f"target {spec.name}: does not fit {board.part}: {'; '.join(lacking)}")
    unknown = [p.part.name for p in parts if p.source == EXTRAPOLATED]
    source = SYNTHESIZED + (f" ({', '.join(unknown)} {EXTRAPOLATED})" if unknown else "")
    return {"used": used, "available": available, "source": source}
