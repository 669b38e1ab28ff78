"""The vector unit, compiled: one instruction on the cores' arrays; `emulator.units.vector` has the same in NumPy."""

import numpy as np
import numpy.typing as npt

from emulator.compiled import compiled
from emulator.kernels.floats import add, apply, canonical, multiply, to_integer
from emulator.kernels.layout import (
    COLUMNS,
    CORES,
    GRANULE,
    LANES,
    Flat,
    Integers,
    Scratch,
    Whole,
)
from emulator.state import BEST_INDEX, BEST_KEY, BEST_KNOWN
from emulator.units.vector import INDEX_BITS, SUM_BITS, SUM_FRACTION_BITS
from hw.spec.functions import Function
from hw.spec.instructions import Reduce, Source, Target, Unit

Floats = npt.NDArray[np.float32]
Bits = npt.NDArray[np.int32]

_FIELDS = COLUMNS[Unit.SFU]
_FUNCTION, _REDUCE, _TARGET, _ROWS, _LENGTH, _CAUSAL, _EXCHANGE, _EXCHANGE_PITCH = (
    _FIELDS[name]
    for name in (
        "function",
        "reduce",
        "target",
        "rows",
        "length",
        "causal",
        "exchange",
        "exchange_pitch",
    )
)
_A, _B, _C, _D = (_FIELDS[name] for name in "abcd")
_A_PITCH, _B_PITCH, _C_PITCH, _D_PITCH = (_FIELDS[f"{name}_pitch"] for name in "abcd")
_A_SOURCE, _B_SOURCE, _C_SOURCE = (_FIELDS[f"{name}_source"] for name in "abc")
_B_CONSTANT, _C_CONSTANT = _FIELDS["b_constant"], _FIELDS["c_constant"]
_ENTRY, _RESTART = _FIELDS["reduce_entry"], _FIELDS["restart"]
_NONE, _INPUT, _VECTOR, _RESULT, _SCALAR, _CONSTANT = (int(source) for source in Source)
_NO_REDUCE, _MAXIMUM, _MAGNITUDE, _SUM, _ARGMAX = (int(reduce) for reduce in Reduce)
_TO_NONE, _TO_VECTOR, _TO_SCALAR, _TO_ACTIVATION, _TO_INTEGER, _TO_FLOAT, _TO_SCALE = (
    int(target) for target in Target
)
_FUNCTIONS = len(Function)
_POSITIVE = np.int32(0x7FFFFFFF)
_SUM_LIMIT, _SUM_FACTOR = float((1 << SUM_BITS - 1) - 1), 2.0**SUM_FRACTION_BITS


@compiled
def _legal(op: Integers) -> bool:
    reduce, target = op[_REDUCE], op[_TARGET]
    if op[_ROWS] == 0 or op[_LENGTH] == 0 or op[_FUNCTION] >= _FUNCTIONS:
        return False
    if not _INPUT <= op[_A_SOURCE] <= _SCALAR or reduce > _ARGMAX or target > _TO_SCALE:
        return False
    if op[_B_SOURCE] > _CONSTANT or op[_C_SOURCE] > _CONSTANT:
        return False
    if reduce == _ARGMAX and op[_ROWS] != 1:
        return False
    if target == _TO_SCALAR and reduce != _NO_REDUCE and reduce != _ARGMAX:
        return False
    if op[_EXCHANGE] and reduce == _NO_REDUCE:
        return target == _TO_VECTOR or target == _TO_ACTIVATION
    return not op[_EXCHANGE] or reduce != _ARGMAX


@compiled
def _read(buffer: Floats, first: Whole, n: Whole, out: Floats) -> None:
    """`n` elements of a buffer, wrapping."""
    first %= len(buffer)
    if first + n <= len(buffer):
        for i in range(n):
            out[i] = buffer[first + i]
        return
    for i in range(n):
        out[i] = buffer[(first + i) % len(buffer)]


@compiled
def _operand(
    flat: Flat,
    core: Whole,
    source: Whole,
    address: Whole,
    constant: Whole,
    lanes: Whole,
    n: Whole,
    out: Floats,
) -> None:
    """Elements of a row of an operand, canonical."""
    if source == _VECTOR:
        _read(flat.vector[core], address * lanes, n, out)
    elif source == _RESULT:
        _read(flat.result[core], address * lanes, n, out)
    elif source == _INPUT:
        _read(flat.input[core], address * lanes, n, out)
        # What the units wrote is canonical; only what came from memory may not be.
        canonical(out, n)
    else:
        if source == _SCALAR:
            scalars = flat.scalars[core]
            out[0] = scalars[address % len(scalars)]
        else:
            out.view(np.uint32)[0] = np.uint32(constant)
            canonical(out, 1)
        value = out[0]
        for i in range(1, n):
            out[i] = value


