"""On-chip buffers: one writer, any number of readers."""

from pathlib import Path
from typing import Any

from amaranth.hdl import Array, Cat, ClockSignal, Instance, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from amaranth.utils import ceil_log2

from hw.core.ports import read_port, write_port

VERILOG = Path(__file__).parent / "verilog" / "lpu_ram.v"
"""The memory itself, hand-written: generated memories carry an initial value for every row."""


class Buffer(wiring.Component):
    """A synchronous memory with one writing port and one or more reading ports.

    Block memories have one port of each kind, so every reader has a copy of its own. A row that is read in
    the cycle in which it is written shows its old content. All rows are zero when the simulation starts.

    Parameters
    ----------
    depth, width : int
        Rows, and bits of a row.
    granularity : int or None
        Bits that one write enable bit covers; the whole row if None.
    readers : int
        Reading ports.

    Members
    -------
    write : In(write_port(depth, width, granularity))
    read : In(read_port(depth, width)), an array of `readers`
    """

    write: Any
    read: list[Any]

    def __init__(
        self, depth: int, width: int, granularity: int | None = None, readers: int = 1
    ) -> None:
        if depth < 2 or depth & (depth - 1):
            raise ValueError(f"depth must be a power of two above 1, not {depth!r}")
        if granularity is not None and width % granularity:
            raise ValueError(f"granularity must divide the width {width}, not {granularity!r}")
        self.depth = depth
        self.width = width
        self.granularity = granularity or width
        self.readers = readers
        super().__init__({
            "write": In(write_port(depth, width, granularity)),
            "read": In(read_port(depth, width)).array(readers),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for number, reader in enumerate(self.read):
            m.submodules[f"copy{number}"] = Instance(
                "lpu_ram",
                p_WIDTH=self.width,
                p_DEPTH=self.depth,
                p_ADDRESS=ceil_log2(self.depth),
                p_GRANULARITY=self.granularity,
                i_clk=ClockSignal(),
                i_write_enable=self.write.enable,
                i_write_address=self.write.address,
                i_write_data=self.write.data,
                i_read_address=reader.address,
                o_read_data=reader.data,
            )
        return m


class InputBuffer(wiring.Component):
    """Words in, rows of the vector unit out: a word is one or more rows.

    Each row of a word lies in a memory of its own.

    Parameters
    ----------
    words, width : int
        Words, and bits of one.
    parts : int
        Rows in a word.
    readers : int
        Reading ports.

    Members
    -------
    write : In(write_port(words, width))
    read : In(read_port(words * parts, width // parts)), an array of `readers`
    """

    write: Any
    read: list[Any]

    def __init__(self, words: int, width: int, parts: int, readers: int) -> None:
        self.words = words
        self.width = width
        self.parts = parts
        self.readers = readers
        super().__init__({
            "write": In(write_port(words, width)),
            "read": In(read_port(words * parts, width // parts)).array(readers),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        row_bits = self.width // self.parts
        part_bits = ceil_log2(self.parts)
        memories = [Buffer(self.words, row_bits, readers=self.readers) for _ in range(self.parts)]
        for part, memory in enumerate(memories):
            m.submodules[f"part{part}"] = memory
            m.d.comb += [
                memory.write.enable.eq(self.write.enable),
                memory.write.address.eq(self.write.address),
                memory.write.data.eq(self.write.data.word_select(part, row_bits)),
            ]
        for number, reader in enumerate(self.read):
            for memory in memories:
                m.d.comb += memory.read[number].address.eq(reader.address[part_bits:])
            rows = [memory.read[number].data for memory in memories]
            if len(rows) == 1:
                m.d.comb += reader.data.eq(rows[0])
                continue
            chosen = Signal(part_bits, name=f"chosen_{number}", reset_less=True)
            m.d.sync += chosen.eq(reader.address[:part_bits])
            m.d.comb += reader.data.eq(Array(rows)[chosen])
        return m


class StreamRing(wiring.Component):
    """The weight stream ring: words in, pairs of consecutive words out.

    Even and odd words lie in memories of their own.

    Parameters
    ----------
    depth, width : int
        Words, and bits of a word.
    paired : bool
        Pairs begin with even words, and the address counts pairs; otherwise it counts words.

    Members
    -------
    write : In(write_port(depth, width))
    read : In(read_port(depth // 2 if paired else depth, 2 * width))
        The pair's first word is the low half of a row; behind the last word follows word 0.
    """

    write: Any
    read: Any

    def __init__(self, depth: int, width: int, paired: bool) -> None:
        self.depth = depth
        self.width = width
        self.paired = paired
        super().__init__({
            "write": In(write_port(depth, width)),
            "read": In(read_port(depth // 2 if paired else depth, 2 * width)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.even = even = Buffer(self.depth // 2, self.width)
        m.submodules.odd = odd = Buffer(self.depth // 2, self.width)
        for number, half in enumerate((even, odd)):
            m.d.comb += [
                half.write.enable.eq(self.write.enable & (self.write.address[0] == number)),
                half.write.address.eq(self.write.address[1:]),
                half.write.data.eq(self.write.data),
            ]
        words = Cat(even.read[0].data, odd.read[0].data)
        address = self.read.address
        if self.paired:
            m.d.comb += [
                even.read[0].address.eq(address),
                odd.read[0].address.eq(address),
                self.read.data.eq(words),
            ]
        else:
            swapped = Signal(reset_less=True)
            m.d.sync += swapped.eq(address[0])
            m.d.comb += [
                even.read[0].address.eq(address[1:] + address[0]),
                odd.read[0].address.eq(address[1:]),
                self.read.data.eq(Mux(swapped, words.rotate_left(self.width), words)),
            ]
        return m


class ActivationBuffer(wiring.Component):
    """INT8 activations: rows of `lanes` bytes in, wider rows of `row_bytes` out.

    Parameters
    ----------
    rows, lanes, row_bytes : int
        Rows written; bytes of a row written; bytes of a row read, a multiple of `lanes`.
    readers : int
        Reading ports, each with a copy of the memory.

    Members
    -------
    write : In(write_port(rows, 8 * lanes))
    read : In(read_port(rows * lanes // row_bytes, 8 * row_bytes)), an array of `readers`
    """

    write: Any
    read: Any

    def __init__(self, rows: int, lanes: int, row_bytes: int, readers: int = 1) -> None:
        self.rows = rows
        self.lanes = lanes
        self.row_bytes = row_bytes
        self.readers = readers
        super().__init__({
            "write": In(write_port(rows, 8 * lanes)),
            "read": In(read_port(rows * lanes // row_bytes, 8 * row_bytes)).array(readers),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        parts = self.row_bytes // self.lanes
        m.submodules.memory = memory = Buffer(
            self.rows // parts, 8 * self.row_bytes, 8 * self.lanes, self.readers
        )
        low = ceil_log2(parts)
        m.d.comb += [
            memory.write.enable.eq(self.write.enable << self.write.address[:low]),
            memory.write.address.eq(self.write.address[low:]),
            memory.write.data.eq(self.write.data.replicate(parts)),
        ]
        for port, copy in zip(self.read, memory.read, strict=True):
            m.d.comb += [copy.address.eq(port.address), port.data.eq(copy.data)]
        return m
