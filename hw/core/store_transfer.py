"""Bursts of the store unit: rows, bursts and beats of one operation, and the responses to them."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.core.ports import operation_layout
from hw.spec.instructions import ADDRESS_BITS, Pattern, Unit
from hw.spec.machine import MachineSpec


class StoreTransfer(wiring.Component):
    """Walks over rows, bursts and beats of one operation.

    Members
    -------
    start, operation : In
        An operation begins; `operation` stays to its end.
    open : In(1)
        Requests may be made.
    available : In(1)
        The data of the next beat is there.
    address_valid, address_ready, word, beats
        The burst under way; one bit of valid and ready a channel.
    data_valid, data_ready, half, last_of_burst, last_of_step
        The beat under way.
    beat : Out(1)
        All channels have taken it.
    response : In(channels)
    ended : Out(1)
        All responses have come.
    """

    start: Value
    operation: Any
    open: Value
    available: Value
    address_valid: Value
    address_ready: Value
    word: Value
    beats: Value
    data_valid: Value
    data_ready: Value
    half: Value
    last_of_burst: Value
    last_of_step: Value
    beat: Value
    response: Value
    ended: Value

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        super().__init__({
            "start": In(1),
            "operation": In(operation_layout(Unit.ST)),
            "open": In(1),
            "available": In(1),
            "address_valid": Out(spec.channels),
            "address_ready": In(spec.channels),
            "word": Out(ADDRESS_BITS),
            "beats": Out(range(spec.burst_beats + 1)),
            "data_valid": Out(spec.channels),
            "data_ready": In(spec.channels),
            "half": Out(1),
            "last_of_burst": Out(1),
            "last_of_step": Out(1),
            "beat": Out(1),
            "response": In(spec.channels),
            "ended": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows_left = Signal(8)
        left = Signal(9)
        row_beats = self._row_beats(m)
        room, missing = self._responses(m)
        active = Signal()
        finished = Signal()
        m.d.comb += [
            active.eq(rows_left.any() & self.open),
            self.ended.eq(~rows_left.any() & ~missing.any()),
        ]
        self._burst(m, active, left, room, finished)
        self._next(m, rows_left, left, row_beats, finished)
        return m

    def _row_beats(self, m: Module) -> Value:
        """Beats of a row, by the operation's pattern."""
        row_beats = Signal(9)
        with m.Switch(self.operation.pattern):
            with m.Case(Pattern.COLUMN):
                m.d.comb += row_beats.eq(self.operation.steps << 1)
            with m.Case(Pattern.SPREAD):
                m.d.comb += row_beats.eq(2)
            with m.Default():
                m.d.comb += row_beats.eq(1)
        return row_beats

    def _responses(self, m: Module) -> tuple[Value, Value]:
        """Channels that may make one more request, and channels from which responses are missing."""
        channels = self.spec.channels
        room = Signal(channels)
        missing = Signal(channels)
        for channel in range(channels):
            count = Signal(range(self.spec.write_outstanding + 1), name=f"missing{channel}")
            accepted = self.address_valid[channel] & self.address_ready[channel]
            m.d.sync += count.eq(count + accepted - self.response[channel])
            m.d.comb += [
                room[channel].eq(count != self.spec.write_outstanding),
                missing[channel].eq(count.any()),
            ]
        return room, missing

    def _burst(self, m: Module, active: Value, left: Value, room: Value, finished: Value) -> None:
        """The burst under way. A channel's data may run ahead of its address, but not of its request."""
        burst_beats, channels = self.spec.burst_beats, self.spec.channels
        scalar = Signal()
        index = Signal.like(self.beats)
        to_boundary = Signal.like(self.beats)
        address_taken = Signal(channels)
        data_taken = Signal(channels)
        addressed = Signal(channels)
        data_done = Signal()
        m.d.comb += [
            scalar.eq(self.operation.pattern == Pattern.SCALAR),
            to_boundary.eq(burst_beats - self.word[: exact_log2(burst_beats)]),
            self.beats.eq(Mux(left < to_boundary, left, to_boundary)),
            self.address_valid.eq(Mux(active, ~address_taken & room, 0)),
            addressed.eq(address_taken | (self.address_valid & self.address_ready)),
            self.data_valid.eq(
                Mux(
                    active & self.available & ~data_done,
                    ~data_taken & (address_taken | self.address_valid),
                    0,
                )
            ),
            self.last_of_burst.eq(index + 1 == self.beats),
            self.last_of_step.eq(scalar | self.half),
            self.beat.eq(
                active
                & self.available
                & ~data_done
                & (data_taken | (self.data_valid & self.data_ready)).all()
            ),
            finished.eq(active & addressed.all() & (data_done | (self.beat & self.last_of_burst))),
        ]
        with m.If(self.beat):
            m.d.sync += [
                data_taken.eq(0),
                index.eq(index + 1),
                data_done.eq(self.last_of_burst),
                self.half.eq(~self.half & ~scalar),
            ]
        with m.Else():
            m.d.sync += data_taken.eq(data_taken | (self.data_valid & self.data_ready))
        m.d.sync += address_taken.eq(addressed)
        with m.If(finished):
            m.d.sync += [address_taken.eq(0), data_done.eq(0), index.eq(0)]

    def _next(
        self, m: Module, rows_left: Value, left: Value, row_beats: Value, finished: Value
    ) -> None:
        """From burst to burst, from row to row, and to the next operation."""
        row_word = Signal(ADDRESS_BITS, reset_less=True)
        with m.If(finished):
            with m.If(left == self.beats):
                m.d.sync += [
                    rows_left.eq(rows_left - 1),
                    left.eq(row_beats),
                    self.word.eq(row_word + self.operation.pitch),
                    row_word.eq(row_word + self.operation.pitch),
                ]
            with m.Else():
                m.d.sync += [left.eq(left - self.beats), self.word.eq(self.word + self.beats)]
        with m.If(self.start):
            m.d.sync += [
                rows_left.eq(self.operation.rows),
                left.eq(row_beats),
                self.word.eq(self.operation.address),
                row_word.eq(self.operation.address),
            ]
