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


def bank_layout() -> data.StructLayout:
    """What is known of a bank: its open row, the cycle from which it is open, and the end of its last burst."""
    return data.StructLayout({
        "row": 28,
        "ready": CYCLE_BITS,
        "last_use": CYCLE_BITS,
        "epoch": 32,
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
        schedule = _Schedule()
        refreshing = Signal()
        m.d.comb += [
            refreshing.eq(schedule.started & (self.now == schedule.next_refresh)),
            self.open.eq(schedule.started & ~refreshing & ~self.start),
            self.refresh_ticks.eq(timing.refresh_cycles * timing.beat_numerator),
        ]
        m.submodules.banks = banks = memory.Memory(
            shape=bank_layout(), depth=MAXIMUM_BANKS, init=[]
        )
        lookup = banks.read_port(domain="comb")
        update = banks.write_port()
        ready = self._bank(m, schedule, lookup, update)
        bus = self._bus(m, schedule, ready)
        m.d.comb += [
            self.burst.start.eq(bus.start),
            self.burst.boundary.eq(bus.boundary),
            self.burst.split.eq(bus.split),
            self.burst.address.eq(self.address),
            self.burst.beats.eq(self.beats),
            self.response.eq(
                _maximum(
                    _maximum(bus.end_cycle, self.now + self.beats + 1) + timing.write_latency,
                    schedule.last_response + 1,
                )
            ),
            update.data.ready.eq(ready),
            update.data.last_use.eq(bus.end_cycle),
        ]
        self._advance(m, schedule, bus, refreshing)
        return m

    def _bank(self, m: Module, schedule: "_Schedule", lookup: Any, update: Any) -> Value:
        """Looks up the bank of the burst, and keeps its row; the cycle from which that row is open."""
        entry = lookup.data
        row_index = Signal(28)
        bank = Signal(8)
        row = Signal(28)
        ready = Signal(CYCLE_BITS)
        last_use = Signal(CYCLE_BITS)
        # What a bank that was never used has is not known; that it is one of these epochs is as good as impossible.
        used = (entry.epoch >= schedule.first_epoch) & (entry.epoch <= schedule.epoch)
        m.d.comb += [
            row_index.eq(self.address >> self.timing.row_bits),
            bank.eq(row_index & ((1 << self.timing.bank_bits) - 1)),
            row.eq(row_index >> self.timing.bank_bits),
            lookup.addr.eq(bank),
            last_use.eq(Mux(used, entry.last_use, 0)),
            update.en.eq(self.accept & ~self.random),
            update.addr.eq(bank),
            update.data.row.eq(row),
            update.data.epoch.eq(schedule.epoch),
        ]
        with m.If(self.random):
            m.d.comb += ready.eq(self.now + self.timing.activate)
        with m.Elif((entry.epoch == schedule.epoch) & (entry.row == row)):
            m.d.comb += ready.eq(entry.ready)
        with m.Else():
            m.d.comb += ready.eq(_maximum(self.now, last_use) + self.timing.activate)
        return ready

    def _bus(self, m: Module, schedule: "_Schedule", ready: Value) -> "_BusTime":
        """When the burst is on the bus, with the refresh that it may run into."""
        timing = self.timing
        bus = _BusTime()
        earliest = Signal(CYCLE_BITS)
        free = Signal(TICK_BITS)
        unhindered = Signal(TICK_BITS)
        last = Signal(TICK_BITS)
        turns = self.write != schedule.writing
        m.d.comb += [
            bus.boundary.eq(schedule.next_refresh * timing.beat_numerator),
            earliest.eq(_maximum(self.now, ready) + Mux(self.write, 1, timing.read_latency)),
            free.eq(schedule.bus_free + Mux(turns, timing.turnaround * timing.beat_numerator, 0)),
            unhindered.eq(_maximum(earliest * timing.beat_numerator, free)),
            bus.late.eq(unhindered >= bus.boundary),
            bus.start.eq(
                Mux(bus.late, _maximum(unhindered, bus.boundary + self.refresh_ticks), unhindered)
            ),
            last.eq(bus.start + (self.beats - 1)[:9] * timing.beat_denominator),
            bus.split.eq(~bus.late & (last >= bus.boundary)),
            bus.end.eq(last + Mux(bus.split, self.refresh_ticks, 0) + timing.beat_denominator),
            bus.end_cycle.eq(
                (bus.end + timing.beat_numerator - 1)[:TICK_BITS] // timing.beat_numerator
            ),
        ]
        return bus

    def _advance(
        self, m: Module, schedule: "_Schedule", bus: "_BusTime", refreshing: Value
    ) -> None:
        """The next cycle: time, the bus behind an accepted burst, and refresh."""
        timing = self.timing
        with m.If(schedule.started):
            m.d.sync += [
                self.now.eq(self.now + 1),
                self.now_tick.eq(self.now_tick + timing.beat_numerator),
            ]
        with m.If(self.accept):
            m.d.sync += [schedule.bus_free.eq(bus.end), schedule.writing.eq(self.write)]
            with m.If(self.write):
                m.d.sync += schedule.last_response.eq(self.response)
        with m.If(refreshing):
            m.d.sync += schedule.bus_free.eq(
                _maximum(schedule.bus_free, bus.boundary + self.refresh_ticks)
            )
        with m.If(refreshing | (self.accept & (bus.late | bus.split))):
            m.d.sync += [
                schedule.epoch.eq(schedule.epoch + 1),
                schedule.next_refresh.eq(schedule.next_refresh + timing.refresh_interval),
            ]
        with m.If(self.start):
            m.d.sync += [
                schedule.started.eq(1),
                self.now.eq(1),
                self.now_tick.eq(timing.beat_numerator),
                schedule.next_refresh.eq(timing.refresh_interval),
                schedule.bus_free.eq(0),
                schedule.writing.eq(0),
                schedule.last_response.eq(0),
                schedule.epoch.eq(schedule.epoch + 1),
                schedule.first_epoch.eq(schedule.epoch + 1),
            ]


class _Schedule:
    """What the scheduler knows from one burst to the next: the bus, refresh, and which rows still count."""

    def __init__(self) -> None:
        self.started = Signal()
        self.next_refresh = Signal(CYCLE_BITS)
        self.bus_free = Signal(TICK_BITS)
        self.writing = Signal()
        self.last_response = Signal(CYCLE_BITS)
        self.epoch = Signal(32)
        self.first_epoch = Signal(32)


class _BusTime:
    """Time of a burst on the bus, in ticks; `late` is behind the next refresh, `split` by it."""

    def __init__(self) -> None:
        self.boundary = Signal(TICK_BITS)
        self.start = Signal(TICK_BITS)
        self.end = Signal(TICK_BITS)
        self.end_cycle = Signal(CYCLE_BITS)
        self.late = Signal()
        self.split = Signal()


def _maximum(a: Value, b: Value) -> Value:
    return Mux(a > b, a, b)
