"""Store unit: store buffer to AXI4 write bursts of all channels in lockstep, spread over words by a pattern."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.core.axi import axi_write
from hw.core.checksum import Checksum
from hw.core.ports import operation_layout, read_port, unit_members
from hw.core.store_data import StoreGather, StoreSpread
from hw.core.store_transfer import StoreTransfer
from hw.spec.instructions import Pattern, Unit
from hw.spec.latency import STORE_CYCLES
from hw.spec.machine import MachineSpec

INCREMENTING = 1
"""AxBURST of bursts with rising addresses."""


class StoreUnit(wiring.Component):
    """Executes ST: one instruction at a time, one burst of data at a time, up to `write_outstanding` responses missing.

    Channels may accept addresses and data at different times; the next word is shown when all channels
    have taken the one before. Data does not wait for the acceptance of its address.

    Parameters
    ----------
    spec : MachineSpec

    Members
    -------
    i : In(stream.Signature(operation_layout(Unit.ST)))
    done, checksum, illegal : Out
        See `hw.core.ports.unit_members`.
    idle : Out(1)
        No instruction is under way.
    error : Out(1)
        High for one cycle for each cycle with a response other than OKAY. The burst counts as if it were good.
    beat : Out(1)
        A word was written: all channels have taken it.
    axi : Out(axi_write(bus_bytes)).array(channels)
    source : Out(read_port(store_rows, 8 * matrix_rows))
    """

    i: stream.Interface
    done: Value
    checksum: Value
    illegal: Value
    idle: Value
    error: Value
    beat: Value
    axi: list[Any]
    source: Any

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        super().__init__({
            "i": In(stream.Signature(operation_layout(Unit.ST))),
            **unit_members(Unit.ST),
            "idle": Out(1),
            "error": Out(1),
            "beat": Out(1),
            "axi": Out(axi_write(spec.bus_bytes)).array(spec.channels),
            "source": Out(read_port(spec.store_rows, 8 * spec.matrix_rows)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        m.submodules.gather = gather = StoreGather(spec)
        m.submodules.transfer = transfer = StoreTransfer(spec)
        m.submodules.digest = digest = Checksum(spec.word_bytes + spec.word_bytes // 8)
        operation = Signal(operation_layout(Unit.ST), reset_less=True)
        legal = self._legal(m)
        start = self._operation(m, operation, legal, transfer)
        m.d.comb += [
            self.checksum.eq(Mux(operation.sync, 0, digest.value)),
            gather.start.eq(start),
            gather.operation.eq(Mux(start, self.i.payload.as_value(), operation.as_value())),
            transfer.start.eq(start),
            transfer.operation.eq(Mux(start, self.i.payload.as_value(), operation.as_value())),
            transfer.available.eq(gather.valid),
            gather.take.eq(transfer.beat & transfer.last_of_step),
        ]
        wiring.connect(m, gather.source, wiring.flipped(self.source))

        word = Signal(8 * spec.word_bytes)
        strobe = Signal(spec.word_bytes)
        m.submodules.spread = spread = StoreSpread(spec)
        m.d.comb += [
            spread.pattern.eq(operation.pattern),
            spread.lane.eq(operation.lane),
            spread.half.eq(transfer.half),
            spread.bytes.eq(gather.bytes),
            word.eq(spread.word),
            strobe.eq(spread.strobe),
        ]
        self._channels(m, transfer, word, strobe)
        self._digest(m, start, transfer, Cat(word, strobe), digest)
        return m

    def _legal(self, m: Module) -> Value:
        """Whether the lanes and counts of the operation that is offered are possible."""
        spec, given = self.spec, self.i.payload
        lanes = Signal(range(spec.matrix_rows + 1))
        counts = Signal()
        legal = Signal()
        with m.Switch(given.pattern):
            with m.Case(Pattern.COLUMN):
                m.d.comb += [lanes.eq(spec.matrix_rows), counts.eq(given.steps.any())]
            with m.Case(Pattern.SPREAD):
                m.d.comb += [lanes.eq(4), counts.eq(1)]
            with m.Default():
                m.d.comb += [
                    lanes.eq(spec.word_bytes // 4),
                    counts.eq(given.pattern == Pattern.SCALAR),
                ]
        m.d.comb += legal.eq(counts & given.rows.any() & (given.lane < lanes))
        return legal

    def _operation(self, m: Module, operation: Any, legal: Value, transfer: StoreTransfer) -> Value:
        """An operation runs from its acceptance to the last response; SYNC for one cycle. Whether one with data begins."""
        given = self.i.payload
        busy = Signal()
        waiting = Signal(range(STORE_CYCLES))
        accepted = Signal()
        start = Signal()
        ended = Signal()
        m.d.comb += [
            self.i.ready.eq(~busy),
            self.idle.eq(~busy),
            accepted.eq(self.i.valid & self.i.ready),
            start.eq(accepted & ~given.sync & legal),
            ended.eq(operation.sync | transfer.ended),
            self.done.eq(busy & ended),
            transfer.open.eq(~waiting.any()),
        ]
        m.d.sync += self.illegal.eq(accepted & ~given.sync & ~legal)
        with m.If(accepted):
            m.d.sync += [
                operation.eq(given),
                busy.eq(given.sync | legal),
                waiting.eq(STORE_CYCLES - 1),
            ]
        with m.Elif(busy):
            m.d.sync += [busy.eq(~ended), waiting.eq(waiting - waiting.any())]
        return start

    def _channels(self, m: Module, transfer: StoreTransfer, word: Value, strobe: Value) -> None:
        """The burst and the beat under way, to every channel."""
        spec = self.spec
        for channel, axi in enumerate(self.axi):
            m.d.comb += [
                axi.awvalid.eq(transfer.address_valid[channel]),
                transfer.address_ready[channel].eq(axi.awready),
                axi.awaddr.eq(transfer.word << exact_log2(spec.bus_bytes)),
                axi.awlen.eq(transfer.beats - 1),
                axi.awsize.eq(exact_log2(spec.bus_bytes)),
                axi.awburst.eq(INCREMENTING),
                axi.wvalid.eq(transfer.data_valid[channel]),
                transfer.data_ready[channel].eq(axi.wready),
                axi.wdata.eq(word.word_select(channel, 8 * spec.bus_bytes)),
                axi.wstrb.eq(strobe.word_select(channel, spec.bus_bytes)),
                axi.wlast.eq(transfer.last_of_burst),
                axi.bready.eq(1),
                transfer.response[channel].eq(axi.bvalid),
            ]
        m.d.sync += self.error.eq(Cat(axi.bvalid & axi.bresp.any() for axi in self.axi).any())

    def _digest(
        self, m: Module, start: Value, transfer: StoreTransfer, written: Value, digest: Checksum
    ) -> None:
        """The checksum lags one cycle behind the beat; a response lags at least as much."""
        taken = Signal()
        first = Signal()
        image = Signal(9 * self.spec.word_bytes, reset_less=True)
        m.d.comb += [
            self.beat.eq(transfer.beat),
            digest.valid.eq(taken),
            digest.start.eq(first),
            digest.data.eq(image),
        ]
        m.d.sync += [taken.eq(transfer.beat), image.eq(written)]
        with m.If(start):
            m.d.sync += first.eq(1)
        with m.Elif(taken):
            m.d.sync += first.eq(0)
