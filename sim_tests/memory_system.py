"""Tops of benches in which a unit and the memory models of its channels sit side by side."""

from pathlib import Path
from typing import Any

from amaranth.hdl import Elaboratable, Module, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.core.load import LoadUnit
from hw.core.memory_model import MemoryModel, fault_signature, host_signature
from hw.core.memory_scheduler import timing_signature
from hw.core.ports import operation_layout, read_port, unit_members, write_port
from hw.core.store import StoreUnit
from hw.spec.instructions import Unit
from hw.spec.machine import MachineSpec
from sim_tests.bench import to_verilog

MEMORY_ARRAY = Path(__file__).parent / "verilog" / "memory_array.v"


def system_verilog(component: wiring.Component | Elaboratable) -> str:
    """Verilog of a top that holds memory models, with the module that keeps their content."""
    return to_verilog(component) + MEMORY_ARRAY.read_text()


class LoadSystem(wiring.Component):
    """`LoadUnit` with one `MemoryModel` a channel.

    Members
    -------
    As those of `LoadUnit` except `axi`, and as those of `MemoryModel`: `start` and `timing` shared, `fault`
    and `host` one a channel.
    """

    restart: Value

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        bits = 8 * spec.word_bytes
        super().__init__({
            "i": In(stream.Signature(operation_layout(Unit.LD))),
            **unit_members(Unit.LD),
            "restart": In(1),
            "idle": Out(1),
            "error": Out(1),
            "beat": Out(1),
            "stream": Out(write_port(spec.stream_words, bits)),
            "scale": Out(write_port(spec.scale_words, bits)),
            "input": Out(write_port(spec.input_words, bits)),
            **_memory_members(spec),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.unit = unit = LoadUnit(self.spec)
        for name in ("done", "checksum", "illegal", "idle", "error", "beat"):
            m.d.comb += getattr(self, name).eq(getattr(unit, name))
        m.d.comb += unit.restart.eq(self.restart)
        for name in ("i", "stream", "scale", "input"):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(unit, name))
        for channel, memory in enumerate(_memories(m, self)):
            wiring.connect(m, unit.axi[channel], memory.read)
        return m


class StoreSystem(wiring.Component):
    """`StoreUnit` with one `MemoryModel` a channel.

    Members
    -------
    As those of `StoreUnit` except `axi`, and as those of `MemoryModel`: `start` and `timing` shared, `fault`
    and `host` one a channel.
    """

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        super().__init__({
            "i": In(stream.Signature(operation_layout(Unit.ST))),
            **unit_members(Unit.ST),
            "idle": Out(1),
            "error": Out(1),
            "beat": Out(1),
            "source": Out(read_port(spec.store_rows, 8 * spec.matrix_rows)),
            **_memory_members(spec),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.unit = unit = StoreUnit(self.spec)
        for name in ("done", "checksum", "illegal", "idle", "error", "beat"):
            m.d.comb += getattr(self, name).eq(getattr(unit, name))
        for name in ("i", "source"):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(unit, name))
        for channel, memory in enumerate(_memories(m, self)):
            wiring.connect(m, unit.axi[channel], memory.write)
        return m


def _memory_members(spec: MachineSpec) -> dict[str, wiring.Member]:
    return {
        "start": In(1),
        "timing": In(timing_signature()),
        "fault": In(fault_signature()).array(spec.channels),
        "host": In(host_signature(spec.memory.words, spec.bus_bytes)).array(spec.channels),
    }


def _memories(m: Module, top: Any) -> list[MemoryModel]:
    memories = []
    spec = top.spec
    for channel in range(spec.channels):
        memory = MemoryModel(spec.memory.words, spec.bus_bytes, channel=channel)
        m.submodules[f"memory{channel}"] = memory
        m.d.comb += memory.start.eq(top.start)
        wiring.connect(m, wiring.flipped(top.timing), memory.timing)
        wiring.connect(m, wiring.flipped(top.fault[channel]), memory.fault)
        wiring.connect(m, wiring.flipped(top.host[channel]), memory.host)
        memories.append(memory)
    return memories
