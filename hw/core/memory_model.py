"""Memory of one channel for simulations: an AXI4 slave with the timing of `docs/isa.md`, "Memory"."""

from typing import Any

from amaranth.hdl import Cat, ClockSignal, Instance, Module, Mux, Signal, Value
from amaranth.lib import data, fifo, wiring
from amaranth.lib.wiring import In, Out, Signature
from amaranth.utils import exact_log2

from hw.core.axi import axi_read, axi_write
from hw.core.memory_scheduler import (
    CYCLE_BITS,
    TICK_BITS,
    Scheduler,
    burst_layout,
    timing_signature,
)

OKAY, SLAVE_ERROR = 0, 2


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

        self._read_data(m, scheduler, reads)
        self._responses(m, scheduler, responses)
        with m.If(self.write.awready):
            m.d.sync += [data_left.eq(scheduler.beats), data_address.eq(scheduler.address)]
        with m.Elif(self.write.wvalid & self.write.wready):
            m.d.sync += [data_left.eq(data_left - 1), data_address.eq(data_address + 1)]
        m.d.comb += self.write.wready.eq(data_left.any())
        m.submodules.array = self._array(reads.address, data_address)
        return m

    def _read_data(self, m: Module, scheduler: Scheduler, reads: "_ReadQueue") -> None:
        """Accepted read bursts to their queue, and its beats to the R channel."""
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

    def _responses(self, m: Module, scheduler: Scheduler, responses: fifo.SyncFIFO) -> None:
        """Responses to write bursts, each from its cycle on."""
        touches = Signal()
        m.d.comb += touches.eq(
            self.fault.enable & ((self.fault.address - scheduler.address)[:28] < scheduler.beats)
        )
        m.d.comb += [
            responses.w_en.eq(self.write.awready),
            responses.w_data.eq(Cat(scheduler.response, touches)),
            self.write.bvalid.eq(
                responses.r_rdy & (responses.r_data[:CYCLE_BITS] <= scheduler.now)
            ),
            self.write.bresp.eq(Mux(responses.r_data[CYCLE_BITS], SLAVE_ERROR, OKAY)),
            responses.r_en.eq(self.write.bvalid & self.write.bready),
        ]

    def _array(self, read_address: Value, write_address: Value) -> Instance:
        """The content."""
        written = self.write.wvalid & self.write.wready
        return Instance(
            "memory_array",
            p_CHANNEL=self.channel,
            p_DEPTH=self.words,
            p_WIDTH=8 * self.bus_bytes,
            p_ADDRESS_BITS=exact_log2(self.words),
            i_clk=ClockSignal(),
            i_read_address=read_address[: exact_log2(self.words)],
            o_read_data=self.read.rdata,
            i_write_enable=Mux(written, self.write.wstrb, 0),
            i_write_address=write_address[: exact_log2(self.words)],
            i_write_data=self.write.wdata,
            i_host_enable=self.host.enable,
            i_host_address=self.host.address,
            i_host_write_data=self.host.write_data,
            o_host_read_data=self.host.read_data,
        )


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
