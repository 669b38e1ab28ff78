"""Changes that no legal program shows, though the module by itself is another: what is known of its inputs says so."""

import re
from collections.abc import Callable

from hw.spec.machine import MachineSpec
from sim_tests.mutation import Mutant

Limit = Callable[[MachineSpec], int]


def _longest_load(spec: MachineSpec) -> int:
    """Words of a load: no more than its destination is deep."""
    return max(spec.stream_words, spec.scale_words, spec.input_words)


BELOW: dict[tuple[str, str], Limit] = {("lpu_writer", "index"): _longest_load}
"""(module, signal) -> what every legal program keeps the signal below.

Fields of instructions are wide enough for any machine, so that the same signals have bits that a small one never
sets.
"""


def explained(mutant: Mutant, spec: MachineSpec) -> str | None:
    """Why no legal program can show a change, or None if nothing is known: a bit is held at zero that always is."""
    held = re.search(r"-mode const0 .*-wire (\S+) -wirebit (\d+)\b", mutant.change)
    limit = BELOW.get((mutant.module, held[1])) if held else None
    if held is None or limit is None or 1 << int(held[2]) < limit(spec):
        return None
    return f"{held[1]} of {mutant.module} is below {limit(spec)} in every legal program"
