"""The flight processor: its cores, the network between them, and the host control."""

from typing import Any

from amaranth.hdl import Cat, Module, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import Out, connect

from hw.core.axi import axi_read, axi_write
from hw.core.axi_lite import axi_lite
from hw.core.control import Control
from hw.core.core import Core, add_core, core_signature, join
from hw.core.exchange import Exchange, RowResults, TokenChoice
from hw.core.restart import restart_domain
from hw.core.retirement import trace_layout
from hw.sharing import repeated
from hw.spec.instructions import Unit
from hw.spec.machine import MachineSpec
from hw.spec.wires import Wires


def control_ports() -> dict[str, tuple[str, wiring.Member]]:
    """The AXI4-Lite port of the processor: port name -> member of `axi_lite()` and its direction."""
    return {f"s_axi_{name}": (name, member.flip()) for name, member in axi_lite().members.items()}


def memory_ports(spec: MachineSpec, number: int) -> dict[str, tuple[str, wiring.Member]]:
    """An AXI4 port: port name -> member of `axi_read()` or `axi_write()` and its direction.

    Channel c of core k is number `k * channels + c`.
    """
    members = [
        *axi_read(spec.bus_bytes).members.items(),
        *axi_write(spec.bus_bytes).members.items(),
    ]
    return {f"m_axi_{number}_{name}": (name, member) for name, member in members}


def trace_ports(spec: MachineSpec) -> dict[str, tuple[int, Unit, str, wiring.Member]]:
    """Ports of the retirement trace: port name -> core, unit, member of `trace_layout()`, direction.

    The number of the core is part of the name if there are several.
    """
    return {
        f"trace_{f'{core}_' if spec.cores > 1 else ''}{unit.name.lower()}_{name}": (
            core,
            unit,
            str(name),
            Out(field.shape),
        )
        for core in range(spec.cores)
        for unit in Unit
        for name, field in trace_layout()
    }


class Processor(wiring.Component):
    """All cores: an AXI4-Lite slave for the host, an AXI4 master a memory channel.

    Parameters
    ----------
    spec : MachineSpec
        The machine.
    trace : bool
        Adds the retirement trace as ports, for simulation.
    wires : Wires or None
        Weights of the machine's hardwired matrices; their networks are modules of their own (`hw.wires_verilog`).
    vendor : bool
        DSP slices are primitives, for vendor tools, and not their behaviour; nothing else differs.

    Members
    -------
    s_axi_* : In(axi_lite())
        Register map of `hw.spec.registers`.
    m_axi_<number>_* : Out(axi_read(bus_bytes)), Out(axi_write(bus_bytes))
        Memory channels, core by core; all of a core carry the same transfers, each its part of every word.
    irq : Out(1)
        High from the end of a run to the next start, if enabled.
    trace_start : Out(1)
        Cycle 0 of a run.
    trace_<unit>_*, trace_<core>_<unit>_* : Out
        Members of `hw.core.retirement.trace_layout()`; what `valid` accompanies retires in this cycle.
    """

    irq: Value
    trace_start: Value

    def __init__(
        self,
        spec: MachineSpec,
        trace: bool = False,
        wires: Wires | None = None,
        *,
        vendor: bool = False,
    ) -> None:
        self.spec = spec
        self.trace = trace
        self.wires = wires
        self.vendor = vendor
        members = {name: member for name, (_, member) in control_ports().items()}
        for number in range(spec.cores * spec.channels):
            members |= {name: member for name, (_, member) in memory_ports(spec, number).items()}
        members["irq"] = Out(1)
        if trace:
            members["trace_start"] = Out(1)
            members |= {name: member for name, (*_, member) in trace_ports(spec).items()}
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        m.submodules.control = control = Control(spec)
        cores: list[Any]
        if spec.cores == 1:
            cores = [core_signature(spec).create(path=("core",))]
            add_core(m, cores[0], spec, self.trace, self.wires, vendor=self.vendor)
        else:
            cores = [
                Core(spec, self.trace, self.wires, vendor=self.vendor) for _ in range(spec.cores)
            ]
            for number, core in enumerate(cores):
                rows = spec.cores * spec.matrix_rows
                m.submodules[f"core{number}"] = repeated(core, platform, rows)
            self._network(m, control, cores)
        connect(m, control.command, *(core.command for core in cores))
        for number, core in enumerate(cores):
            connect(m, control.status[number], core.status)
        # All cores' token buffers have the same content.
        connect(m, control.token_read, cores[0].token_read)
        m.d.comb += control.length.eq(cores[0].length)
        self._ports(m, control, cores)
        return m

    def _network(self, m: Module, control: Control, cores: list[Any]) -> None:
        """Exchanges and tokens of all cores."""
        exchange = Exchange(self.spec)
        # Nothing that an earlier run left under way may come in.
        network = restart_domain(m, "network", control.command.start)
        m.submodules.exchange = network(exchange)
        results = RowResults(self.spec)
        m.submodules.row_results = network(results)
        m.submodules.token_choice = choice = TokenChoice(self.spec)
        token_go = Cat(core.token_offer for core in cores).all()
        m.d.comb += exchange.offer.eq(Cat(core.offer for core in cores))
        for number, core in enumerate(cores):
            m.d.comb += [
                core.go.eq(exchange.go),
                exchange.sent[number].eq(core.sent),
                core.received.eq(exchange.o),
                results.result[number].eq(core.sent_result),
                core.received_result.eq(results.o),
                core.token_go.eq(token_go),
                choice.key[number].eq(core.best_key),
                choice.index[number].eq(core.best_index),
                core.token.eq(choice.o),
            ]

    def _ports(self, m: Module, control: Control, cores: list[Any]) -> None:
        spec = self.spec
        for port, (name, member) in control_ports().items():
            join(m, getattr(self, port), getattr(control.bus, name), member)
        reads = axi_read(spec.bus_bytes).members
        for number in range(spec.cores * spec.channels):
            core, channel = cores[number // spec.channels], number % spec.channels
            for port, (name, member) in memory_ports(spec, number).items():
                side: Any = core.read[channel] if name in reads else core.write[channel]
                join(m, getattr(self, port), getattr(side, name), member)
        m.d.comb += self.irq.eq(control.irq)
        if self.trace:
            m.d.comb += self.trace_start.eq(control.command.start)
            for port, (number, unit, name, _) in trace_ports(spec).items():
                m.d.comb += getattr(self, port).eq(cores[number].retirement[unit][name])
