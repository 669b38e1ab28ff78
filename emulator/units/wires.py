"""Products with hardwired matrices: operations of the matrix engine whose weights do not come from memory."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from emulator.errors import IllegalInstruction
from emulator.units.rows import taken
from hw.spec.machine import MachineSpec
from hw.spec.weight_format import WIRES
from hw.spec.wires import WiredShape, Wires

__all__ = ["check_wired", "group_sums_of", "is_wired", "wired_shape"]


def is_wired(operation: Mapping[str, int]) -> bool:
    """Whether an operation of MPE, or an instruction, names a hardwired matrix."""
    return operation["format"] == WIRES


def wired_shape(spec: MachineSpec, operation: Mapping[str, int]) -> WiredShape:
    """Shape of the matrix that an operation names.

    Raises
    ------
    IllegalInstruction
        If the machine has no such matrix.
    """
    matrices, number = spec.wired_matrices, operation["steps"]
    if not 1 <= number <= len(matrices):
        raise IllegalInstruction(
            f"MPE: steps: expected the number of one of {len(matrices)} hardwired matrices, found {number}"
        )
    return matrices[number - 1]


def check_wired(spec: MachineSpec, operation: Mapping[str, int]) -> None:
    """Raise `IllegalInstruction` for a hardwired product that the hardware refuses."""
    shape = wired_shape(spec, operation)
    expected = {
        "kept": 0,
        "bitmap": 0,
        "scaled": 0,
        "first": 1,
        "last": 1,
        "pop": 0,
        "vectors": 1,
        "blocks": shape.outputs // spec.matrix_rows,
    }
    for name, value in expected.items():
        if operation[name] != value:
            raise IllegalInstruction(
                f"MPE: {name}: expected {value} with hardwired matrix {operation['steps']}, "
                f"found {operation[name]}"
            )
    units = spec.activation_row_bytes // 4
    for name in ("activation", "activation_pitch"):
        if operation[name] % units:
            raise IllegalInstruction(
                f"MPE: {name}: expected a multiple of {units} with a hardwired matrix, found {operation[name]}"
            )


def group_sums_of(
    wires: Wires, operation: Mapping[str, int], activation: npt.NDArray[np.int8]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16]]:
    """Exact dot products of all outputs, and the codes of their FP16 scales: int64, uint16 [outputs].

    `activation` is the whole activation buffer.
    """
    matrix = wires.matrices[operation["steps"] - 1]
    vector = taken(activation, 4 * operation["activation"], matrix.shape.inputs)
    # Integers below 2**53, which BLAS adds exactly in any order.
    sums = matrix.values.astype(np.float64) @ vector.astype(np.float64)
    return sums.astype(np.int64), matrix.scales.view(np.uint16)