@compiled
def _row(
    flat: Flat, core: Whole, op: Integers, row: Whole, n: Whole, lanes: Whole, u: Floats, t: Floats
) -> None:
    """u = function(A*B + C) of a row."""
    _operand(flat, core, op[_A_SOURCE], op[_A] + row * op[_A_PITCH], 0, lanes, n, u)
    if op[_B_SOURCE] != _NONE:
        address = op[_B] + row * op[_B_PITCH]
        _operand(flat, core, op[_B_SOURCE], address, op[_B_CONSTANT], lanes, n, t)
        multiply(u, t, n)
    if op[_C_SOURCE] != _NONE:
        address = op[_C] + row * op[_C_PITCH]
        _operand(flat, core, op[_C_SOURCE], address, op[_C_CONSTANT], lanes, n, t)
        add(u, t, n)
    apply(op[_FUNCTION], u, n)


@compiled
def _key(bits: np.int32) -> np.int32:
    """Integer that orders as the number does, -0 below +0."""
    return bits ^ ((bits >> 31) & _POSITIVE)


@compiled
def _reduce(kind: Whole, u: Floats, n: Whole) -> np.int64:
    """A row's sum in fixed point, or the integer that orders its largest element."""
    if kind == _SUM:
        total = np.int64(0)
        for i in range(n):
            total += np.int64(to_integer(u[i], _SUM_LIMIT, _SUM_FACTOR))
        return total
    bits = u.view(np.int32)
    best = np.int32(-0x80000000)
    if kind == _MAGNITUDE:
        for i in range(n):
            best = max(best, bits[i] & _POSITIVE)
    else:
        for i in range(n):
            best = max(best, _key(bits[i]))
    return np.int64(best)


@compiled
def _reduced(kind: Whole, value: np.int64, room: Floats) -> np.float32:
    """The number that `_reduce` found; room[0] is overwritten."""
    if kind == _SUM:
        return np.float32(np.float64(np.float32(value)) * (1 / _SUM_FACTOR))
    room.view(np.int32)[0] = _key(np.int32(value))
    return room[0]


@compiled
def _keep_best(registers: Integers, op: Integers, u: Floats, n: Whole, lanes: Whole) -> None:
    """ARGMAX over one row; the earliest of equal elements stays."""
    if op[_RESTART]:
        registers[BEST_KNOWN] = registers[BEST_KEY] = registers[BEST_INDEX] = 0
    bits = u.view(np.int32)
    index, best = 0, _key(bits[0])
    for i in range(1, n):
        key = _key(bits[i])
        if key > best:
            index, best = i, key
    if not registers[BEST_KNOWN] or best > registers[BEST_KEY]:
        registers[BEST_KNOWN], registers[BEST_KEY] = 1, best
        registers[BEST_INDEX] = (op[_D] * lanes + index) % (1 << INDEX_BITS)


@compiled
def _write_floats(buffer: Floats, first: Whole, width: Whole, u: Floats) -> None:
    first %= len(buffer)
    if first + width <= len(buffer):
        for i in range(width):
            buffer[first + i] = u[i]
    else:
        for i in range(width):
            buffer[(first + i) % len(buffer)] = u[i]


@compiled
def _write_integers(
    buffer: npt.NDArray[np.int8], first: Whole, width: Whole, n: Whole, u: Floats
) -> None:
    """INT8 of `n` elements, then zeros up to `width`."""
    first %= len(buffer)
    whole = first + width <= len(buffer)
    if whole:
        for i in range(n):
            buffer[first + i] = np.int8(np.int32(to_integer(u[i], 127.0, 1.0)))
        buffer[first + n : first + width] = 0
        return
    for i in range(width):
        value = np.int8(np.int32(to_integer(u[i], 127.0, 1.0))) if i < n else np.int8(0)
        buffer[(first + i) % len(buffer)] = value


