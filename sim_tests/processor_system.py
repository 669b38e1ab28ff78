"""The processor under the port names of AXI models that expect ids: what `bench_processor_axi` simulates."""

import dataclasses
import json
from importlib.metadata import version
from pathlib import Path

from amaranth.hdl import Cat, Module, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.core.processor import Processor, control_ports, memory_ports, trace_ports
from hw.core.retirement import trace_layout
from hw.spec.instructions import Unit
from hw.spec.machine import MachineSpec
from hw.spec.machine_file import load_machine
from hw.spec.machine_limits import check_machine
from hw.verilog import convert
from sim_tests import toolchain
from sim_tests.simulate import HARDWARE_SOURCES

ID_BITS = 1


class ProcessorSystem(wiring.Component):
    """The processor with transaction ids, which are always 0, and with the units' traces side by side.

    Parameters
    ----------
    spec : MachineSpec
        The machine.

    Members
    -------
    s_axi_*, m_axi_<channel>_*, irq : see `hw.core.processor.Processor`
    m_axi_<channel>_awid, _arid : Out(1)
    m_axi_<channel>_bid, _rid : In(1)
        What comes back is not looked at: transactions of one id come in order.
    trace_* : Out
        Each member of `hw.core.retirement.trace_layout()`, of all units, LD lowest.
    """

    irq: Value

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        members = {name: member for name, (_, member) in control_ports().items()}
        for channel in range(spec.channels):
            members |= {name: member for name, (_, member) in memory_ports(spec, channel).items()}
            members |= {f"m_axi_{channel}_{name}": Out(ID_BITS) for name in ("awid", "arid")}
            members |= {f"m_axi_{channel}_{name}": In(ID_BITS) for name in ("bid", "rid")}
        fields = {str(name): field.width for name, field in trace_layout()}
        members |= {f"trace_{name}": Out(len(Unit) * width) for name, width in fields.items()}
        super().__init__({**members, "irq": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.processor = processor = Processor(self.spec, trace=True)
        ports = control_ports()
        for channel in range(self.spec.channels):
            ports |= memory_ports(self.spec, channel)
        for port, (_, member) in ports.items():
            inner, outer = getattr(processor, port), getattr(self, port)
            m.d.comb += inner.eq(outer) if member.flow == In else outer.eq(inner)
        m.d.comb += self.irq.eq(processor.irq)
        joined: dict[str, list[Value]] = {}
        for port, (*_, name, _) in trace_ports(self.spec).items():
            joined.setdefault(name, []).append(getattr(processor, port))
        m.d.comb += [
            getattr(self, f"trace_{name}").eq(Cat(values)) for name, values in joined.items()
        ]
        return m


def processor_netlist(spec: MachineSpec) -> str:
    """Verilog of a `ProcessorSystem`, its top named `top`; kept between runs, for it takes long to write."""
    own = Path(__file__).read_text()
    key = [json.dumps(spec.to_dict()), version("amaranth"), own, *HARDWARE_SOURCES]

    def build(folder: Path) -> None:
        (folder / "netlist.sv").write_text(convert(ProcessorSystem(spec), "top"))

    cached = toolchain.cached_build(f"netlist_processor_{spec.name}", key, build)
    return (cached / "netlist.sv").read_text()


def shallow_machine(target: str) -> MachineSpec:
    """A bundled target with the shallowest buffers that hold a model of a few thousand weights.

    Rings then wrap many times in a run, and a deadlock shows after a few thousand cycles.
    """
    spec = load_machine(target)
    lanes = {"tiny": 1, "small": 4}[target]
    shallow = dataclasses.replace(
        spec,
        name=f"{target}-shallow",
        stream_words=128,
        scale_words=16,
        input_words=128 // lanes,
        vector_rows=128 // lanes,
        result_rows=256 // lanes,
        activation_rows=128 // lanes,
        store_rows=16 // lanes,
        scalars=16,
        matrix_scales=8,
        instructions=128,
        tokens=32,
        watchdog_cycles=3000,
        memory=dataclasses.replace(spec.memory, words={"tiny": 2048, "small": 1024}[target]),
    )
    return check_machine(shallow, shallow.name)
