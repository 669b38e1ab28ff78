"""Front end of the load unit: read bursts of one load after the other."""

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.spec.instructions import ADDRESS_BITS, COUNT_BITS
from hw.spec.machine import MachineSpec

__all__ = ["LoadRequests"]


class LoadRequests(wiring.Component):
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