@compiled
def _write(
    flat: Flat,
    core: Whole,
    op: Integers,
    row: Whole,
    n: Whole,
    width: Whole,
    lanes: Whole,
    u: Floats,
) -> None:
    """Write a row to its target, zeros behind its end."""
    target, place = op[_TARGET], op[_D] + row * op[_D_PITCH]
    if target == _TO_VECTOR:
        u[n:width] = 0
        _write_floats(flat.vector[core], place * lanes, width, u)
    elif target == _TO_ACTIVATION:
        _write_integers(flat.activation[core], place * lanes, width, n, u)
    elif target == _TO_INTEGER:
        _write_integers(flat.store[core].view(np.int8), place * lanes, width, n, u)
    elif target == _TO_SCALAR:
        scalars = flat.scalars[core]
        scalars[place % len(scalars)] = u[0]
    elif target == _TO_SCALE:
        scales = flat.matrix_scales[core]
        scales[place % len(scales)] = u[0]
    elif target == _TO_FLOAT:
        singles = flat.store[core].view(np.float32)
        singles[place % len(singles)] = u[0]


@compiled
def _exchange_results(flat: Flat, op: Integers, p: Integers, width: Whole, room: Scratch) -> None:
    """Rows, each core's own; what they are reduced to in all cores is one result, which all cores get."""
    lanes, cores, reduce = p[LANES], p[CORES], op[_REDUCE]
    for row in range(op[_ROWS]):
        n = op[_LENGTH] + (row if op[_CAUSAL] else 0)
        found = np.int64(0)
        for core in range(cores):
            u = room.rows[core]
            _row(flat, core, op, row, n, lanes, u, room.operand)
            own = _reduce(reduce, u, n)
            if reduce == _SUM:
                found += own
            elif core == 0 or own > found:
                found = own
            _write(flat, core, op, row, n, width, lanes, u)
        value = _reduced(reduce, found, room.operand)
        for core in range(cores):
            scalars = flat.scalars[core]
            scalars[(op[_ENTRY] + row) % len(scalars)] = value


@compiled
def _exchange(flat: Flat, op: Integers, p: Integers, width: Whole, room: Scratch) -> None:
    """Rows of all cores to all cores, row by row: none of what is written is read."""
    lanes, cores = p[LANES], p[CORES]
    for row in range(op[_ROWS]):
        n = op[_LENGTH] + (row if op[_CAUSAL] else 0)
        for core in range(cores):
            part = room.rows[core]
            _row(flat, core, op, row, n, lanes, part, room.operand)
            part[n:width] = 0
        for beat in range(0, width, lanes):
            for core in range(cores):
                place = op[_D] + row * op[_D_PITCH] + core * op[_EXCHANGE_PITCH]
                words, first = room.rows[core, beat : beat + lanes], place * lanes + beat
                for other in range(cores):
                    if op[_TARGET] == _TO_VECTOR:
                        _write_floats(flat.vector[other], first, lanes, words)
                    else:
                        _write_integers(flat.activation[other], first, lanes, lanes, words)


@compiled
def vector(flat: Flat, op: Integers, p: Integers, room: Scratch) -> bool:
    """An operation of SFU in all cores; False if it is illegal."""
    if not _legal(op):
        return False
    lanes, granule, rows, length = p[LANES], p[GRANULE], op[_ROWS], op[_LENGTH]
    causal = op[_CAUSAL] != 0
    longest = length + rows - 1 if causal else length
    width = (longest + granule - 1) // granule * granule
    if op[_EXCHANGE]:
        if op[_REDUCE] == _NO_REDUCE:
            _exchange(flat, op, p, width, room)
        else:
            _exchange_results(flat, op, p, width, room)
        return True
    reduce, target = op[_REDUCE], op[_TARGET]
    single = target == _TO_SCALAR or target == _TO_SCALE or target == _TO_FLOAT
    for core in range(p[CORES]):
        u, scalars = room.rows[core], flat.scalars[core]
        for row in range(rows):
            n = length + row if causal else length
            if single and reduce == _NO_REDUCE:
                # Nothing but the first element of each row can be seen.
                n = np.int64(1)
            _row(flat, core, op, row, n, lanes, u, room.operand)
            if reduce == _ARGMAX:
                _keep_best(flat.registers[core], op, u, n, lanes)
                continue
            if reduce != _NO_REDUCE:
                value = _reduced(reduce, _reduce(reduce, u, n), room.operand)
                scalars[(op[_ENTRY] + row) % len(scalars)] = value
            _write(flat, core, op, row, n, width, lanes, u)
    return True
