"""Back end of the load unit: words to the rings and the input buffer, and their checksums."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.core.checksum import Checksum
from hw.core.ports import write_port
from hw.spec.instructions import COUNT_BITS, Destination
from hw.spec.machine import MachineSpec

__all__ = ["LoadWriter", "load_layout"]


def load_layout(spec: MachineSpec) -> data.StructLayout:
    """What the back end has to know of a load; `offset` is the address within a burst."""
    return data.StructLayout({
        "destination": 2,
        "buffer": exact_log2(spec.input_words),
        "length": COUNT_BITS,
        "offset": exact_log2(spec.burst_beats),
    })


class LoadWriter(wiring.Component):
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
