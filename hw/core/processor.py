"""The flight processor: units, sequencers, buffers and host control of one core."""

from typing import Any

from amaranth.hdl import Module, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect

from hw.core.axi import axi_read, axi_write
from hw.core.axi_lite import axi_lite
from hw.core.buffers import ActivationBuffer, Buffer, InputBuffer, StreamRing
from hw.core.control import Control
from hw.core.load import LoadUnit
from hw.core.matrix import STREAM_PAIR, MatrixEngine
from hw.core.sequencer import Sequencer, trace_layout
from hw.core.store import StoreUnit
from hw.core.system import SystemUnit
from hw.core.tokens import Tokens
from hw.core.vector import VectorUnit
from hw.spec.errors import InputError
from hw.spec.instructions import Unit
from hw.spec.machine import MachineSpec

OPERANDS = ("a", "b", "c")


def control_ports() -> dict[str, tuple[str, wiring.Member]]:
    """The AXI4-Lite port of the processor: port name -> member of `axi_lite()` and its direction."""
    return {f"s_axi_{name}": (name, member.flip()) for name, member in axi_lite().members.items()}


def memory_ports(spec: MachineSpec, channel: int) -> dict[str, tuple[str, wiring.Member]]:
    """The AXI4 port of a channel: port name -> member of `axi_read()` or `axi_write()` and its direction."""
    members = [
        *axi_read(spec.bus_bytes).members.items(),
        *axi_write(spec.bus_bytes).members.items(),
    ]
    return {f"m_axi_{channel}_{name}": (name, member) for name, member in members}


def trace_ports() -> dict[str, tuple[Unit, str, wiring.Member]]:
    """Ports of the retirement trace: port name -> unit, member of `trace_layout()`, direction."""
    return {
        f"trace_{unit.name.lower()}_{name}": (unit, str(name), Out(field.shape))
        for unit in Unit
        for name, field in trace_layout()
    }


