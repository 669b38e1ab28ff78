"""Runs the vector unit's bench in the shapes of both test machines."""

from typing import Any

import pytest
from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.core.ports import operation_layout, unit_members
from hw.core.vector import OPERANDS, VectorUnit
from hw.core.vector_reduce import INDEX_BITS
from hw.core.vector_write import vector_write_ports
from hw.spec.instructions import Unit
from hw.spec.machine import MachineSpec
from sim_tests.bench import run_bench
from sim_tests.vector_operations import bench_machine

BENCH = "sim_tests.bench_vector"


class VectorHarness(wiring.Component):
    """A vector unit with its buffers, which can be loaded; its write ports can be watched.

    Members
    -------
    load, load_select, load_address, load_data : In
        Write a row of the input, vector, result or scalar buffer; one bit of `load_select` for each.
    active : Out(1)
        There is a write, an end or an illegal operation in this cycle.
    """

    i: Any
    done: Any
    checksum: Any
    illegal: Any
    best_index: Any
    load: Any
    load_select: Any
    load_address: Any
    load_data: Any
    active: Any

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        super().__init__({
            "i": In(stream.Signature(operation_layout(Unit.SFU))),
            **unit_members(Unit.SFU),
            "best_index": Out(INDEX_BITS),
            "load": In(1),
            "load_select": In(4),
            "load_address": In(16),
            "load_data": In(32 * spec.lanes),
            "active": Out(1),
            **{name: Out(port) for name, port in vector_write_ports(spec).items()},
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.unit = unit = VectorUnit(self.spec)
        connect(m, flipped(self.i), unit.i)
        m.d.comb += [
            self.done.eq(unit.done),
            self.checksum.eq(unit.checksum),
            self.illegal.eq(unit.illegal),
            self.best_index.eq(unit.best_index),
        ]
        writes = [getattr(self, name) for name in vector_write_ports(self.spec)]
        for name in vector_write_ports(self.spec):
            connect(m, flipped(getattr(self, name)), getattr(unit, name))
        active = self.done | self.illegal
        for port in writes:
            active |= port.enable.any()
        m.d.comb += self.active.eq(active)
        wide = 32 * self.spec.lanes
        self._buffer(m, unit, "input", wide, self.spec.input_words * self.spec.word_rows, 0)
        self._buffer(m, unit, "vector", wide, self.spec.vector_rows, 1)
        self._buffer(m, unit, "result", wide, self.spec.result_rows, 2)
        self._buffer(m, unit, "scalar", 32, self.spec.scalars, 3)
        return m

    def _buffer(
        self, m: Module, unit: VectorUnit, name: str, width: int, depth: int, select: int
    ) -> None:
        m.submodules[name] = buffer = memory.Memory(shape=width, depth=depth, init=[])
        written = getattr(self, name, None) if name in vector_write_ports(self.spec) else None
        write = buffer.write_port()
        load = Signal(name=f"{name}_load")
        m.d.comb += load.eq(self.load & self.load_select[select])
        if written is None:
            m.d.comb += [
                write.en.eq(load),
                write.addr.eq(self.load_address),
                write.data.eq(self.load_data),
            ]
        else:
            m.d.comb += [
                write.en.eq(load | written.enable),
                write.addr.eq(Mux(load, self.load_address, written.address)),
                write.data.eq(Mux(load, self.load_data, written.data)),
            ]
        for operand in OPERANDS:
            read = buffer.read_port()
            port = getattr(unit, f"{operand}_{name}")
            m.d.comb += [read.addr.eq(port.address), port.data.eq(read.data)]


SHAPES = {
    "tiny": bench_machine("tiny"),
    "small": bench_machine("small"),
    "narrow": bench_machine("narrow"),
}


@pytest.mark.parametrize("target", list(SHAPES))
def test_vector(target: str) -> None:
    result = run_bench(
        f"vector_{target}",
        lambda: VectorHarness(SHAPES[target]),
        BENCH,
        parameters={"target": target, "rounds": 3, "operations": 60},
    )
    assert result.tests == 5
