"""LD, ST and SYS, compiled; `emulator.units` has the same in NumPy."""

import numpy as np
import numpy.typing as npt

from emulator.compiled import compiled
from emulator.kernels.layout import (
    COLUMNS,
    CORES,
    MATRIX_ROWS,
    WORD_BYTES,
    Flat,
    Integers,
    Whole,
)
from emulator.state import (
    BEST_INDEX,
    BEST_KEY,
    BEST_KNOWN,
    END,
    SCALE_WRITE,
    STREAM_WRITE,
    TOKEN,
)
from hw.spec.instructions import Destination, Pattern, Unit

Bytes = npt.NDArray[np.uint8]

_STREAM, _SCALE, _INPUT = (int(d) for d in Destination)
_COLUMN, _SPREAD, _SCALAR = (int(p) for p in Pattern)
_LD, _ST = COLUMNS[Unit.LD], COLUMNS[Unit.ST]
_DESTINATION, _ADDRESS, _LENGTH, _BUFFER = (
    _LD[name] for name in ("destination", "address", "length", "buffer")
)
_PATTERN, _STORE_ADDRESS, _LANE, _ROWS, _PITCH, _STEPS, _SOURCE, _SOURCE_PITCH = (
    _ST[name]
    for name in ("pattern", "address", "lane", "rows", "pitch", "steps", "source", "source_pitch")
)


@compiled
def _copy(source: Bytes, first: Whole, target: Bytes, position: Whole, count: Whole) -> None:
    """Copy bytes, wrapping at both ends."""
    while count > 0:
        first %= len(source)
        position %= len(target)
        part = min(count, len(source) - first, len(target) - position)
        target[position : position + part] = source[first : first + part]
        first, position, count = first + part, position + part, count - part


@compiled
def load(flat: Flat, core: Whole, op: Integers, p: Integers) -> bool:
    """An operation of LD; False if it is illegal."""
    length, word = op[_LENGTH], p[WORD_BYTES]
    if length == 0:
        return False
    registers, memory = flat.registers[core], flat.memory[core]
    first, size = op[_ADDRESS] * word, length * word
    if op[_DESTINATION] == _STREAM:
        _copy(memory, first, flat.stream[core], registers[STREAM_WRITE] * word, size)
        registers[STREAM_WRITE] += length
    elif op[_DESTINATION] == _SCALE:
        ring = flat.scale_ring[core].view(np.uint8)
        _copy(memory, first, ring, registers[SCALE_WRITE] * word, size)
        registers[SCALE_WRITE] += length
    elif op[_DESTINATION] == _INPUT:
        _copy(memory, first, flat.input[core].view(np.uint8), op[_BUFFER] * word, size)
    else:
        return False
    return True


@compiled
def store(flat: Flat, core: Whole, op: Integers, p: Integers) -> bool:
    """An operation of ST; False if it is illegal."""
    memory, buffer, word = flat.memory[core], flat.store[core], p[WORD_BYTES]
    pattern, rows, lane = op[_PATTERN], op[_ROWS], op[_LANE]
    if pattern == _COLUMN:
        most, pieces, stride, begin = p[MATRIX_ROWS], op[_STEPS], 2 * word, 4 * lane
    elif pattern == _SPREAD:
        most, pieces, stride, begin = np.int64(4), p[MATRIX_ROWS], np.int64(4), lane
    elif pattern == _SCALAR:
        most, pieces, stride, begin = word // 4, np.int64(1), word, 4 * lane
    else:
        return False
    if rows == 0 or pieces == 0 or lane >= most:
        return False
    together = 1 if pattern == _SPREAD else 4
    for row in range(rows):
        taken = 4 * (op[_SOURCE] + row * op[_SOURCE_PITCH])
        first = (op[_STORE_ADDRESS] + row * op[_PITCH]) * word + begin
        for piece in range(pieces):
            for byte in range(together):
                place = (first + piece * stride + byte) % len(memory)
                memory[place] = buffer[(taken + piece * together + byte) % len(buffer)]
    return True


@compiled
def next_token(
    flat: Flat,
    position: Whole,
    host: Integers,
    stop_tokens: Integers,
    forced: Integers,
    p: Integers,
) -> None:
    """SYS's EXECUTE in all cores; `host` is PROMPT_LENGTH and STEPS."""
    cores, registers = p[CORES], flat.registers
    at = position % flat.tokens.shape[1]
    generated = position >= host[0]
    token = flat.tokens[0, at]
    end = position >= host[1]
    if generated:
        if position - host[0] < len(forced):
            token = forced[position - host[0]]
        else:
            best = 0
            for core in range(1, cores):
                if _better(registers, core, best):
                    best = core
            token = registers[best, BEST_INDEX] * cores + best
        for stop in stop_tokens:
            end = end or token == stop
    for core in range(cores):
        if generated:
            flat.tokens[core, at] = token
        registers[core, TOKEN], registers[core, END] = token, end


@compiled
def _better(registers: Integers, core: Whole, best: Whole) -> bool:
    """Whether a core's ARGMAX goes before that of a lower core."""
    if registers[core, BEST_KNOWN] != registers[best, BEST_KNOWN]:
        return registers[core, BEST_KNOWN] > registers[best, BEST_KNOWN]
    if registers[core, BEST_KEY] != registers[best, BEST_KEY]:
        return registers[core, BEST_KEY] > registers[best, BEST_KEY]
    return registers[core, BEST_INDEX] < registers[best, BEST_INDEX]