class Processor(wiring.Component):
    """One core: an AXI4-Lite slave for the host, an AXI4 master a memory channel.

    Parameters
    ----------
    spec : MachineSpec
        The machine.
    trace : bool
        Adds the retirement trace as ports, for simulation.

    Members
    -------
    s_axi_* : In(axi_lite())
        Register map of `hw.spec.registers`.
    m_axi_<channel>_* : Out(axi_read(bus_bytes)), Out(axi_write(bus_bytes))
        Memory channels; all carry the same transfers, each its part of every word.
    irq : Out(1)
        High from the end of a run to the next start, if enabled.
    trace_start : Out(1)
        Cycle 0 of a run.
    trace_<unit>_* : Out
        Members of `hw.core.sequencer.trace_layout()`; what `valid` accompanies retires in this cycle.
    """

    irq: Value
    trace_start: Value

    def __init__(self, spec: MachineSpec, trace: bool = False) -> None:
        if spec.cores > 1:
            raise InputError(
                f"target {spec.name}: cores: hardware of {spec.cores} cores cannot be generated yet, only emulated"
            )
        self.spec = spec
        self.trace = trace
        members = {name: member for name, (_, member) in control_ports().items()}
        for channel in range(spec.channels):
            members |= {name: member for name, (_, member) in memory_ports(spec, channel).items()}
        members["irq"] = Out(1)
        if trace:
            members["trace_start"] = Out(1)
            members |= {name: member for name, (_, _, member) in trace_ports().items()}
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        m.submodules.control = control = Control(spec)
        m.submodules.tokens = tokens = Tokens()
        engine: Any = MatrixEngine(spec)
        m.submodules.load = load = LoadUnit(spec)
        m.submodules.store = store = StoreUnit(spec)
        m.submodules.matrix = matrix = engine
        m.submodules.vector = vector = VectorUnit(spec)
        m.submodules.system = system = SystemUnit(spec)
        units = {
            Unit.LD: load,
            Unit.ST: store,
            Unit.MPE: matrix,
            Unit.SFU: vector,
            Unit.SYS: system,
        }
        for unit, component in units.items():
            self._sequencer(m, unit, component, control, tokens, system)
        self._buffers(m, load, store, matrix, vector)
        self._ports(m, control, load, store)
        connect(m, control.token_read, system.host_read)
        connect(m, control.token_write, system.host_write)
        m.d.comb += [
            tokens.clear.eq(control.start),
            control.overflow.eq(tokens.overflow),
            control.settled.eq(load.idle & store.idle),
            control.read_error.eq(load.error),
            control.write_error.eq(store.error),
            control.beat_read.eq(load.beat),
            control.beat_written.eq(store.beat),
            control.length.eq(system.length),
            system.running.eq(control.running),
            system.prompt_length.eq(control.prompt_length),
            system.steps.eq(control.steps),
            system.stop_enable.eq(control.stop_enable),
            system.best_index.eq(vector.best_index),
            *(
                mine.eq(theirs)
                for mine, theirs in zip(system.stop_token, control.stop_token, strict=True)
            ),
        ]
        return m

    def _sequencer(
        self,
        m: Module,
        unit: Unit,
        component: Any,
        control: Control,
        tokens: Tokens,
        system: SystemUnit,
    ) -> None:
        sequencer = Sequencer(self.spec, unit, self.trace)
        m.submodules[f"sequencer_{unit.name.lower()}"] = sequencer
        connect(m, sequencer.o, component.i)
        connect(m, getattr(control, f"instruction{int(unit)}"), sequencer.instruction)
        m.d.comb += [
            component.restart.eq(control.start),
            sequencer.start.eq(control.start),
            sequencer.stop.eq(~control.running),
            sequencer.cycle.eq(control.cycle),
            sequencer.prompt_length.eq(control.prompt_length),
            sequencer.steps.eq(control.steps),
            sequencer.token.eq(system.token),
            sequencer.ended.eq(system.ended),
            sequencer.available.eq(tokens.available[unit]),
            sequencer.done.eq(component.done),
            sequencer.checksum.eq(component.checksum),
            sequencer.refused.eq(component.illegal),
            tokens.take[unit].eq(sequencer.take),
            tokens.send[unit].eq(sequencer.send),
            control.idle[unit].eq(sequencer.idle),
            control.retired[unit].eq(component.done),
            control.busy[unit].eq(sequencer.busy),
            control.waiting[unit].eq(sequencer.waiting),
            control.illegal[unit].eq(sequencer.illegal),
            control.outside[unit].eq(sequencer.outside),
            control.pc[unit].eq(sequencer.pc),
            control.oldest_pc[unit].eq(sequencer.oldest_pc),
        ]
        if self.trace:
            for port, (owner, name, _) in trace_ports().items():
                if owner == unit:
                    m.d.comb += getattr(self, port).eq(sequencer.retirement[name])

    def _buffers(
        self, m: Module, load: LoadUnit, store: StoreUnit, matrix: MatrixEngine, vector: Any
    ) -> None:
        spec = self.spec
        word_bits = 8 * spec.word_bytes
        m.submodules.stream_ring = stream_ring = StreamRing(
            spec.stream_words, word_bits, spec.stream_alignment == STREAM_PAIR
        )
        m.submodules.scale_ring = scale_ring = Buffer(spec.scale_words, word_bits)
        row_bits = 32 * spec.lanes
        m.submodules.input_buffer = inputs = InputBuffer(
            spec.input_words, word_bits, spec.word_rows, readers=3
        )
        m.submodules.vector_buffer = vectors = Buffer(spec.vector_rows, row_bits, readers=3)
        drained_bits = 32 * spec.drain_lanes
        m.submodules.result_buffer = results = Buffer(
            spec.result_rows, row_bits, drained_bits, readers=3
        )
        m.submodules.scalar_file = scalars = Buffer(spec.scalars, 32, readers=3)
        m.submodules.activation_buffer = activations = ActivationBuffer(
            spec.activation_rows,
            spec.lanes,
            spec.activation_row_bytes,
            spec.matrix_columns,
        )
        m.submodules.matrix_scales = matrix_scales = Buffer(spec.matrix_scales, 32)
        stored_bits = 8 * min(spec.lanes, 4)
        m.submodules.store_buffer = stored = Buffer(
            spec.store_rows, 8 * spec.matrix_rows, stored_bits
        )

        connect(m, load.stream, stream_ring.write)
        connect(m, load.scale, scale_ring.write)
        connect(m, load.input, inputs.write)
        connect(m, vector.vector, vectors.write)
        connect(m, vector.scalar, scalars.write)
        connect(m, vector.activation, activations.write)
        connect(m, vector.store, stored.write)
        connect(m, vector.matrix_scale, matrix_scales.write)
        connect(m, matrix.results, results.write)
        connect(m, matrix.stream, stream_ring.read)
        connect(m, matrix.scales, scale_ring.read[0])
        for column in range(spec.matrix_columns):
            connect(m, matrix.activations[column], activations.read[column])
        connect(m, matrix.output_scales, matrix_scales.read[0])
        connect(m, store.source, stored.read[0])
        for number, operand in enumerate(OPERANDS):
            for name, buffer in (
                ("input", inputs),
                ("vector", vectors),
                ("result", results),
                ("scalar", scalars),
            ):
                connect(m, getattr(vector, f"{operand}_{name}"), buffer.read[number])

    def _ports(self, m: Module, control: Control, load: LoadUnit, store: StoreUnit) -> None:
        for port, (name, member) in control_ports().items():
            _join(m, getattr(self, port), getattr(control.bus, name), member)
        for channel in range(self.spec.channels):
            reads, writes = load.axi[channel], store.axi[channel]
            for port, (name, member) in memory_ports(self.spec, channel).items():
                side = reads if name in axi_read(self.spec.bus_bytes).members else writes
                _join(m, getattr(self, port), getattr(side, name), member)
        m.d.comb += self.irq.eq(control.irq)
        if self.trace:
            m.d.comb += self.trace_start.eq(control.start)


def _join(m: Module, outer: Value, inner: Value, member: wiring.Member) -> None:
    """Connect a port to the signal of the component that is behind it; `member` has the port's direction."""
    if member.flow == In:
        m.d.comb += inner.eq(outer)
    else:
        m.d.comb += outer.eq(inner)
