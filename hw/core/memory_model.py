"""Memory of one channel for simulations: an AXI4 slave with the timing of `docs/isa.md`, "Memory"."""

from typing import Any

from amaranth.hdl import Cat, ClockSignal, Instance, Module, Mux, Signal, Value
from amaranth.lib import data, fifo, memory, wiring
from amaranth.lib.wiring import In, Out, Signature
from amaranth.utils import exact_log2

from hw.core.axi import axi_read, axi_write

CYCLE_BITS = 40
TICK_BITS = 60
MAXIMUM_BANKS = 256
OKAY, SLAVE_ERROR = 0, 2

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


def fault_signature() -> Signature:
    """Faults to inject: SLVERR for bursts that touch word `address`; no new R beat shown while `stall`."""
    return Signature({"enable": Out(1), "address": Out(28), "stall": Out(1)})


def host_signature(words: int, bus_bytes: int) -> Signature:
    """Access of a test bench to the content: reads at once, writes at the clock edge."""
    return Signature({
        "enable": Out(1),
        "address": Out(exact_log2(words)),
        "write_data": Out(8 * bus_bytes),
        "read_data": In(8 * bus_bytes),
    })


class MemoryModel(wiring.Component):
    """One memory channel; its timing is a run-time input, its content a Verilog module.

    Nothing is accepted before the first `start`. A write burst is accepted when the data of the one before
    has come, and its data is taken from the cycle behind the acceptance on. Data that the master does not
    take comes later, without effect on the timing of other bursts. Cycles are counted in 40 bits.

    The top of a simulation that holds this component needs `sim_tests/verilog/memory_array.v`.

    Parameters
    ----------
    words : int
        Capacity, a power of two; addresses wrap.
    bus_bytes : int
        Bytes of a beat.
    channel : int
        Number in the names of the options `+memory_load_<channel>` and `+memory_dump_<channel>`.
    outstanding : int
        Bursts of each direction that are held.

    Members
    -------
    start : In(1)
        This is cycle 0; no burst may be under way.
    timing : In(timing_signature())
    fault : In(fault_signature())
    host : In(host_signature(words, bus_bytes))
    read, write : In(axi_read(bus_bytes)), In(axi_write(bus_bytes))
    """

    start: Value
    timing: Any
    fault: Any
    host: Any
    read: Any
    write: Any

    def __init__(
        self, words: int, bus_bytes: int, *, channel: int = 0, outstanding: int = 32
    ) -> None:
        self.words = words
        self.bus_bytes = bus_bytes
        self.channel = channel
        self.outstanding = outstanding
        super().__init__({
            "start": In(1),
            "timing": In(timing_signature()),
            "fault": In(fault_signature()),
            "host": In(host_signature(words, bus_bytes)),
            "read": In(axi_read(bus_bytes)),
            "write": In(axi_write(bus_bytes)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bus_bits = exact_log2(self.bus_bytes)
        m.submodules.scheduler = scheduler = Scheduler()
        m.submodules.reads = reads = _ReadQueue(self.outstanding)
        m.submodules.responses = responses = fifo.SyncFIFO(
            width=CYCLE_BITS + 1, depth=self.outstanding
        )
        wiring.connect(m, wiring.flipped(self.timing), scheduler.timing)

        # A write wins over a read; its data has to come before the next write is accepted.
        data_left = Signal(9)
        data_address = Signal(28)
        asks_write = Signal()
        m.d.comb += [
            asks_write.eq(self.write.awvalid & ~data_left.any() & responses.w_rdy),
            self.write.awready.eq(asks_write & scheduler.open),
            self.read.arready.eq(self.read.arvalid & ~asks_write & reads.ready & scheduler.open),
            scheduler.start.eq(self.start),
            scheduler.accept.eq(self.write.awready | self.read.arready),
            scheduler.write.eq(asks_write),
            scheduler.random.eq(self.read.aruser & ~asks_write),
            scheduler.address.eq(
                Mux(asks_write, self.write.awaddr[bus_bits:], self.read.araddr[bus_bits:])
            ),
            scheduler.beats.eq(Mux(asks_write, self.write.awlen, self.read.arlen) + 1),
        ]

        touches = Signal()
        m.d.comb += touches.eq(
            self.fault.enable & ((self.fault.address - scheduler.address)[:28] < scheduler.beats)
        )
        m.d.comb += [
            reads.push.eq(self.read.arready),
            reads.burst.eq(scheduler.burst),
            reads.now_tick.eq(scheduler.now_tick),
            reads.refresh_ticks.eq(scheduler.refresh_ticks),
            reads.denominator.eq(self.timing.beat_denominator),
            reads.stall.eq(self.fault.stall),
            reads.take.eq(self.read.rready),
            self.read.rvalid.eq(reads.valid),
            self.read.rlast.eq(reads.last),
            self.read.rresp.eq(
                Mux(self.fault.enable & (reads.address == self.fault.address), SLAVE_ERROR, OKAY)
            ),
        ]

        m.d.comb += [
            self.write.wready.eq(data_left.any()),
            responses.w_en.eq(self.write.awready),
            responses.w_data.eq(Cat(scheduler.response, touches)),
            self.write.bvalid.eq(
                responses.r_rdy & (responses.r_data[:CYCLE_BITS] <= scheduler.now)
            ),
            self.write.bresp.eq(Mux(responses.r_data[CYCLE_BITS], SLAVE_ERROR, OKAY)),
            responses.r_en.eq(self.write.bvalid & self.write.bready),
        ]
        with m.If(self.write.awready):
            m.d.sync += [data_left.eq(scheduler.beats), data_address.eq(scheduler.address)]
        with m.Elif(self.write.wvalid & self.write.wready):
            m.d.sync += [data_left.eq(data_left - 1), data_address.eq(data_address + 1)]

        written = self.write.wvalid & self.write.wready
        m.submodules.array = Instance(
            "memory_array",
            p_CHANNEL=self.channel,
            p_DEPTH=self.words,
            p_WIDTH=8 * self.bus_bytes,
            p_ADDRESS_BITS=exact_log2(self.words),
            i_clk=ClockSignal(),
            i_read_address=reads.address[: exact_log2(self.words)],
            o_read_data=self.read.rdata,
            i_write_enable=Mux(written, self.write.wstrb, 0),
            i_write_address=data_address[: exact_log2(self.words)],
            i_write_data=self.write.wdata,
            i_host_enable=self.host.enable,
            i_host_address=self.host.address,
            i_host_write_data=self.host.write_data,
            o_host_read_data=self.host.read_data,
        )
        return m


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


class _ReadQueue(wiring.Component):
    """Read bursts in order; each beat is shown from its cycle on.

    Members
    -------
    push, burst, ready
        A burst that was accepted; there is room for one.
    now_tick, refresh_ticks, denominator
        From the scheduler, and the ticks of a beat.
    stall : In(1)
        Show no new beat in this cycle.
    valid, take, address, last
        The beat on the R channel; `address` is that of its word.
    """

    push: Value
    burst: Any
    ready: Value
    now_tick: Value
    refresh_ticks: Value
    denominator: Value
    stall: Value
    valid: Value
    take: Value
    address: Value
    last: Value

    def __init__(self, depth: int) -> None:
        self.depth = depth
        super().__init__({
            "push": In(1),
            "burst": In(burst_layout()),
            "ready": Out(1),
            "now_tick": In(TICK_BITS),
            "refresh_ticks": In(32),
            "denominator": In(16),
            "stall": In(1),
            "valid": Out(1),
            "take": In(1),
            "address": Out(28),
            "last": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.queue = queue = fifo.SyncFIFO(width=burst_layout().size, depth=self.depth)
        head = data.View(burst_layout(), queue.r_data)
        m.d.comb += [
            queue.w_en.eq(self.push),
            queue.w_data.eq(self.burst.as_value()),
            self.ready.eq(queue.w_rdy),
        ]

        index = Signal(9)
        offset = Signal(TICK_BITS)
        tick = Signal(TICK_BITS)
        due = Signal(TICK_BITS)
        shown = Signal()
        taken = Signal()
        m.d.comb += [
            tick.eq(head.start + offset),
            due.eq(tick + Mux(head.split & (tick >= head.boundary), self.refresh_ticks, 0)),
            self.valid.eq(queue.r_rdy & (due <= self.now_tick) & (shown | ~self.stall)),
            self.address.eq(head.address + index),
            self.last.eq(index + 1 == head.beats),
            taken.eq(self.valid & self.take),
            queue.r_en.eq(taken & self.last),
        ]
        m.d.sync += shown.eq(self.valid & ~taken)
        with m.If(taken):
            m.d.sync += [
                index.eq(Mux(self.last, 0, index + 1)),
                offset.eq(Mux(self.last, 0, offset + self.denominator)),
            ]
        return m


def _maximum(a: Value, b: Value) -> Value:
    return Mux(a > b, a, b)
