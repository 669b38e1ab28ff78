"""A machine with small hardwired matrices of random weights, for benches of the hardware around them."""

from dataclasses import replace

import numpy as np

from hw.spec.machine import MachineSpec
from hw.spec.machine_limits import check_machine
from hw.spec.wires import WiredMatrix, Wires

__all__ = ["example_wires", "with_wires"]

SIZES = ((1, 1), (3, 2), (2, 5))
"""Of each matrix: rows of the activation buffer that it reads, and blocks of outputs."""


def example_wires(spec: MachineSpec, seed: int = 7) -> Wires:
    """Hardwired matrices of a machine: weights of five bits, the largest among them, and any FP16 pattern for scales."""
    rng = np.random.default_rng(seed)
    matrices = []
    for number, (rows, blocks) in enumerate(SIZES):
        shape = (blocks * spec.matrix_rows, rows * spec.activation_row_bytes)
        values = rng.integers(-16, 16, shape).astype(np.int8)
        # A row of zeros, and the rows of the largest and the smallest sums.
        values[0], values[1], values[2] = 0, -16, 15
        codes = rng.integers(0, 1 << 16, shape[0]).astype(np.uint16)
        matrices.append(WiredMatrix(f"matrix_{number}", values, codes.view(np.float16)))
    return Wires(tuple(matrices))


def with_wires(spec: MachineSpec, bits: int, seed: int = 7) -> tuple[MachineSpec, Wires]:
    """The machine with such matrices beside its matrix engine, `bits` of an activation a cycle."""
    wires = example_wires(spec, seed)
    wired = replace(spec, wired_bits=bits, wired_shapes=wires.shapes, wired_digest=wires.digest)
    return check_machine(wired, spec.name), wires
