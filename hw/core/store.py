"""Store unit: store buffer to AXI4 write bursts of all channels in lockstep, spread over words by a pattern."""

from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from hw.core.axi import axi_write
from hw.core.checksum import Checksum
from hw.core.ports import operation_layout, read_port, unit_members
from hw.spec.instructions import ADDRESS_BITS, BUFFER_BITS, Pattern, Unit
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
    restart : In(1)
        Has no effect on a unit that is idle; there for symmetry with `LoadUnit`.
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
    restart: Value
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
            "restart": In(1),
            "idle": Out(1),
            "error": Out(1),
            "beat": Out(1),
            "axi": Out(axi_write(spec.bus_bytes)).array(spec.channels),
            "source": Out(read_port(spec.store_rows, 8 * spec.matrix_rows)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        m.submodules.gather = gather = _Gather(spec)
        m.submodules.transfer = transfer = _Transfer(spec)
        m.submodules.digest = digest = Checksum(spec.word_bytes + spec.word_bytes // 8)
        given = self.i.payload
        operation = Signal(operation_layout(Unit.ST), reset_less=True)

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

        # An operation runs from its acceptance to the last response; SYNC for one cycle.
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
            self.checksum.eq(Mux(operation.sync, 0, digest.value)),
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

        m.d.comb += [
            gather.start.eq(start),
            gather.operation.eq(Mux(start, given.as_value(), operation.as_value())),
            transfer.start.eq(start),
            transfer.operation.eq(Mux(start, given.as_value(), operation.as_value())),
            transfer.open.eq(~waiting.any()),
            transfer.available.eq(gather.valid),
            gather.take.eq(transfer.beat & transfer.last_of_step),
        ]
        wiring.connect(m, gather.source, wiring.flipped(self.source))

        word = Signal(8 * spec.word_bytes)
        strobe = Signal(spec.word_bytes)
        m.submodules.spread = spread = _Spread(spec)
        m.d.comb += [
            spread.pattern.eq(operation.pattern),
            spread.lane.eq(operation.lane),
            spread.half.eq(transfer.half),
            spread.bytes.eq(gather.bytes),
            word.eq(spread.word),
            strobe.eq(spread.strobe),
        ]
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

        # The checksum lags one cycle behind the beat; a response lags at least as much.
        written = Signal()
        first = Signal()
        image = Signal(9 * spec.word_bytes, reset_less=True)
        m.d.comb += [
            self.beat.eq(transfer.beat),
            digest.valid.eq(written),
            digest.start.eq(first),
            digest.data.eq(image),
        ]
        m.d.sync += [written.eq(transfer.beat), image.eq(Cat(word, strobe))]
        with m.If(start):
            m.d.sync += first.eq(1)
        with m.Elif(written):
            m.d.sync += first.eq(0)
        return m


class _Gather(wiring.Component):
    """Reads the bytes of each step from the store buffer, one step ahead of the transfer.

    A step takes two reads, since the bytes of SPREAD may lie in two rows of the buffer. From `start` in
    cycle s, the first step is valid from s + 4 on, and each next one two cycles behind the one before.

    Members
    -------
    start, operation : In
        An operation begins; `operation` stays to its end.
    source : Out(read_port)
    bytes, valid, take
        `matrix_rows` bytes of a step from its source address on, and their acknowledgement.
    """

    start: Value
    operation: Any
    source: Any
    bytes: Value
    valid: Value
    take: Value

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        super().__init__({
            "start": In(1),
            "operation": In(operation_layout(Unit.ST)),
            "source": Out(read_port(spec.store_rows, 8 * spec.matrix_rows)),
            "bytes": Out(8 * spec.matrix_rows),
            "valid": Out(1),
            "take": In(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        pieces = spec.matrix_rows // 4
        piece_bits = exact_log2(pieces)
        row_address = Signal(BUFFER_BITS, reset_less=True)
        step = Signal(8, reset_less=True)
        steps = Signal(8)
        rows_left = Signal(8)
        address = Signal(BUFFER_BITS)
        # COLUMN, which is 0, is the only pattern with several steps a row.
        m.d.comb += [
            steps.eq(Mux(self.operation.pattern.any(), 1, self.operation.steps)),
            address.eq(row_address + step),
        ]

        # First read of a step, then second read, then both are there; the next first read overlaps that.
        reading_second = Signal()
        arriving = Signal()
        row = Signal(spec.store_rows.bit_length() - 1)
        held_row = Signal.like(row)
        piece = Signal(max(1, piece_bits))
        early = Signal(8 * spec.matrix_rows, reset_less=True)
        stalled = Signal()
        first_read = Signal()
        m.d.comb += [
            row.eq(address[piece_bits:]),
            stalled.eq(arriving & self.valid & ~self.take),
            first_read.eq(rows_left.any() & ~reading_second & ~stalled),
            self.source.address.eq(Mux(stalled, held_row, Mux(reading_second, row + 1, row))),
        ]
        with m.If(~stalled):
            m.d.sync += [held_row.eq(self.source.address), arriving.eq(reading_second)]
        m.d.sync += reading_second.eq(first_read)
        with m.If(reading_second):
            m.d.sync += [early.eq(self.source.data), piece.eq(address[:piece_bits])]
            with m.If(step + 1 == steps):
                m.d.sync += [
                    step.eq(0),
                    row_address.eq(row_address + self.operation.source_pitch),
                    rows_left.eq(rows_left - 1),
                ]
            with m.Else():
                m.d.sync += step.eq(step + 1)

        # Both rows turned so that the piece at the source address comes first.
        joined = Cat(early, self.source.data)
        turned = Array([joined[32 * k :][: 8 * spec.matrix_rows] for k in range(pieces)])
        with m.If(arriving & ~stalled):
            m.d.sync += [self.bytes.eq(turned[piece] if pieces > 1 else early), self.valid.eq(1)]
        with m.Elif(self.take):
            m.d.sync += self.valid.eq(0)
        with m.If(self.start):
            m.d.sync += [
                row_address.eq(self.operation.source),
                rows_left.eq(self.operation.rows),
                step.eq(0),
            ]
        return m


class _Spread(wiring.Component):
    """One word, and its strobes, from the bytes of a step; combinational.

    Members
    -------
    pattern, lane, half : In
        `half` is the number of the word in its step.
    bytes : In(8 * matrix_rows)
    word, strobe : Out
        Bytes without strobe are zero.
    """

    pattern: Value
    lane: Value
    half: Value
    bytes: Value
    word: Value
    strobe: Value

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        super().__init__({
            "pattern": In(2),
            "lane": In(ceil_log2(spec.matrix_rows)),
            "half": In(1),
            "bytes": In(8 * spec.matrix_rows),
            "word": Out(8 * spec.word_bytes),
            "strobe": Out(spec.word_bytes),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes = self.spec.word_bytes // 4
        spread = Signal()
        upper = Signal(8 * lanes)
        m.d.comb += [
            spread.eq(self.pattern == Pattern.SPREAD),
            upper.eq(Mux(self.half, self.bytes[8 * lanes :], self.bytes[: 8 * lanes])),
        ]
        byte_chosen = Signal(4)
        m.d.comb += byte_chosen.eq(1 << self.lane[:2])
        for lane in range(lanes):
            chosen = Signal(name=f"chosen{lane}")
            m.d.comb += chosen.eq(self.lane == Cat(Const(lane, exact_log2(lanes)), self.half))
            for k in range(4):
                byte = Signal(8, name=f"byte{4 * lane + k}")
                strobe = self.strobe[4 * lane + k]
                m.d.comb += [
                    strobe.eq(Mux(spread, byte_chosen[k], chosen)),
                    byte.eq(Mux(spread, upper.word_select(lane, 8), self.bytes.word_select(k, 8))),
                    self.word.word_select(4 * lane + k, 8).eq(Mux(strobe, byte, 0)),
                ]
        return m


class _Transfer(wiring.Component):
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
        spec = self.spec
        channels = spec.channels
        scalar = Signal()
        row_beats = Signal(9)
        row_word = Signal(ADDRESS_BITS, reset_less=True)
        rows_left = Signal(8)
        left = Signal(9)
        m.d.comb += scalar.eq(self.operation.pattern == Pattern.SCALAR)
        with m.Switch(self.operation.pattern):
            with m.Case(Pattern.COLUMN):
                m.d.comb += row_beats.eq(self.operation.steps << 1)
            with m.Case(Pattern.SPREAD):
                m.d.comb += row_beats.eq(2)
            with m.Default():
                m.d.comb += row_beats.eq(1)

        # Responses that are missing, by channel.
        room = Signal(channels)
        missing = Signal(channels)
        for channel in range(channels):
            count = Signal(range(spec.write_outstanding + 1), name=f"missing{channel}")
            accepted = self.address_valid[channel] & self.address_ready[channel]
            m.d.sync += count.eq(count + accepted - self.response[channel])
            m.d.comb += [
                room[channel].eq(count != spec.write_outstanding),
                missing[channel].eq(count.any()),
            ]

        # The burst under way. A channel's data may run ahead of its address, but not of its request.
        active = Signal()
        index = Signal.like(self.beats)
        to_boundary = Signal.like(self.beats)
        address_taken = Signal(channels)
        data_taken = Signal(channels)
        addressed = Signal(channels)
        data_done = Signal()
        finished = Signal()
        m.d.comb += [
            active.eq(rows_left.any() & self.open),
            to_boundary.eq(spec.burst_beats - self.word[: exact_log2(spec.burst_beats)]),
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
            self.ended.eq(~rows_left.any() & ~missing.any()),
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
        return m
