"""Load unit: AXI4 read bursts of all channels in lockstep to the rings and the input buffer."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.core.axi import axi_read
from hw.core.load_requests import LoadRequests
from hw.core.load_writer import LoadWriter, load_layout
from hw.core.ports import operation_layout, unit_members, write_port
from hw.spec.instructions import Destination, Unit
from hw.spec.machine import MachineSpec

INCREMENTING = 1
"""AxBURST of bursts with rising addresses."""


class LoadUnit(wiring.Component):
    """Executes LD: requests bursts, and writes what comes to a ring or to the input buffer.

    The front end requests bursts and takes the next instruction when the last burst of the one before is
    accepted; the back end writes one word a cycle and ends instructions in order, `LOAD_CYCLES` behind
    their last beats. A word is taken when all channels show a beat, so channels may differ in latency.

    Parameters
    ----------
    spec : MachineSpec

    Members
    -------
    i : In(stream.Signature(operation_layout(Unit.LD)))
    done, checksum, illegal : Out
        See `hw.core.ports.unit_members`.
    restart : In(1)
        Return the write pointers of both rings to zero; no instruction may be under way.
    idle : Out(1)
        No instruction is under way.
    error : Out(1)
        High for one cycle for each word with a response other than OKAY. The word counts as if it were good.
    beat : Out(1)
        A word was taken.
    axi : Out(axi_read(bus_bytes)).array(channels)
    stream, scale, input : Out(write_port)
    """

    i: stream.Interface
    done: Value
    checksum: Value
    illegal: Value
    restart: Value
    idle: Value
    error: Value
    beat: Value
    axi: list[Any]
    stream: Any
    scale: Any
    input: Any

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
            "axi": Out(axi_read(spec.bus_bytes)).array(spec.channels),
            "stream": Out(write_port(spec.stream_words, bits)),
            "scale": Out(write_port(spec.scale_words, bits)),
            "input": Out(write_port(spec.input_words, bits)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.requests = requests = LoadRequests(self.spec)
        m.submodules.queue = queue = fifo.SyncFIFO(
            width=load_layout(self.spec).size, depth=2 * self.spec.read_outstanding
        )
        m.submodules.writer = writer = LoadWriter(self.spec)
        load = self._accept(m, requests, writer)
        self._front_end(m, requests, writer, queue, load)
        self._back_end(m, requests, writer, queue)
        return m

    def _accept(self, m: Module, requests: LoadRequests, writer: LoadWriter) -> Value:
        """When operations begin and end; whether a load begins in this cycle."""
        operation = self.i.payload
        # Loads under way are those waiting for words and those in the writer's last LOAD_CYCLES.
        under_way = Signal(range(2 * self.spec.read_outstanding + 4))
        accepted = Signal()
        legal = Signal()
        load = Signal()
        waiting = Signal()
        m.d.comb += [
            self.i.ready.eq(~requests.busy & ~waiting),
            accepted.eq(self.i.valid & self.i.ready),
            legal.eq(operation.length.any() & (operation.destination <= max(Destination))),
            load.eq(accepted & ~operation.sync & legal),
        ]
        m.d.sync += [
            under_way.eq(under_way + load - writer.done),
            self.illegal.eq(accepted & ~operation.sync & ~legal),
        ]
        # SYNC holds the front end until all loads have ended.
        with m.If(accepted & operation.sync):
            m.d.sync += waiting.eq(1)
        with m.Elif(~under_way.any()):
            m.d.sync += waiting.eq(0)
        m.d.comb += [
            self.done.eq(writer.done | (waiting & ~under_way.any())),
            self.checksum.eq(Mux(writer.done, writer.checksum, 0)),
            self.idle.eq(~requests.busy & ~waiting & ~under_way.any()),
        ]

        return load

    def _front_end(
        self,
        m: Module,
        requests: LoadRequests,
        writer: LoadWriter,
        queue: fifo.SyncFIFO,
        load: Value,
    ) -> None:
        """A load to its requests, and to the queue of those that wait for words."""
        operation = self.i.payload
        m.d.comb += [
            requests.start.eq(load),
            requests.address.eq(operation.address),
            requests.length.eq(operation.length),
            requests.random.eq(operation.random),
            requests.completed.eq(writer.completed),
        ]
        entry = data.View(load_layout(self.spec), queue.w_data)
        m.d.comb += [
            queue.w_en.eq(load),
            entry.destination.eq(operation.destination),
            entry.buffer.eq(operation.buffer),
            entry.length.eq(operation.length),
            entry.offset.eq(operation.address),
        ]

    def _back_end(
        self, m: Module, requests: LoadRequests, writer: LoadWriter, queue: fifo.SyncFIFO
    ) -> None:
        """Channels to requests and writer: rready only when every channel shows a beat."""
        for channel, axi in enumerate(self.axi):
            m.d.comb += [
                axi.arvalid.eq(requests.valid[channel]),
                requests.ready[channel].eq(axi.arready),
                axi.araddr.eq(requests.word << exact_log2(self.spec.bus_bytes)),
                axi.arlen.eq(requests.beats - 1),
                axi.arsize.eq(exact_log2(self.spec.bus_bytes)),
                axi.arburst.eq(INCREMENTING),
                axi.aruser.eq(requests.is_random),
                axi.rready.eq(self.beat),
            ]
        failed = Cat(axi.rresp.any() for axi in self.axi).any()
        m.d.comb += [
            self.beat.eq(Cat(axi.rvalid for axi in self.axi).all() & queue.r_rdy),
            writer.take.eq(self.beat),
            writer.load.eq(queue.r_data),
            writer.word.eq(Cat(axi.rdata for axi in self.axi)),
            writer.restart.eq(self.restart),
            queue.r_en.eq(writer.last),
        ]
        # A cycle later than need be: the load before, which may end in the cycle between, is then no longer the oldest.
        failure = Signal()
        m.d.sync += [failure.eq(self.beat & failed), self.error.eq(failure)]
        wiring.connect(m, writer.stream, wiring.flipped(self.stream))
        wiring.connect(m, writer.scale, wiring.flipped(self.scale))
        wiring.connect(m, writer.input, wiring.flipped(self.input))
