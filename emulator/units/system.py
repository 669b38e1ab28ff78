"""SYS: takes the next token from the prompt or from ARGMAX, and decides when to stop."""

import struct
import zlib
from collections.abc import Mapping, Sequence

from emulator.state import BEST_KEY, BEST_KNOWN, MachineState

__all__ = ["execute", "execute_cores"]


def execute(state: MachineState, operation: Mapping[str, int]) -> int:
    """Apply an operation of SYS on a machine of one core; see `execute_cores`."""
    return execute_cores([state], operation)


def execute_cores(states: Sequence[MachineState], operation: Mapping[str, int]) -> int:
    """Set TOKEN and END of all cores for `position`; the checksum of both (see `docs/isa.md`, SYS)."""
    first, position = states[0], operation["position"]
    generated = position >= first.prompt_length
    token = int(first.tokens[position % len(first.tokens)])
    if generated:
        answered = position - first.prompt_length
        known = answered < len(first.forced)
        token = first.forced[answered] if known else best_token(states)
    end = position >= first.steps or (generated and token in first.stop_tokens)
    for state in states:
        if generated:
            state.tokens[position % len(state.tokens)] = token
        state.token, state.end = token, end
    return zlib.crc32(struct.pack("<II", token, int(end)))


def best_token(states: Sequence[MachineState]) -> int:
    """Number of the largest ARGMAX value of all cores, the lowest on a tie."""
    candidates = [
        # A core that has seen no element is behind all others.
        (-int(s.registers[BEST_KNOWN]), -int(s.registers[BEST_KEY]), s.best_index * len(states) + i)
        for i, s in enumerate(states)
    ]
    return min(candidates)[2]
