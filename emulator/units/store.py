"""Store unit: store buffer to memory, as rows, columns of tiles, or single elements."""

import zlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from emulator.errors import IllegalInstruction
from emulator.state import MachineState
from hw.spec.instructions import Pattern
from hw.spec.machine import MachineSpec


def execute(state: MachineState, operation: Mapping[str, int]) -> int:
    """Apply one operation of ST; CRC-32 of its beats with their strobes, 0 for SYNC.

    Parameters
    ----------
    state : MachineState
        Changed: `memory`.
    operation : mapping of `operation_fields(Unit.ST)`

    Raises
    ------
    IllegalInstruction
        If a count is zero, the pattern does not exist, or the lane lies outside the pattern.
    """
    if operation["sync"]:
        return 0
    spec = state.spec
    check_operation(spec, operation)
    pattern, lane, rows = operation["pattern"], operation["lane"], operation["rows"]
    steps = operation["steps"] if pattern == Pattern.COLUMN else 1
    beats = 1 if pattern == Pattern.SCALAR else 2 * steps

    # Offsets of the bytes that are written, from the first byte of the row's first word.
    step_bytes = 2 * spec.word_bytes
    if pattern == Pattern.SPREAD:
        offsets = 4 * np.arange(spec.matrix_rows) + lane
    else:
        offsets = (step_bytes * np.arange(steps)[:, None] + 4 * lane + np.arange(4)).reshape(-1)
    row = np.arange(rows)[:, None]
    taken = 4 * (operation["source"] + row * operation["source_pitch"]) + np.arange(len(offsets))
    content = state.store[taken % len(state.store)]

    written = (operation["address"] + row * operation["pitch"]) * spec.word_bytes + offsets
    flat = state.memory.reshape(-1)
    flat[written % len(flat)] = content
    return _checksum(spec, beats, offsets, content)


def check_operation(spec: MachineSpec, operation: Mapping[str, int]) -> None:
    """Raise `IllegalInstruction` for an operation that the hardware refuses."""
    pattern = operation["pattern"]
    limits = {
        Pattern.COLUMN: spec.matrix_rows,
        Pattern.SPREAD: 4,
        Pattern.SCALAR: spec.word_bytes // 4,
    }
    if pattern not in limits:
        raise IllegalInstruction(f"ST: pattern: expected 0 to {max(Pattern)}, found {pattern}")
    counts = ("rows", "steps") if pattern == Pattern.COLUMN else ("rows",)
    for name in counts:
        if operation[name] == 0:
            raise IllegalInstruction(f"ST: {name}: expected at least 1, found 0")
    if operation["lane"] >= limits[Pattern(pattern)]:
        raise IllegalInstruction(
            f"ST: lane: expected less than {limits[Pattern(pattern)]}, found {operation['lane']}"
        )


def _checksum(
    spec: MachineSpec, beats: int, offsets: npt.NDArray[np.int64], content: npt.NDArray[np.uint8]
) -> int:
    rows, word = len(content), spec.word_bytes
    data = np.zeros((rows, beats * word), np.uint8)
    data[:, offsets] = content
    strobes = np.zeros(beats * word, np.uint8)
    strobes[offsets] = 1
    packed = np.packbits(strobes.reshape(beats, word), axis=1, bitorder="little")
    image = np.empty((rows, beats, word + word // 8), np.uint8)
    image[:, :, :word] = data.reshape(rows, beats, word)
    image[:, :, word:] = packed
    return zlib.crc32(image.data)
