"""When bursts come: bus, rows and refresh of one memory channel, as `emulator.memory` has them."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out, Signature

CYCLE_BITS = 40
TICK_BITS = 60
MAXIMUM_BANKS = 256

TIMING_FIELDS = {
    "read_latency": 16,
    "write_latency": 16,
    "activate": 16,
    "turnaround": 16,
    "refresh_interval": 32,
    "refresh_cycles": 16,
    "beat_numerator": 16,
    "beat_denominator": 16,
    "bank_bits": 4,
    "row_bits": 5,
}
"""Timing parameters, as in `hw.spec.machine.MemorySpec`; the last two are log2 of `banks` and `row_words`."""


def timing_signature() -> Signature:
    """Timing parameters of a memory; constant while it runs."""
    return Signature({name: Out(width) for name, width in TIMING_FIELDS.items()})


def burst_layout() -> data.StructLayout:
    """When the beats of a read burst come: see `_ReadQueue`."""
    return data.StructLayout({
        "start": TICK_BITS,
        "boundary": TICK_BITS,
        "split": 1,
        "address": 28,
        "beats": 9,
    })


class Scheduler(wiring.Component):
    """Bus, rows and refresh: the time of each accepted burst, computed in the cycle of its acceptance.

    Rows are closed all at once by advancing an epoch: a bank's entry counts only in the epoch of its last use.

    Members
    -------
    start : In(1)
        This is cycle 0.
    timing : In(timing_signature())
    open : Out(1)
        A burst can be accepted in this cycle.
    accept, write, random, address, beats : In
        The burst that is accepted, or offered.
    burst, response : Out
        When its beats come (of a read), or the cycle of its response (of a write).
    now, now_tick : Out
        This cycle, and its tick.
    refresh_ticks : Out
        Ticks of a refresh.
    """

    start: Value
    timing: Any
    open: Value
    accept: Value
    write: Value
    random: Value
    address: Value
    beats: Value
    burst: Any
    response: Value
    now: Value
    now_tick: Value
    refresh_ticks: Value

    def __init__(self) -> None:
        super().__init__({
            "start": In(1),
            "timing": In(timing_signature()),
            "open": Out(1),
            "accept": In(1),
            "write": In(1),
            "random": In(1),
            "address": In(28),
            "beats": In(9),
            "burst": Out(burst_layout()),
            "response": Out(CYCLE_BITS),
            "now": Out(CYCLE_BITS),
            "now_tick": Out(TICK_BITS),
            "refresh_ticks": Out(32),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        timing = self.timing
        started = Signal()
        next_refresh = Signal(CYCLE_BITS)
        bus_free = Signal(TICK_BITS)
        writing = Signal()
        last_response = Signal(CYCLE_BITS)
        epoch = Signal(32)
        first_epoch = Signal(32)
        refreshing = Signal()
        m.d.comb += [
            refreshing.eq(started & (self.now == next_refresh)),
            self.open.eq(started & ~refreshing & ~self.start),
            self.refresh_ticks.eq(timing.refresh_cycles * timing.beat_numerator),
        ]

        entry_layout = data.StructLayout({
            "row": 28,
            "ready": CYCLE_BITS,
            "last_use": CYCLE_BITS,
            "epoch": 32,
        })
        m.submodules.banks = banks = memory.Memory(shape=entry_layout, depth=MAXIMUM_BANKS, init=[])
        lookup = banks.read_port(domain="comb")
        update = banks.write_port()
        entry = lookup.data

        # The bank and its row.
        row_index = Signal(28)
        bank = Signal(8)
        row = Signal(28)
        ready = Signal(CYCLE_BITS)
        last_use = Signal(CYCLE_BITS)
        m.d.comb += [
            row_index.eq(self.address >> timing.row_bits),
            bank.eq(row_index & ((1 << timing.bank_bits) - 1)),
            row.eq(row_index >> timing.bank_bits),
            lookup.addr.eq(bank),
            last_use.eq(Mux(entry.epoch >= first_epoch, entry.last_use, 0)),
        ]
        with m.If(self.random):
            m.d.comb += ready.eq(self.now + timing.activate)
        with m.Elif((entry.epoch == epoch) & (entry.row == row)):
            m.d.comb += ready.eq(entry.ready)
        with m.Else():
            m.d.comb += ready.eq(_maximum(self.now, last_use) + timing.activate)

        # The bus, and the refresh that the burst may run into.
        boundary = Signal(TICK_BITS)
        earliest = Signal(CYCLE_BITS)
        free = Signal(TICK_BITS)
        unhindered = Signal(TICK_BITS)
        start = Signal(TICK_BITS)
        last = Signal(TICK_BITS)
        late = Signal()
        split = Signal()
        m.d.comb += [
            boundary.eq(next_refresh * timing.beat_numerator),
            earliest.eq(_maximum(self.now, ready) + Mux(self.write, 1, timing.read_latency)),
            free.eq(
                bus_free + Mux(self.write != writing, timing.turnaround * timing.beat_numerator, 0)
            ),
            unhindered.eq(_maximum(earliest * timing.beat_numerator, free)),
            late.eq(unhindered >= boundary),
            start.eq(Mux(late, _maximum(unhindered, boundary + self.refresh_ticks), unhindered)),
            last.eq(start + (self.beats - 1)[:9] * timing.beat_denominator),
            split.eq(~late & (last >= boundary)),
        ]
        end = Signal(TICK_BITS)
        end_cycle = Signal(CYCLE_BITS)
        m.d.comb += [
            end.eq(last + Mux(split, self.refresh_ticks, 0) + timing.beat_denominator),
            end_cycle.eq((end + timing.beat_numerator - 1)[:TICK_BITS] // timing.beat_numerator),
            self.burst.start.eq(start),
            self.burst.boundary.eq(boundary),
            self.burst.split.eq(split),
            self.burst.address.eq(self.address),
            self.burst.beats.eq(self.beats),
            self.response.eq(
                _maximum(
                    _maximum(end_cycle, self.now + self.beats + 1) + timing.write_latency,
                    last_response + 1,
                )
            ),
            update.en.eq(self.accept & ~self.random),
            update.addr.eq(bank),
            update.data.row.eq(row),
            update.data.ready.eq(ready),
            update.data.last_use.eq(end_cycle),
            update.data.epoch.eq(epoch),
        ]

        with m.If(started):
            m.d.sync += [
                self.now.eq(self.now + 1),
                self.now_tick.eq(self.now_tick + timing.beat_numerator),
            ]
        with m.If(self.accept):
            m.d.sync += [bus_free.eq(end), writing.eq(self.write)]
            with m.If(self.write):
                m.d.sync += last_response.eq(self.response)
        with m.If(refreshing):
            m.d.sync += bus_free.eq(_maximum(bus_free, boundary + self.refresh_ticks))
        with m.If(refreshing | (self.accept & (late | split))):
            m.d.sync += [
                epoch.eq(epoch + 1),
                next_refresh.eq(next_refresh + timing.refresh_interval),
            ]
        with m.If(self.start):
            m.d.sync += [
                started.eq(1),
                self.now.eq(1),
                self.now_tick.eq(timing.beat_numerator),
                next_refresh.eq(timing.refresh_interval),
                bus_free.eq(0),
                writing.eq(0),
                last_response.eq(0),
                epoch.eq(epoch + 1),
                first_epoch.eq(epoch + 1),
            ]
        return m


def _maximum(a: Value, b: Value) -> Value:
    return Mux(a > b, a, b)
