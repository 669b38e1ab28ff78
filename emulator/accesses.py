"""Which rows of which buffer a unit instruction reads and writes: the basis of race detection.

Every buffer has one writing and one reading unit; rows are the granularity in which it is addressed here
(words, rows of lanes, bytes of the store buffer, elements of the activation buffer, entries of a file).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from emulator.state import MachineState
from emulator.units.matrix_check import step_format
from emulator.units.vector_check import beats_of, exchanges_elements, longest_row
from emulator.units.wires import is_wired, wired_shape
from hw.spec.instructions import Destination, Pattern, Reduce, Source, Target, Unit
from hw.spec.machine import MachineSpec


@dataclass(frozen=True)
class Buffer:
    """A buffer between two units: its name, who writes it, who reads it."""

    name: str
    writer: Unit
    reader: Unit


BUFFERS = {
    b.name: b
    for b in (
        Buffer("memory", Unit.ST, Unit.LD),
        Buffer("stream", Unit.LD, Unit.MPE),
        Buffer("scale_ring", Unit.LD, Unit.MPE),
        Buffer("input", Unit.LD, Unit.SFU),
        Buffer("result", Unit.MPE, Unit.SFU),
        Buffer("activation", Unit.SFU, Unit.MPE),
        Buffer("matrix_scales", Unit.SFU, Unit.MPE),
        Buffer("store", Unit.SFU, Unit.ST),
        Buffer("best", Unit.SFU, Unit.SYS),
        Buffer("token", Unit.SYS, Unit.LD),
    )
}
"""Buffers whose two sides are different units; the vector buffer and the scalar file are SFU's own."""

Range = tuple[str, int, int]
"""Buffer name, first row, number of rows; rows wrap at the depth."""

TOKEN: Range = ("token", 0, 1)
"""The register that SYS writes, and that addresses of LD may depend on."""


def depths(spec: MachineSpec) -> dict[str, int]:
    """Rows of every buffer of `BUFFERS`."""
    return {
        "memory": spec.memory.words,
        "stream": spec.stream_words,
        "scale_ring": spec.scale_words,
        "input": spec.input_words * spec.word_rows,
        "result": spec.result_rows,
        "activation": spec.activation_rows * spec.lanes,
        "matrix_scales": spec.matrix_scales,
        "store": spec.store_rows * spec.matrix_rows,
        "best": 1,
        "token": 1,
    }


def accesses(
    unit: Unit, operation: Mapping[str, int], state: MachineState
) -> tuple[list[Range], list[Range]]:
    """Reads and writes of an EXECUTE operation about to be executed on `state`."""
    if unit == Unit.LD:
        return _load(operation, state)
    if unit == Unit.ST:
        return _store(operation, state.spec)
    if unit == Unit.MPE:
        return _matrix(operation, state)
    if unit == Unit.SFU:
        return _vector(operation, state.spec)
    return [("best", 0, 1)], [TOKEN]


def _load(operation: Mapping[str, int], state: MachineState) -> tuple[list[Range], list[Range]]:
    length = operation["length"]
    destination = operation["destination"]
    if destination == Destination.STREAM:
        written = ("stream", state.stream_write, length)
    elif destination == Destination.SCALE:
        written = ("scale_ring", state.scale_write, length)
    else:
        rows = state.spec.word_rows
        written = ("input", operation["buffer"] * rows, length * rows)
    return [("memory", operation["address"], length)], [written]


def _store(operation: Mapping[str, int], spec: MachineSpec) -> tuple[list[Range], list[Range]]:
    pattern = operation["pattern"]
    if pattern == Pattern.COLUMN:
        taken, words = 4 * operation["steps"], spec.step_words * operation["steps"]
    elif pattern == Pattern.SPREAD:
        taken, words = spec.matrix_rows, spec.step_words
    else:
        taken, words = 4, 1
    rows = range(operation["rows"])
    reads = [
        ("store", 4 * (operation["source"] + r * operation["source_pitch"]), taken) for r in rows
    ]
    writes = [("memory", operation["address"] + r * operation["pitch"], words) for r in rows]
    return reads, writes


def _matrix(operation: Mapping[str, int], state: MachineState) -> tuple[list[Range], list[Range]]:
    if is_wired(operation):
        return _wired(operation, state.spec)
    spec, step = state.spec, step_format(operation)
    blocks, steps, vectors = operation["blocks"], operation["steps"], operation["vectors"]
    # Sparse steps may meet any element of the blocks of 16 that they touch.
    elements = -(-steps * step.span // step.alignment) * step.alignment
    reads: list[Range] = [("stream", state.stream_read, blocks * step.block_words(steps))]
    first, pitch = 4 * operation["activation"], 4 * operation["activation_pitch"]
    reads += _rows("activation", first, pitch, vectors, elements)
    if operation["scaled"] and operation["group_steps"]:
        reads.append(("scale_ring", state.scale_read, blocks * steps // operation["group_steps"]))
    writes: list[Range] = []
    if operation["last"]:
        reads += _rows("matrix_scales", operation["scale"], operation["scale_pitch"], vectors, 1)
        rows = blocks * spec.block_rows
        writes += _rows("result", operation["result"], operation["result_pitch"], vectors, rows)
    return reads, writes


def _wired(operation: Mapping[str, int], spec: MachineSpec) -> tuple[list[Range], list[Range]]:
    inputs = wired_shape(spec, operation).inputs
    reads = [
        ("activation", 4 * operation["activation"], inputs),
        ("matrix_scales", operation["scale"], 1),
    ]
    return reads, [("result", operation["result"], operation["blocks"] * spec.block_rows)]


def _vector(operation: Mapping[str, int], spec: MachineSpec) -> tuple[list[Range], list[Range]]:
    beats = beats_of(spec, longest_row(operation))
    rows = operation["rows"]
    reads: list[Range] = []
    for name in ("a", "b", "c"):
        source = operation[f"{name}_source"]
        if source in (Source.INPUT, Source.RESULT):
            buffer = "input" if source == Source.INPUT else "result"
            reads += _rows(buffer, operation[name], operation[f"{name}_pitch"], rows, beats)
    target, d, pitch = operation["target"], operation["d"], operation["d_pitch"]
    writes: list[Range] = []
    if target == Target.ACTIVATION:
        parts = spec.cores if exchanges_elements(operation) else 1
        for part in range(parts):
            first = d + part * operation["exchange_pitch"]
            writes += _rows(
                "activation", first * spec.lanes, pitch * spec.lanes, rows, beats * spec.lanes
            )
    elif target == Target.STORE_INTEGER:
        writes = _rows("store", d * spec.lanes, pitch * spec.lanes, rows, beats * spec.lanes)
    elif target == Target.STORE_FLOAT:
        writes = _rows("store", 4 * d, 4 * pitch, rows, 4)
    elif target == Target.MATRIX_SCALE:
        writes = _rows("matrix_scales", d, pitch, rows, 1)
    if operation["reduce"] == Reduce.ARGMAX:
        writes.append(("best", 0, 1))
    return reads, writes


def _rows(buffer: str, first: int, pitch: int, rows: int, length: int) -> list[Range]:
    if rows == 1 or pitch == length:
        return [(buffer, first, rows * length)]
    return [(buffer, first + r * pitch, length) for r in range(rows if pitch else 1)]
