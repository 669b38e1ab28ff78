"""Load unit: AXI4 read bursts of all channels in lockstep to the rings and the input buffer."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.core.axi import axi_read
from hw.core.checksum import Checksum
from hw.core.ports import operation_layout, unit_members, write_port
from hw.spec.instructions import ADDRESS_BITS, COUNT_BITS, Destination, Unit
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
        m.submodules.requests = requests = _Requests(self.spec)
        m.submodules.queue = queue = fifo.SyncFIFO(
            width=load_layout(self.spec).size, depth=2 * self.spec.read_outstanding
        )
        m.submodules.writer = writer = _Writer(self.spec)
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

        # Front end.
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

        # Back end: rready only when every channel shows a beat.
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
        return m


def load_layout(spec: MachineSpec) -> data.StructLayout:
    """What the back end has to know of a load; `offset` is the address within a burst."""
    return data.StructLayout({
        "destination": 2,
        "buffer": exact_log2(spec.input_words),
        "length": COUNT_BITS,
        "offset": exact_log2(spec.burst_beats),
    })


class _Requests(wiring.Component):
    """Bursts of one load after the other; the channels take each burst when they like.

    Members
    -------
    start, address, length, random
        The next load; only while not `busy`.
    busy : Out(1)
    completed : In(1)
        The last word of a burst was taken.
    valid, ready, word, beats, is_random
        A burst of `beats` words from `word` on; one bit of valid and ready a channel.
    """

    start: Value
    address: Value
    length: Value
    random: Value
    busy: Value
    completed: Value
    valid: Value
    ready: Value
    word: Value
    beats: Value
    is_random: Value

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        super().__init__({
            "start": In(1),
            "address": In(ADDRESS_BITS),
            "length": In(COUNT_BITS),
            "random": In(1),
            "busy": Out(1),
            "completed": In(1),
            "valid": Out(spec.channels),
            "ready": In(spec.channels),
            "word": Out(ADDRESS_BITS),
            "beats": Out(range(spec.burst_beats + 1)),
            "is_random": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        burst_bits = exact_log2(spec.burst_beats)
        left = Signal(COUNT_BITS)
        taken = Signal(spec.channels)
        under_way = Signal(range(spec.read_outstanding + 1))
        room = Signal()
        to_boundary = Signal.like(self.beats)
        accepted = Signal()
        m.d.comb += [
            room.eq(under_way != spec.read_outstanding),
            to_boundary.eq(spec.burst_beats - self.word[:burst_bits]),
            self.beats.eq(Mux(left < to_boundary, left, to_boundary)),
            self.busy.eq(left.any()),
            self.valid.eq(Mux(self.busy & room, ~taken, 0)),
            accepted.eq(self.busy & room & (taken | self.ready).all()),
        ]
        m.d.sync += under_way.eq(under_way + accepted - self.completed)
        with m.If(self.start):
            m.d.sync += [
                self.word.eq(self.address),
                left.eq(self.length),
                self.is_random.eq(self.random),
            ]
        with m.Elif(accepted):
            m.d.sync += [
                self.word.eq(self.word + self.beats),
                left.eq(left - self.beats),
                taken.eq(0),
            ]
        with m.Else():
            m.d.sync += taken.eq(taken | (self.valid & self.ready))
        return m


class _Writer(wiring.Component):
    """Writes words to their buffers, one cycle behind their beats.

    Members
    -------
    take, word : In
        A word was taken.
    load : In(load_layout(spec))
        The load that it belongs to.
    last, completed : Out(1)
        It is the last of its load, of its burst.
    restart : In(1)
        Return the ring pointers to zero.
    done, checksum : Out
        A load ends.
    stream, scale, input : Out(write_port)
    """

    take: Value
    word: Value
    load: Any
    last: Value
    completed: Value
    restart: Value
    done: Value
    checksum: Value
    stream: Any
    scale: Any
    input: Any

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        bits = 8 * spec.word_bytes
        super().__init__({
            "take": In(1),
            "word": In(bits),
            "load": In(load_layout(spec)),
            "last": Out(1),
            "completed": Out(1),
            "restart": In(1),
            "done": Out(1),
            "checksum": Out(32),
            "stream": Out(write_port(spec.stream_words, bits)),
            "scale": Out(write_port(spec.scale_words, bits)),
            "input": Out(write_port(spec.input_words, bits)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        m.submodules.digest = digest = Checksum(spec.word_bytes)
        index = Signal(COUNT_BITS)
        burst_index = Signal(exact_log2(spec.burst_beats))
        at_end = Signal()
        m.d.comb += [
            at_end.eq(index + 1 == self.load.length),
            burst_index.eq(self.load.offset + index),
            self.last.eq(self.take & at_end),
            self.completed.eq(self.take & (at_end | burst_index.all())),
        ]
        with m.If(self.take):
            m.d.sync += index.eq(Mux(at_end, 0, index + 1))

        # Second stage: the write, and the checksum.
        valid = Signal()
        first = Signal()
        last = Signal()
        word = Signal(8 * spec.word_bytes, reset_less=True)
        target = Signal(len(Destination))
        m.d.comb += target.eq(1 << self.load.destination)
        m.d.sync += [
            valid.eq(self.take),
            first.eq(~index.any()),
            last.eq(self.last),
            word.eq(self.word),
            self.stream.enable.eq(self.take & target[Destination.STREAM]),
            self.scale.enable.eq(self.take & target[Destination.SCALE]),
            self.input.enable.eq(self.take & target[Destination.INPUT]),
            self.input.address.eq(self.load.buffer + index),
        ]
        for ring in (self.stream, self.scale):
            with m.If(self.restart):
                m.d.sync += ring.address.eq(0)
            with m.Elif(ring.enable):
                m.d.sync += ring.address.eq(ring.address + 1)
        m.d.comb += [port.data.eq(word) for port in (self.stream, self.scale, self.input)]

        # Third stage: the end.
        m.d.comb += [
            digest.valid.eq(valid),
            digest.start.eq(first),
            digest.data.eq(word),
            self.checksum.eq(digest.value),
        ]
        m.d.sync += self.done.eq(last)
        return m
