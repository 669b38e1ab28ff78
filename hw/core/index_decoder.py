"""Index information of sparse weights, in any of its formats, to the index of each cell."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.core.pipeline import delays
from hw.spec.chain import (
    CANDIDATES,
    INDEX_BITS,
    KEPT,
    KEPT_BITS,
    METADATA_BITS,
    IndexFormat,
)

__all__ = ["IndexDecoder", "decoder_input_layout", "decoder_output_layout"]

LATENCY = 2


def decoder_input_layout(tag_bits: int) -> data.StructLayout:
    """A beat of index information."""
    return data.StructLayout({
        # An `IndexFormat`.
        "format": 2,
        # Position of N in `KEPT`.
        "kept": KEPT_BITS,
        "metadata": METADATA_BITS,
        "tag": tag_bits,
    })


def decoder_output_layout(tag_bits: int) -> data.StructLayout:
    """The index of each of 16 cells."""
    return data.StructLayout({
        "indices": data.ArrayLayout(INDEX_BITS, CANDIDATES),
        "tag": tag_bits,
    })


class IndexDecoder(wiring.Component):
    """Indices of 16 cells from any `IndexFormat`, another one each beat if need be.

    Of a bitmap, cell j takes the place of bit number (j modulo N) that is set, in the bitmap of its
    output; an index that a bitmap lacks is zero. A format with an N that it does not know gives
    indices without meaning.

    Streams: one beat a cycle, latency 2.

    Parameters
    ----------
    tag_bits : int
        Bits that accompany a beat unchanged, such as its weights.

    Members
    -------
    i : In(stream.Signature(decoder_input_layout(tag_bits)))
        Index information.
    o : Out(stream.Signature(decoder_output_layout(tag_bits)))
        Indices.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, tag_bits: int = 1) -> None:
        if tag_bits < 1:
            raise ValueError(f"tag_bits must be at least 1, not {tag_bits!r}")
        self.tag_bits = tag_bits
        super().__init__({
            "i": In(stream.Signature(decoder_input_layout(tag_bits))),
            "o": Out(stream.Signature(decoder_output_layout(tag_bits))),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        enable = Signal()
        valid = Signal()
        m.d.comb += [enable.eq(~self.o.valid | self.o.ready), self.i.ready.eq(enable)]
        with m.If(enable):
            m.d.sync += [valid.eq(self.i.valid), self.o.valid.eq(valid)]

        beat = self.i.payload
        tags = delays(m, "tag", beat.tag, LATENCY, enable)
        formats = delays(m, "format", beat.format, 1, enable)
        eights = delays(m, "eight", beat.kept == KEPT.index(8), 1, enable)
        metadata = delays(m, "metadata", beat.metadata, 1, enable)[1]
        places = self._places(m, beat.metadata, enable)
        indices = Signal(data.ArrayLayout(INDEX_BITS, CANDIDATES))
        for cell in range(CANDIDATES):
            four, eight = places[cell // 4][cell % 4], places[cell // 8][cell % 8]
            half = metadata.word_select(cell, 2)
            with m.Switch(formats[1]):
                with m.Case(IndexFormat.INDEX.value):
                    m.d.comb += indices[cell].eq(metadata.word_select(cell, INDEX_BITS))
                with m.Case(IndexFormat.BITMAP.value):
                    m.d.comb += indices[cell].eq(Mux(eights[1], eight, four))
                with m.Case(IndexFormat.TWO_OF_FOUR.value):
                    m.d.comb += indices[cell].eq(Cat(half, Const(cell % 8 // 2, 2)))
                with m.Default():
                    m.d.comb += indices[cell].eq(cell)
        m.d.comb += [
            self.o.payload.indices.eq(delays(m, "indices", indices.as_value(), 1, enable)[1]),
            self.o.payload.tag.eq(tags[LATENCY]),
        ]
        return m

    def _places(self, m: Module, metadata: Value, enable: Value) -> list[list[Value]]:
        """For each bitmap, the places of its first bits: 8 of the first two, 4 of the others."""
        result: list[list[Value]] = []
        for number in range(CANDIDATES // 4):
            bitmap = metadata.word_select(number, CANDIDATES)
            ranks = 8 if number < 2 else 4
            # How many bits are below each place, up to as many as matter.
            hits: list[Value] = []
            for place in range(CANDIDATES):
                below = Signal(INDEX_BITS, name=f"below_{number}_{place}")
                m.d.comb += below.eq(sum(bitmap[p] for p in range(place)))
                for rank in range(ranks):
                    reached = (below == rank) if rank else ~below.any()
                    hits.append(bitmap[place] & reached)
            late = delays(m, f"hits_{number}", Cat(hits), 1, enable)[1]
            result.append([])
            for rank in range(ranks):
                place_bits = [
                    Cat(late[ranks * p + rank] for p in range(CANDIDATES) if p >> bit & 1).any()
                    for bit in range(INDEX_BITS)
                ]
                result[-1].append(Cat(place_bits))
        return result
