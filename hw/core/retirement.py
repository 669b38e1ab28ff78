"""What is kept of an instruction from issue to end, and what is reported when it retires."""

from amaranth.lib import data

from hw.core.operands import INDEX_BITS
from hw.spec.instructions import (
    LOOP_DEPTH,
    Unit,
)
from hw.spec.machine import MachineSpec

PC_BITS = 13
"""Program counters: the twelve bits of a target, and one for running off the end."""
CYCLE_BITS = 48


def in_flight(spec: MachineSpec, unit: Unit) -> int:
    """Instructions between issue and end that are kept; the unit itself never accepts more."""
    return max(16, 4 * spec.read_outstanding) if unit == Unit.LD else 1


def flight_layout(trace: bool) -> data.StructLayout:
    """What is kept of an instruction from issue to end: all of it where it is traced."""
    fields = {"signal": len(Unit), "pc": PC_BITS}
    if trace:
        fields |= {
            "issue": CYCLE_BITS,
            **{f"index{level}": INDEX_BITS for level in range(LOOP_DEPTH)},
        }
    return data.StructLayout(fields)


def trace_layout() -> data.StructLayout:
    """One entry of the retirement trace; `checksum` and the end cycle accompany it."""
    indices = {f"index{level}": INDEX_BITS for level in range(LOOP_DEPTH)}
    return data.StructLayout({
        "valid": 1,
        "pc": PC_BITS,
        **indices,
        "issue": CYCLE_BITS,
        "end": CYCLE_BITS,
        "checksum": 32,
    })
