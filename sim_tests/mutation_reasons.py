"""What is known of signals that no proof about one module finds out, and mutants that are no change because of it."""

from hw.spec.instructions import Unit
from hw.spec.machine import MachineSpec
from hw.spec.registers import Counter
from sim_tests.mutation import Mutant
from sim_tests.mutation_proof import Scope

CYCLES = 1 << 32
"""No run that is simulated takes so many: it would be one of hours or days."""


def limits(module: str, spec: MachineSpec) -> dict[str, int]:
    """Signals of a module, and what each stays below in every legal program of fewer than `CYCLES` cycles."""
    if module == "lpu_writer":
        # A load is no longer than its destination is deep, though the field for its length is the same in all machines.
        return {"index": max(spec.stream_words, spec.scale_words, spec.input_words)}
    if module == "lpu_control":
        # Each counts at most one a cycle.
        numbers = [Counter.BYTES_READ, Counter.BYTES_WRITTEN]
        numbers += [first + unit for first in (Counter.BUSY, Counter.WAIT) for unit in Unit]
        return {"cycle": CYCLES} | {f"counter{int(number)}": CYCLES for number in numbers}
    return {}


def scope_within_limits(mutant: Mutant, spec: MachineSpec) -> Scope | None:
    """The mutant's module as far as its limits go; None if none are known."""
    known = limits(mutant.module, spec)
    return Scope(mutant.module, False, tuple(known.items())) if known else None
