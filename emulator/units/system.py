"""SYS: takes the next token from the prompt or from ARGMAX, and decides when to stop."""

import struct
import zlib
from collections.abc import Mapping

from emulator.state import MachineState


def execute(state: MachineState, operation: Mapping[str, int]) -> int:
    """Set TOKEN and END for `position`; return the checksum of both (see `docs/isa.md`, SYS)."""
    position = operation["position"]
    generated = position >= state.prompt_length
    if generated:
        answered = position - state.prompt_length
        known = answered < len(state.forced)
        state.tokens[position] = state.forced[answered] if known else state.best_index
    state.token = int(state.tokens[position])
    state.end = position >= state.steps or (generated and state.token in state.stop_tokens)
    return zlib.crc32(struct.pack("<II", state.token, int(state.end)))
