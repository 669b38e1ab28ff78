"""Load unit: memory to the stream ring, the scale ring or the input buffer."""

import zlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from emulator.errors import IllegalInstruction
from emulator.state import MachineState
from hw.spec.instructions import Destination


def execute(state: MachineState, operation: Mapping[str, int]) -> int:
    """Apply one operation of LD; CRC-32 of the words written, 0 for SYNC.

    Parameters
    ----------
    state : MachineState
        Changed: the destination, and the write pointer if it is a ring.
    operation : mapping of `operation_fields(Unit.LD)`

    Raises
    ------
    IllegalInstruction
        If the length is zero or there is no such destination.
    """
    if operation["sync"]:
        return 0
    length = operation["length"]
    if length == 0:
        raise IllegalInstruction("LD: length: expected at least 1, found 0")
    match operation["destination"]:
        case Destination.STREAM:
            buffer, position = state.stream, state.stream_write
            state.stream_write += length
        case Destination.SCALE:
            buffer, position = state.scale_ring, state.scale_write
            state.scale_write += length
        case Destination.INPUT:
            buffer = state.input.view(np.uint8).reshape(-1, state.spec.word_bytes)
            position = operation["buffer"]
        case other:
            raise IllegalInstruction(
                f"LD: destination: expected 0 to {max(Destination)}, found {other}"
            )
    return copy_words(state.memory, operation["address"], buffer, position, length)


def copy_words(
    source: npt.NDArray[np.uint8],
    first: int,
    target: npt.NDArray[np.uint8],
    position: int,
    count: int,
) -> int:
    """Copy `count` rows, wrapping at both ends; CRC-32 of what was copied."""
    checksum = 0
    while count:
        first %= len(source)
        position %= len(target)
        part = min(count, len(source) - first, len(target) - position)
        rows = source[first : first + part]
        target[position : position + part] = rows
        checksum = zlib.crc32(rows.data, checksum)
        first, position, count = first + part, position + part, count - part
    return checksum
