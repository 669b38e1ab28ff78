"""One core of the flight processor: units, sequencers and buffers, with memory channels of its own."""

from typing import Any

from amaranth.hdl import Module, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.core.axi import axi_read, axi_write
from hw.core.buffers import ActivationBuffer, Buffer, InputBuffer, StreamRing
from hw.core.core_ports import command_signature, neighbour_members, status_signature
from hw.core.load import LoadUnit
from hw.core.matrix import STREAM_PAIR, MatrixEngine
from hw.core.operands import REGISTER_BITS
from hw.core.ports import read_port
from hw.core.restart import restart_domain
from hw.core.retirement import trace_layout
from hw.core.sequencer import Sequencer
from hw.core.store import StoreUnit
from hw.core.system import TOKEN_BITS, SystemUnit
from hw.core.tokens import Tokens
from hw.core.vector import VectorUnit, exchange_members
from hw.spec.instructions import Unit
from hw.spec.machine import MachineSpec
from hw.spec.wires import Wires

__all__ = ["Core", "add_core", "core_signature", "join"]

OPERANDS = ("a", "b", "c")


def join(m: Module, outer: Value, inner: Value, member: wiring.Member) -> None:
    """Connect a port to the signal of the component that is behind it; `member` has the port's direction."""
    if member.flow == In:
        m.d.comb += inner.eq(outer)
    else:
        m.d.comb += outer.eq(inner)


def core_signature(spec: MachineSpec) -> wiring.Signature:
    """What a core has to do with the rest.

    Members
    -------
    command : In(command_signature(spec))
    status : Out(status_signature())
    token_read : In(read_port)
        The token buffer, while no run lasts.
    length : Out(21)
        Of the SYS unit.
    read, write : Out(axi_read(bus_bytes)), Out(axi_write(bus_bytes)), arrays by channel
    retirement : Out(trace_layout()), an array by unit
    offer, go, sent, received, sent_result, received_result, token_offer, token_go, best_key, best_index, token
        With several cores: see `hw.core.core_ports.neighbour_members`.
    """
    return wiring.Signature({
        "command": In(command_signature(spec)),
        "status": Out(status_signature()),
        "token_read": In(read_port(spec.tokens, TOKEN_BITS)),
        "length": Out(REGISTER_BITS + 1),
        "read": Out(axi_read(spec.bus_bytes)).array(spec.channels),
        "write": Out(axi_write(spec.bus_bytes)).array(spec.channels),
        "retirement": Out(trace_layout()).array(len(Unit)),
        **neighbour_members(spec),
    })


class Core(wiring.Component):
    """Units, sequencers and buffers; what to do comes from the host control, what happens goes there.

    Parameters
    ----------
    spec : MachineSpec
        The machine.
    trace : bool
        Whether `retirement` reports every retirement; otherwise it stays 0 and costs nothing.
    wires : Wires, optional
        Matrices in wires, where the machine has them.
    vendor : bool
        DSP slices are primitives, for vendor tools, and not their behaviour.

    Members
    -------
    See `core_signature`.
    """

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
        super().__init__(core_signature(spec))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        add_core(m, self, self.spec, self.trace, self.wires, vendor=self.vendor)
        return m


def add_core(
    m: Module,
    core: Any,
    spec: MachineSpec,
    trace: bool,
    wires: Wires | None = None,
    *,
    vendor: bool = False,
) -> None:
    """Add a core to a module that may hold more: one core alone needs no level of the hierarchy for it.

    Parameters
    ----------
    core : interface of `core_signature(spec)`
    spec, trace, wires, vendor
        See `Core`.
    """
    command, status = core.command, core.status
    m.submodules.tokens = tokens = Tokens()
    matrix: Any = MatrixEngine(spec, vendor=vendor, wires=wires)
    m.submodules.load = load = LoadUnit(spec)
    m.submodules.store = store = StoreUnit(spec)
    # Load and store have to end what they have begun on the bus.
    run = restart_domain(m, "run", command.start)
    vector, system = VectorUnit(spec), SystemUnit(spec)
    m.submodules.matrix = run(matrix)
    m.submodules.vector = run(vector)
    m.submodules.system = run(system)
    units = {
        Unit.LD: load,
        Unit.ST: store,
        Unit.MPE: matrix,
        Unit.SFU: vector,
        Unit.SYS: system,
    }
    for unit, component in units.items():
        _sequencer(m, core, Sequencer(spec, unit, trace), component, tokens, system)
    _buffers(m, spec, load, store, matrix, vector)
    _system(m, core, spec, system, vector)
    for channel in range(spec.channels):
        connect(m, flipped(core.read[channel]), load.axi[channel])
        connect(m, flipped(core.write[channel]), store.axi[channel])
    m.d.comb += [
        tokens.clear.eq(command.start),
        load.restart.eq(command.start),
        status.overflow.eq(tokens.overflow),
        status.settled.eq(load.idle & store.idle),
        status.read_error.eq(load.error),
        status.write_error.eq(store.error),
        status.beat_read.eq(load.beat),
        status.beat_written.eq(store.beat),
    ]


