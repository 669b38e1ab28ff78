"""AXI4-Lite register map of the flight processor: byte addresses of 32-bit registers, and status codes."""

import enum
from typing import NamedTuple

from hw.spec.instructions import Unit


class ControlRegister(enum.IntEnum):
    """Byte addresses."""

    IDENTITY = 0x000
    """Machine hash (read only)."""
    PROGRAM_HASH = 0x004
    """Machine hash of the loaded program; start is refused unless it equals IDENTITY."""
    CONTROL = 0x008
    """Write 1: start; bit 1: interrupt enable."""
    STATUS = 0x00C
    """Bit 0 running, bit 1 done, bit 2 error (read only; start clears)."""
    ERROR = 0x010
    """Bits 7:0 `ErrorCode`, bits 11:8 unit, bits 15:12 core, bits 31:16 program counter (read only)."""
    PROMPT_LENGTH = 0x014
    STEPS = 0x018
    """Token steps to run: prompt length + tokens to generate - 1."""
    LENGTH = 0x01C
    """Tokens in the token buffer after the run (read only)."""
    STOP_ENABLE = 0x020
    """Bit i: STOP_TOKEN i is valid."""
    STOP_TOKEN = 0x024
    """Four registers, 0x024 to 0x030."""
    INSTRUCTION_UNIT = 0x034
    """Unit whose instruction memory INSTRUCTION_DATA writes; writing resets the address to 0."""
    INSTRUCTION_DATA = 0x038
    """Next 32 bits, low word first; a full instruction advances the address."""
    COUNTER_SELECT = 0x03C
    """Performance counter that COUNTER_LOW and COUNTER_HIGH show: number + CORE_COUNTERS * core."""
    COUNTER_LOW = 0x040
    COUNTER_HIGH = 0x044
    TOKENS = 0x8000
    """Token buffer, one 32-bit word a position (up to 8192)."""


STOP_TOKENS = 4
CORE_COUNTERS = 32
"""Numbers of performance counters that each core has."""
ADDRESS_BITS = 16


class Counter(enum.IntEnum):
    """Performance counters; unit counters start at BUSY and WAIT plus the unit's number."""

    CYCLES = 0
    BYTES_READ = 1
    """Bytes of each channel."""
    BYTES_WRITTEN = 2
    BUSY = 8
    """+ unit: cycles between issue and end of any instruction of the unit."""
    WAIT = 16
    """+ unit: cycles in which the sequencer waits for tokens."""


class ErrorCode(enum.IntEnum):
    """Why a run stopped."""

    NONE = 0
    ILLEGAL_INSTRUCTION = 1
    PROGRAM_COUNTER = 2
    TOKEN_OVERFLOW = 3
    READ_RESPONSE = 4
    WRITE_RESPONSE = 5
    DEADLOCK = 6
    WRONG_PROGRAM = 7


class RunError(NamedTuple):
    """What the register ERROR says."""

    code: ErrorCode
    core: int
    unit: int
    pc: int


def decode_error(word: int) -> RunError:
    """The parts of the register ERROR."""
    return RunError(ErrorCode(word & 0xFF), word >> 12 & 0xF, word >> 8 & 0xF, word >> 16)


def counters(cores: int = 1) -> list[tuple[str, int]]:
    """Name and number of every performance counter of every core, core by core."""
    names = [
        (c.name.lower(), int(c))
        for c in (Counter.CYCLES, Counter.BYTES_READ, Counter.BYTES_WRITTEN)
    ]
    names += [(f"busy_{u.name.lower()}", Counter.BUSY + u) for u in Unit]
    names += [(f"wait_{u.name.lower()}", Counter.WAIT + u) for u in Unit]
    return [
        (name, number + CORE_COUNTERS * core) for core in range(cores) for name, number in names
    ]
