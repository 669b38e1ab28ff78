"""What the arrays of the compiled machine hold, column by column."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from emulator.state import Arrays
from hw.spec.instructions import Unit, operation_fields
from hw.spec.machine import MachineSpec
from hw.spec.weight_format import KEPT, StepFormat
from hw.spec.wires import Wires

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Whole = int | np.integer[Any]
Real = float | np.floating[Any]

LD, ST, MPE, SFU, SYS = (int(unit) for unit in Unit)
UNITS = len(Unit)
COLUMNS = {unit: {name: i for i, (name, _) in enumerate(operation_fields(unit))} for unit in Unit}
"""Place of each field of an operation in the vector that a kernel takes."""
OPERATION_COLUMNS = max(len(fields) for fields in COLUMNS.values())

# The machine's numbers.
WORD_BYTES, LANES, GRANULE, WORD_ROWS, MATRIX_ROWS, MATRIX_COLUMNS, CORES, PER_SCALER = range(8)
ROW_BYTES = 8
PARAMETERS = 9

# Of a hardwired matrix, by its number: inputs, outputs, its first weight, its first scale. Number 0 is none.
INPUTS, OUTPUTS, FIRST_WEIGHT, FIRST_SCALE = range(4)
WIRE_COLUMNS = 4

# Of a step format, by format | kept << 3 | bitmap << 5: weights of a row in a step, bits of each, kept of 16 (0:
# dense), bitmap, words of metadata, whole words of weights (sparse), cycles, elements, and of which an activation
# vector begins at a multiple. The first is -1 where the machine is not built with it.
EACH, BITS, KEPT_OF_16, BITMAP, FRONT, BACK, CYCLES, SPAN, ALIGNMENT = range(9)
FORMAT_COLUMNS = 9
FORMATS = 64


class Flat(NamedTuple):
    """`emulator.state.Arrays`, each core's buffers as one row, scales as numbers."""

    memory: npt.NDArray[np.uint8]
    stream: npt.NDArray[np.uint8]
    scale_ring: npt.NDArray[np.uint16]
    input: Floats
    vector: Floats
    result: Floats
    scalars: Floats
    matrix_scales: Floats
    activation: npt.NDArray[np.int8]
    store: npt.NDArray[np.uint8]
    tokens: Integers
    accumulators: Integers
    registers: Integers


class Scratch(NamedTuple):
    """Room for one instruction: weights and elements of a block, a vector, rows of each core; and what is hardwired."""

    weights: npt.NDArray[np.int16]
    slots: npt.NDArray[np.int32]
    activations: npt.NDArray[np.int16]
    rows: Floats
    operand: Floats
    wires: Integers
    wire_values: npt.NDArray[np.int8]
    wire_scales: npt.NDArray[np.uint16]


def flat(arrays: Arrays) -> Flat:
    """Views of the arrays, as the kernels want them."""
    cores = len(arrays.registers)
    rows: dict[str, Any] = {
        name: array.reshape(cores, -1) for name, array in arrays._asdict().items()
    }
    rows["scale_ring"] = rows["scale_ring"].view(np.uint16)
    return Flat(**rows)


def scratch(spec: MachineSpec, wires: Wires | None = None) -> Scratch:
    """Room that grows only where it is used: the longest rows and blocks are those of the widest counts."""
    longest = (1 << 21) + spec.granule
    weights = 8 * spec.stream_words * spec.word_bytes
    matrices = wires.matrices if wires else ()
    table = np.zeros((1 + len(matrices), WIRE_COLUMNS), np.int64)
    for line, matrix in zip(table[1:], matrices, strict=True):
        line[INPUTS], line[OUTPUTS] = matrix.shape.inputs, matrix.shape.outputs
    table[1:, FIRST_WEIGHT] = np.cumsum(table[:-1, INPUTS] * table[:-1, OUTPUTS])
    table[1:, FIRST_SCALE] = np.cumsum(table[:-1, OUTPUTS])
    values = [np.zeros(0, np.int8), *(matrix.values.reshape(-1) for matrix in matrices)]
    scales = [np.zeros(0, np.uint16), *(matrix.scales.view(np.uint16) for matrix in matrices)]
    return Scratch(
        weights=np.zeros(weights, np.int16),
        slots=np.zeros(weights if spec.sparse else 1, np.int32),
        activations=np.zeros(16 * spec.activation_rows * spec.lanes, np.int16),
        rows=np.zeros((spec.cores, longest), np.float32),
        operand=np.zeros(longest, np.float32),
        wires=table,
        wire_values=np.concatenate(values),
        wire_scales=np.concatenate(scales),
    )


def parameters(spec: MachineSpec) -> Integers:
    """The machine's numbers, in the order of their names."""
    return np.array(
        [
            spec.word_bytes,
            spec.lanes,
            spec.granule,
            spec.word_rows,
            spec.matrix_rows,
            spec.matrix_columns,
            spec.cores,
            spec.rows_per_scaler,
            spec.activation_row_bytes,
        ],
        np.int64,
    )


def format_table(spec: MachineSpec) -> Integers:
    """Step formats by their code: int64 [FORMATS, FORMAT_COLUMNS]."""
    table = np.full((FORMATS, FORMAT_COLUMNS), -1, np.int64)
    for step in spec.step_formats:
        table[format_code(step)] = [
            step.weight.step_weights,
            step.weight.bits,
            step.kept,
            step.bitmap,
            step.metadata_words,
            -(-step.weight_quarters // 4),
            step.cycles,
            step.span,
            step.alignment,
        ]
    return table


def format_code(step: StepFormat) -> int:
    """Place of a step format in the table."""
    return int(step.weight) | KEPT.index(step.kept) << 3 | int(step.bitmap) << 5
