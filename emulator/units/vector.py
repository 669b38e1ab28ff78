"""The vector unit (SFU), functionally: one EXECUTE operation on the buffers of a core.

Whole instructions are computed as arrays of rows x length; `docs/isa.md` has the meaning.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt

from emulator.numerics.floating import (
    FloatArray,
    add,
    canonical,
    from_integer,
    multiply,
    to_integer,
)
from emulator.numerics.functions import apply
from emulator.state import MachineState
from emulator.units.rows import write_rows
from emulator.units.vector_check import (
    beats_of,
    check_fields,
    check_order,
    exchanges_elements,
    longest_row,
)
from emulator.units.vector_scalar import execute_scalar, is_scalar
from hw.spec.functions import Function
from hw.spec.instructions import Reduce, Source, Target
from hw.spec.machine import MachineSpec

__all__ = ["INDEX_BITS", "SUM_BITS", "SUM_FRACTION_BITS", "exchange", "execute", "restart"]

SUM_BITS = 48
"""Bits of an element in the fixed point of SUM; the sum has 64."""
SUM_FRACTION_BITS = 30
INDEX_BITS = 20
"""Bits of the index that ARGMAX keeps."""

_FUNCTIONS = sorted(Function, key=lambda function: function.value)
_ELEMENT_TARGETS = (Target.SCALAR, Target.STORE_FLOAT, Target.MATRIX_SCALE)


def restart(state: MachineState) -> None:
    """What the start of a run does to the unit: no ARGMAX so far."""
    state.best_value = None
    state.best_index = 0


def execute(state: MachineState, operation: Mapping[str, int]) -> int:
    """Apply one operation to the state.

    Parameters
    ----------
    state : MachineState
        Changed in place: vector, scalars, activation, store, matrix_scales, best_value, best_index.
    operation : mapping
        Value of every field of `hw.spec.instructions.operation_fields(Unit.SFU)`.

    Returns
    -------
    int
        Checksum of what was written; 0 for SYNC.

    Raises
    ------
    IllegalInstruction
        If the hardware flags the operation, or if it reads what it writes at another beat.
    ValueError
        If it is an exchange of several cores (see `exchange`).
    """
    if operation["sync"]:
        return 0
    if operation["exchange"]:
        return exchange([state], operation)[0]
    check_fields(operation)
    if state.checked:
        check_order(state.spec, operation)
    if is_scalar(operation):
        return execute_scalar(state, operation)
    reduce, target = operation["reduce"], operation["target"]
    length = longest_row(operation)
    if reduce == Reduce.NONE and target in _ELEMENT_TARGETS:
        # Nothing but the first element of each row can be seen.
        length = 1
    u = _elements(state, operation, length)
    if reduce == Reduce.ARGMAX:
        _keep_best(state, operation, u[0])
        return 0
    # Results are computed before, and written after, the elements: A may be replaced by D.
    results = _reduce_rows(operation, u) if reduce else None
    checksum = _write(state, operation, u) if target else 0
    if results is not None:
        checksum ^= _keep_results(state, operation, results)
    return checksum


def exchange(states: Sequence[MachineState], operation: Mapping[str, int]) -> list[int]:
    """Apply an operation with `exchange` to the states of all cores, core 0's first.

    Returns the checksum of each core. Raises as `execute` does.
    """
    spec = states[0].spec
    if len(states) != spec.cores:
        raise ValueError(f"an exchange needs the {spec.cores} cores, not {len(states)}")
    check_fields(operation)
    if states[0].checked:
        check_order(spec, operation)
    parts = [_elements(state, operation, longest_row(operation)) for state in states]
    if not exchanges_elements(operation):
        # Behind one another, the rows of all cores are a row: their maximum and their exact sum are its.
        lengths = [operation["length"] + row * operation["causal"] for row in range(len(parts[0]))]
        rows = [
            np.concatenate([part[row, :length] for part in parts])
            for row, length in enumerate(lengths)
        ]
        results = np.concatenate([_reduce(operation["reduce"], row[None]) for row in rows])
        return [
            (_write(state, operation, u) if operation["target"] else 0)
            ^ _keep_results(state, operation, results)
            for state, u in zip(states, parts, strict=True)
        ]
    words = _exchanged_words(spec, operation, parts)
    return [_write_exchanged(state, operation, words) for state in states]


def _keep_results(state: MachineState, operation: Mapping[str, int], results: FloatArray) -> int:
    """Write what rows are reduced to; returns its CRC."""
    entries = (operation["reduce_entry"] + np.arange(len(results))) % len(state.scalars)
    state.scalars[entries] = results
    return crc32(results.data)


def _exchanged_words(
    spec: MachineSpec, operation: Mapping[str, int], parts: list[FloatArray]
) -> npt.NDArray[Any]:
    """What is written in every core: rows x beats x cores x lanes."""
    rows, beats = operation["rows"], beats_of(spec, longest_row(operation))
    kind = np.dtype(np.int8 if operation["target"] == Target.ACTIVATION else np.float32)
    found = []
    for u in parts:
        values = to_integer(u, 8).astype(np.int8) if kind == np.int8 else u
        padded = _padded(operation, values, beats * spec.lanes, kind)
        found.append(padded.reshape(rows, beats, spec.lanes))
    return np.stack(found, axis=2)


def _write_exchanged(
    state: MachineState, operation: Mapping[str, int], words: npt.NDArray[Any]
) -> int:
    """Write the parts of all cores, beat by beat; returns the CRC."""
    spec = state.spec
    count, beats, cores, lanes = words.shape
    rows = operation["d"] + operation["d_pitch"] * np.arange(count)[:, None, None]
    rows = rows + np.arange(beats)[:, None] + operation["exchange_pitch"] * np.arange(cores)
    buffer = state.vector
    if operation["target"] == Target.ACTIVATION:
        buffer = state.activation.reshape(-1, spec.lanes)
    write_rows(buffer, rows, words)
    return crc32(words.tobytes())


def _elements(state: MachineState, operation: Mapping[str, int], length: int) -> FloatArray:
    """function(A*B + C), rows x length; may be a view of a buffer."""
    rows = operation["rows"]
    u = _operand(state, operation, "a", length)
    if operation["b_source"] != Source.NONE:
        u = multiply(u, _operand(state, operation, "b", length))
    if operation["c_source"] != Source.NONE:
        u = add(u, _operand(state, operation, "c", length))
    if operation["function"]:
        u = apply(_FUNCTIONS[operation["function"]], u)
    if u.shape != (rows, length):
        # Scalars and constants only: the same for all elements of a row.
        u = np.broadcast_to(u, (rows, length))
    return u


def _operand(
    state: MachineState, operation: Mapping[str, int], name: str, length: int
) -> FloatArray:
    """Canonical operand, of a shape that broadcasts to rows x length."""
    source = operation[f"{name}_source"]
    if source == Source.CONSTANT:
        return _constant(operation[f"{name}_constant"])
    rows, start, pitch = operation["rows"], operation[name], operation[f"{name}_pitch"]
    if source == Source.SCALAR:
        if rows == 1:
            entry = start % len(state.scalars)
            return state.scalars[entry : entry + 1][:, None]
        entries = (start + pitch * np.arange(rows)) % len(state.scalars)
        return state.scalars[entries][:, None]
    buffer = state.input
    if source == Source.VECTOR:
        buffer = state.vector
    elif source == Source.RESULT:
        buffer = state.result
    depth, lanes = buffer.shape
    beats = -(-length // lanes)
    start %= depth
    if start + (rows - 1) * pitch + beats <= depth:
        values = _window(buffer, start, pitch, rows, length, lanes)
    else:
        indices = (start + pitch * np.arange(rows)[:, None] + np.arange(beats)) % depth
        values = buffer[indices].reshape(rows, beats * lanes)[:, :length]
    # What the units wrote is canonical; only what came from memory may not be.
    return canonical(values) if source == Source.INPUT else values


@functools.cache
def _constant(bits: int) -> FloatArray:
    value = canonical(np.array(bits, np.uint32).view(np.float32))
    value.setflags(write=False)
    return value


def _window(
    buffer: npt.NDArray[Any], start: int, pitch: int, rows: int, length: int, lanes: int
) -> npt.NDArray[Any]:
    """View of rows x length elements of a buffer of `lanes` elements a row, which do not wrap."""
    item = buffer.itemsize
    strides = (pitch * lanes * item, item)
    return np.ndarray((rows, length), buffer.dtype, buffer, start * lanes * item, strides)


def _write(state: MachineState, operation: Mapping[str, int], u: FloatArray) -> int:
    """Write the elements to their target; returns the CRC of what was written."""
    target, d = operation["target"], operation["d"]
    rows, pitch = operation["rows"], operation["d_pitch"]
    if target in _ELEMENT_TARGETS:
        buffer = state.scalars
        if target == Target.MATRIX_SCALE:
            buffer = state.matrix_scales
        elif target == Target.STORE_FLOAT:
            buffer = state.store.view(np.float32)
        values = np.ascontiguousarray(u[:, 0])
        buffer[(d + pitch * np.arange(rows)) % len(buffer)] = values
        return crc32(values.data)
    lanes = state.spec.lanes
    width = beats_of(state.spec, longest_row(operation)) * lanes
    if target == Target.VECTOR:
        buffer, values = state.vector.reshape(-1), u
    else:
        buffer = state.activation if target == Target.ACTIVATION else state.store.view(np.int8)
        values = to_integer(u, 8).astype(np.int8)
    padded = _padded(operation, values, width, buffer.dtype)
    depth, beats = len(buffer) // lanes, width // lanes
    start = d % depth
    if start + (rows - 1) * pitch + beats <= depth and (rows == 1 or pitch >= beats):
        _window(buffer, start, pitch, rows, width, lanes)[...] = padded
    else:
        # Row by row, so that of rows that overlap the later one stays.
        by_row = buffer.reshape(depth, lanes)
        words = padded.reshape(rows, beats, lanes)
        for row in range(rows):
            by_row[(start + row * pitch + np.arange(beats)) % depth] = words[row]
    return crc32(padded.data)


def _padded(
    operation: Mapping[str, int], values: npt.NDArray[Any], width: int, kind: npt.DTypeLike
) -> npt.NDArray[Any]:
    """Rows of whole beats: values with zeros from the end of each row on."""
    rows, longest = values.shape
    if width == longest and not operation["causal"]:
        return np.ascontiguousarray(values)
    padded = np.zeros((rows, width), kind)
    padded[:, :longest] = values
    if operation["causal"]:
        for row in range(rows):
            padded[row, operation["length"] + row :] = 0
    return padded


def _reduce_rows(operation: Mapping[str, int], u: FloatArray) -> FloatArray:
    """One value a row, over as many elements as the row has."""
    reduce = operation["reduce"]
    if not operation["causal"]:
        return _reduce(reduce, u)
    length = operation["length"]
    parts = [_reduce(reduce, u[row : row + 1, : length + row]) for row in range(len(u))]
    return np.concatenate(parts)


def _reduce(reduce: int, u: FloatArray) -> FloatArray:
    """One value a row."""
    if reduce == Reduce.SUM:
        total = to_integer(u, SUM_BITS, SUM_FRACTION_BITS).sum(axis=1)
        return from_integer(total, SUM_FRACTION_BITS)
    if reduce == Reduce.MAGNITUDE:
        return np.abs(u).max(axis=1)
    largest = u.max(axis=1)
    for row in np.flatnonzero(largest == 0):
        # By value the zeros are equal; +0 is the larger one.
        zeros = u[row][u[row] == 0]
        largest[row] = -0.0 if np.signbit(zeros).all() else 0.0
    return largest


def _keep_best(state: MachineState, operation: Mapping[str, int], u: FloatArray) -> None:
    """ARGMAX over one row; the earliest of equal elements stays."""
    if operation["restart"]:
        restart(state)
    index = int(u.argmax())
    value = float(u[index])
    if value == 0:
        largest = (u == 0) & ~np.signbit(u)
        if largest.any():
            index = int(largest.argmax())
            value = 0.0
    best = state.best_value
    # The sign decides between zeros.
    if best is None or (value, math.copysign(1, value)) > (best, math.copysign(1, best)):
        state.best_value = value
        state.best_index = (operation["d"] * state.spec.lanes + index) % (1 << INDEX_BITS)
