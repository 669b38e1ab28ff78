"""Products with hardwired matrices, compiled; `emulator.units.wires` has the same in NumPy."""

import numpy as np

from emulator.compiled import compiled
from emulator.kernels.layout import (
    COLUMNS,
    FIRST_SCALE,
    FIRST_WEIGHT,
    INPUTS,
    LANES,
    MATRIX_ROWS,
    OUTPUTS,
    ROW_BYTES,
    Flat,
    Integers,
    Scratch,
)
from emulator.kernels.matrix import scaled, write_outputs
from emulator.state import ACCUMULATED
from hw.spec.instructions import Unit

__all__ = ["wired"]

_FIELDS = COLUMNS[Unit.MPE]
_KEPT, _BITMAP, _SCALED, _FIRST, _LAST, _POP = (
    _FIELDS[name] for name in ("kept", "bitmap", "scaled", "first", "last", "pop")
)
_BLOCKS, _NUMBER, _VECTORS = (_FIELDS[name] for name in ("blocks", "steps", "vectors"))
_ACTIVATION, _PITCH = _FIELDS["activation"], _FIELDS["activation_pitch"]
_RESULT, _SCALE = _FIELDS["result"], _FIELDS["scale"]


@compiled
def _legal(op: Integers, p: Integers, wires: Integers) -> bool:
    if op[_NUMBER] == 0 or op[_NUMBER] >= len(wires) or op[_VECTORS] != 1:
        return False
    if op[_KEPT] or op[_BITMAP] or op[_SCALED] or op[_POP] or not (op[_FIRST] and op[_LAST]):
        return False
    units = p[ROW_BYTES] // 4
    if op[_ACTIVATION] % units or op[_PITCH] % units:
        return False
    return op[_BLOCKS] * p[MATRIX_ROWS] == wires[op[_NUMBER], OUTPUTS]


@compiled
def wired(flat: Flat, core: int, op: Integers, p: Integers, room: Scratch) -> bool:
    """A product with a hardwired matrix; False if it is illegal."""
    if not _legal(op, p, room.wires):
        return False
    line, rows = room.wires[op[_NUMBER]], p[MATRIX_ROWS]
    inputs, activation, result = line[INPUTS], flat.activation[core], flat.result[core]
    sums, holder = np.zeros(rows, np.int64), np.zeros(1, np.float32)
    for block in range(op[_BLOCKS]):
        for row in range(rows):
            output = block * rows + row
            weights = line[FIRST_WEIGHT] + output * inputs
            total = np.int64(0)
            for i in range(inputs):
                element = activation[(4 * op[_ACTIVATION] + i) % len(activation)]
                total += np.int64(room.wire_values[weights + i]) * np.int64(element)
            code = np.int64(room.wire_scales[line[FIRST_SCALE] + output])
            sums[row] = scaled(np.int32(total), code)
        flat.accumulators[core, :rows] = sums
        at = op[_RESULT] + block * rows // p[LANES]
        write_outputs(result, at, sums, flat.matrix_scales[core], op[_SCALE], p[LANES], holder)
    flat.registers[core, ACCUMULATED] = 1
    return True
