"""Runs the stream FIFO bench on two shapes, and checks that the bench can fail."""

import pytest
from amaranth.hdl import Module, signed
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from sim_tests.bench import layout_fields, run_bench

BENCH = "sim_tests.bench_stream_fifo"


class StreamFifo(wiring.Component):
    """A queue of words; the input is ready while there is space.

    Members
    -------
    i : In(stream.Signature(payload))
    o : Out(stream.Signature(payload))
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, payload: data.StructLayout, depth: int):
        self.payload = payload
        self.depth = depth
        super().__init__({"i": In(stream.Signature(payload)), "o": Out(stream.Signature(payload))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.queue = queue = fifo.SyncFIFOBuffered(
            width=self.payload.size, depth=self.depth
        )
        m.d.comb += [
            queue.w_data.eq(self.i.payload.as_value()),
            queue.w_en.eq(self.i.valid),
            self.i.ready.eq(queue.w_rdy),
            self.o.payload.as_value().eq(queue.r_data),
            self.o.valid.eq(queue.r_rdy),
            queue.r_en.eq(self.o.ready),
        ]
        return m


NARROW = data.StructLayout({"a": signed(5), "b": 3})
WIDE = data.StructLayout({"word": 512, "last": 1})


@pytest.mark.parametrize("payload, depth", [(NARROW, 4), (WIDE, 16)], ids=["narrow", "wide"])
def test_stream_fifo(payload: data.StructLayout, depth: int) -> None:
    parameters = {"layout": layout_fields(payload), "depth": depth}
    result = run_bench(
        "stream_fifo", lambda: StreamFifo(payload, depth), BENCH, parameters=parameters
    )
    assert result.tests == 11


class InvertsLowestBit(StreamFifo):
    """A StreamFifo with a fault in its data path."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.inner = inner = StreamFifo(self.payload, self.depth)
        m.d.comb += [
            inner.i.payload.as_value().eq(self.i.payload.as_value() ^ 1),
            inner.i.valid.eq(self.i.valid),
            self.i.ready.eq(inner.i.ready),
        ]
        wiring.connect(m, inner.o, wiring.flipped(self.o))
        return m


def test_a_fault_in_the_netlist_is_found() -> None:
    parameters = {"layout": layout_fields(NARROW), "depth": 4}
    with pytest.raises(AssertionError, match="9 of 9 tests failed"):
        run_bench(
            "stream_fifo_faulty",
            lambda: InvertsLowestBit(NARROW, 4),
            BENCH,
            parameters=parameters,
            only="keeps_order",
        )


def test_a_module_without_tests_is_an_error() -> None:
    with pytest.raises(AssertionError, match="no cocotb test"):
        run_bench("stream_fifo", lambda: StreamFifo(NARROW, 4), "sim_tests.packing")


# Offers a new word every cycle whether the last was taken or not, and never accepts one.
BREAKS_THE_RULES = """
module top(clk, rst, i__valid, i__ready, i__payload, o__valid, o__ready, o__payload, drops);
  input clk;
  input rst;
  input drops;
  input i__valid;
  output i__ready;
  input [7:0] i__payload;
  output o__valid;
  input o__ready;
  output [7:0] o__payload;
  reg [7:0] count = 0;
  assign i__ready = 0;
  assign o__valid = !drops || count[1];
  assign o__payload = drops ? 8'd7 : count;
  always @(posedge clk) count <= rst ? 0 : count + 1;
endmodule
"""


def test_streams_that_break_the_rules_are_found() -> None:
    result = run_bench("broken_streams", BREAKS_THE_RULES, "sim_tests.bench_broken_streams")
    assert result.tests == 4
