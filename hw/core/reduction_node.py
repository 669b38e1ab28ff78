"""Ends of DSP groups: outputs leave there, and low lanes are kept from overflowing."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.core.pair_mac import extract_lanes
from hw.spec.chain import ChainSpec
from hw.spec.dsp import LANE_BITS, P_BITS

__all__ = ["OverflowAdjust", "ReductionNode", "pending_layout"]


def pending_layout(spec: ChainSpec) -> data.StructLayout:
    """What has left the cascade of an output, on its way to the node at which the output ends."""
    units = max(1, len(spec.adjusted_cells))
    return data.StructLayout({
        # Upper parts of the low lane, in units of 2**kept_bits.
        "low": signed(spec.split_bits + (units - 1).bit_length()),
        # Borrows that negative low lanes took from the high lane.
        "borrows": units.bit_length(),
    })


class OverflowAdjust(wiring.Component):
    """Splits the low lane of a word: the lower part goes on, the upper part to the next reduction node.

    Combinational. The high lane goes on as it is, less a borrow where the low lane is negative; that is
    counted, and given back at the node. So nothing is added here.

    Parameters
    ----------
    spec : ChainSpec
        The chain.

    Members
    -------
    word : In(signed(48))
        Word of the cell in front.
    earlier : In(pending_layout(spec))
        What has left the cascade before.
    rest : Out(signed(48))
        Word that the next cell starts from.
    pending : Out(pending_layout(spec))
        What has left the cascade now.
    """

    word: Value
    earlier: Any
    rest: Value
    pending: Any

    def __init__(self, spec: ChainSpec) -> None:
        self.spec = spec
        layout = pending_layout(spec)
        super().__init__({
            "word": In(signed(P_BITS)),
            "earlier": In(layout),
            "rest": Out(signed(P_BITS)),
            "pending": Out(layout),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        kept = self.spec.kept_bits
        upper = self.word[kept:LANE_BITS].as_signed()
        m.d.comb += [
            self.rest.eq(Cat(self.word[:kept], Const(0, LANE_BITS - kept), self.word[LANE_BITS:])),
            self.pending.low.eq(self.earlier.low + upper),
            self.pending.borrows.eq(self.earlier.borrows + self.word[LANE_BITS - 1]),
        ]
        return m


class ReductionNode(wiring.Component):
    """The two sums of an output that ends here, complete and separate; registered.

    No flow control; registers keep their values while `enable` is low. Latency 1.

    Parameters
    ----------
    spec : ChainSpec
        The chain.

    Members
    -------
    enable : In(1)
        Clock enable.
    word : In(signed(48))
        Word of the group's last cell.
    pending : In(pending_layout(spec))
        What has left the cascade before.
    low, high : Out(signed(output_bits))
        The sums.
    """

    enable: Value
    word: Value
    pending: Any
    low: Value
    high: Value

    def __init__(self, spec: ChainSpec) -> None:
        self.spec = spec
        super().__init__({
            "enable": In(1),
            "word": In(signed(P_BITS)),
            "pending": In(pending_layout(spec)),
            "low": Out(signed(spec.output_bits)),
            "high": Out(signed(spec.output_bits)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        low, high = extract_lanes(self.word)
        if spec.adjusted_cells:
            upper = Cat(Const(0, spec.kept_bits), self.pending.low).as_signed()
            # One small sum first, so that the long one has two terms.
            borrows = Signal(len(self.pending.borrows) + 1)
            m.d.comb += borrows.eq(self.pending.borrows + self.word[LANE_BITS - 1])
            low, high = low + upper, self.word[LANE_BITS:].as_signed() + borrows
        with m.If(self.enable):
            m.d.sync += [self.low.eq(low), self.high.eq(high)]
        return m


def carried_on(broken: Value, pending: Any) -> Value:
    """What is pending behind a group end: nothing if an output ended there."""
    value = Value.cast(pending)
    return Mux(broken, 0, value)