def _system(
    m: Module, core: Any, spec: MachineSpec, system: SystemUnit, vector: VectorUnit
) -> None:
    """The SYS unit, and what it and the vector unit have to do with other cores."""
    command = core.command
    connect(m, flipped(core.token_read), system.host_read)
    connect(m, flipped(command.token_write), system.host_write)
    m.d.comb += [
        core.length.eq(system.length),
        system.running.eq(command.running),
        system.prompt_length.eq(command.prompt_length),
        system.steps.eq(command.steps),
        system.stop_enable.eq(command.stop_enable),
        *(
            mine.eq(theirs)
            for mine, theirs in zip(system.stop_token, command.stop_token, strict=True)
        ),
    ]
    if spec.cores == 1:
        m.d.comb += system.best_index.eq(vector.best_index)
        return
    for name, member in exchange_members(spec).items():
        join(m, getattr(core, name), getattr(vector, name), member)
    m.d.comb += [
        core.token_offer.eq(system.offer),
        system.go.eq(core.token_go),
        core.best_key.eq(vector.best_key),
        core.best_index.eq(vector.best_index),
        system.best_index.eq(core.token),
    ]


def _sequencer(
    m: Module,
    core: Any,
    sequencer: Sequencer,
    component: Any,
    tokens: Tokens,
    system: SystemUnit,
) -> None:
    command, status, unit = core.command, core.status, sequencer.unit
    m.submodules[f"sequencer_{unit.name.lower()}"] = sequencer
    connect(m, sequencer.o, component.i)
    connect(m, flipped(getattr(command, f"instruction{int(unit)}")), sequencer.instruction)
    m.d.comb += [
        sequencer.start.eq(command.start),
        sequencer.stop.eq(~command.running),
        sequencer.cycle.eq(command.cycle),
        sequencer.prompt_length.eq(command.prompt_length),
        sequencer.steps.eq(command.steps),
        sequencer.token.eq(system.token),
        sequencer.ended.eq(system.ended),
        sequencer.available.eq(tokens.available[unit]),
        sequencer.done.eq(component.done),
        sequencer.checksum.eq(component.checksum),
        sequencer.refused.eq(component.illegal),
        tokens.take[unit].eq(sequencer.take),
        tokens.send[unit].eq(sequencer.send),
        status.idle[unit].eq(sequencer.idle),
        status.retired[unit].eq(component.done),
        status.busy[unit].eq(sequencer.busy),
        status.waiting[unit].eq(sequencer.waiting),
        status.illegal[unit].eq(sequencer.illegal),
        status.outside[unit].eq(sequencer.outside),
        status.pc[unit].eq(sequencer.pc),
        status.oldest_pc[unit].eq(sequencer.oldest_pc),
    ]
    if sequencer.held:
        m.d.comb += sequencer.hold.eq(component.hold)
    if sequencer.traced:
        m.d.comb += core.retirement[unit].eq(sequencer.retirement)


def _buffers(
    m: Module,
    spec: MachineSpec,
    load: LoadUnit,
    store: StoreUnit,
    matrix: MatrixEngine,
    vector: Any,
) -> None:
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
    m.submodules.store_buffer = stored = Buffer(spec.store_rows, 8 * spec.matrix_rows, stored_bits)

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
