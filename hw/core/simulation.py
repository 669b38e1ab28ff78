"""The processor with its memory channels beside it: what `sim_tests.simulate` builds."""

from amaranth.hdl import Cat, ClockSignal, Instance, Module, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.core.axi import axi_read
from hw.core.memory_model import MemoryModel, fault_signature
from hw.core.memory_scheduler import TIMING_FIELDS
from hw.core.processor import Processor, control_ports, memory_ports, trace_ports
from hw.spec.instructions import Unit
from hw.spec.machine import MachineSpec
from hw.spec.wires import Wires

FAULT_BITS = ("enable", "stall")
"""Inputs of faults that each core has its own bit of."""


class Simulation(wiring.Component):
    """Processor and memory, with the memory's timing as an input, so that one build serves all timings.

    The Verilog also needs `memory_array.v` (content of a channel) and `trace_writer.sv` of `sim_tests/verilog`.

    Parameters
    ----------
    spec : MachineSpec
        The machine.
    memory_words : int or None
        Capacity of the simulated memory, a power of two; that of the machine if None.
    wires : Wires or None
        Weights of the machine's hardwired matrices.

    Members
    -------
    s_axi_*, irq : see `hw.core.processor.Processor`
    timing_* : In
        Members of `hw.core.memory_scheduler.timing_signature`, of all channels; constant during a run.
    fault_enable, fault_address, fault_stall : In
        Errors to inject, see `hw.core.memory_model.fault_signature`; enable and stall have a bit for each core.
    """

    irq: Value

    def __init__(
        self, spec: MachineSpec, memory_words: int | None = None, wires: Wires | None = None
    ) -> None:
        self.spec = spec
        self.wires = wires
        self.memory_words = memory_words or spec.memory.words
        members = {name: member for name, (_, member) in control_ports().items()}
        members |= {f"timing_{name}": In(width) for name, width in TIMING_FIELDS.items()}
        members |= {
            f"fault_{name}": In(spec.cores if name in FAULT_BITS else member.shape)
            for name, member in fault_signature().members.items()
        }
        super().__init__({**members, "irq": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        m.submodules.processor = processor = Processor(spec, trace=True, wires=self.wires)
        for port, (_, member) in control_ports().items():
            inner, outer = getattr(processor, port), getattr(self, port)
            m.d.comb += inner.eq(outer) if member.flow == In else outer.eq(inner)
        m.d.comb += self.irq.eq(processor.irq)
        for number in range(spec.cores * spec.channels):
            memory = MemoryModel(self.memory_words, spec.bus_bytes, channel=number)
            m.submodules[f"memory{number}"] = memory
            self._memory(m, processor, memory, number)

        # One line of a file for each retirement, written by the simulator itself; unit u of core k is number 5 k + u.
        joined: dict[str, list[Value]] = {}
        for port, (*_, name, _) in trace_ports(spec).items():
            joined.setdefault(name, []).append(getattr(processor, port))
        ports = {f"i_{name}": Cat(values) for name, values in joined.items()}
        m.submodules.trace = Instance(
            "trace_writer", p_UNITS=spec.cores * len(Unit), i_clk=ClockSignal(), **ports
        )
        return m

    def _memory(self, m: Module, processor: Processor, memory: MemoryModel, number: int) -> None:
        reads = axi_read(self.spec.bus_bytes).members
        for port, (name, member) in memory_ports(self.spec, number).items():
            outer = getattr(processor, port)
            inner = getattr(memory.read if name in reads else memory.write, name)
            m.d.comb += inner.eq(outer) if member.flow == Out else outer.eq(inner)
        m.d.comb += memory.start.eq(processor.trace_start)
        m.d.comb += [
            getattr(memory.timing, name).eq(getattr(self, f"timing_{name}"))
            for name in TIMING_FIELDS
        ]
        core = number // self.spec.channels
        for name in fault_signature().members:
            fault = getattr(self, f"fault_{name}")
            m.d.comb += getattr(memory.fault, name).eq(fault[core] if name in FAULT_BITS else fault)
