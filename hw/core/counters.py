"""Performance counters of all cores."""

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Module, Signal, Value
from amaranth.utils import exact_log2

from hw.core.retirement import CYCLE_BITS
from hw.spec.instructions import Unit
from hw.spec.machine import MachineSpec
from hw.spec.registers import CORE_COUNTERS, Counter

__all__ = ["performance_counters"]


def performance_counters(
    m: Module, spec: MachineSpec, command: Any, statuses: Sequence[Any]
) -> dict[int, Value]:
    """Counters by what COUNTER_SELECT says; they stand still between runs.

    Parameters
    ----------
    command : interface of `hw.core.core_ports.command_signature`
    statuses : sequence of interfaces of `hw.core.core_ports.status_signature`
        Of each core.
    """
    bus_shift = exact_log2(spec.bus_bytes)
    counters: dict[int, Value] = {}
    for core, status in enumerate(statuses):
        first = CORE_COUNTERS * core
        events = {Counter.BYTES_READ: status.beat_read, Counter.BYTES_WRITTEN: status.beat_written}
        events |= {Counter.BUSY + unit: status.busy[unit] for unit in Unit}
        events |= {Counter.WAIT + unit: status.waiting[unit] for unit in Unit}
        counters[first + Counter.CYCLES] = command.cycle
        for number, event in events.items():
            count = Signal(CYCLE_BITS, name=f"counter{first + int(number)}")
            with m.If(command.start):
                m.d.sync += count.eq(0)
            with m.Elif(command.running & event):
                m.d.sync += count.eq(count + 1)
            scaled = number in {Counter.BYTES_READ, Counter.BYTES_WRITTEN}
            counters[first + int(number)] = count << bus_shift if scaled else count
    return counters
