"""Data of the store unit: the bytes of a step from the store buffer, and their places in a memory word."""

from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from hw.core.ports import operation_layout, read_port
from hw.spec.instructions import BUFFER_BITS, Pattern, Unit
from hw.spec.machine import MachineSpec


class StoreGather(wiring.Component):
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


class StoreSpread(wiring.Component):
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
