"""Chooses the activation that a kept weight belongs to."""

from typing import Any

from amaranth.hdl import Module, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.core.pair_mac import OPERAND_BITS
from hw.spec.chain import CANDIDATES, INDEX_BITS

__all__ = ["SparseMultiplexer"]


class SparseMultiplexer(wiring.Component):
    """One of 16 activations of two tokens each, by a four-bit index; registered.

    No flow control; the register keeps its value while `enable` is low. Latency 1.

    Members
    -------
    enable : In(1)
        Clock enable.
    index : In(4)
        Which activation.
    first, second : In(ArrayLayout(signed(8), 16))
        Activations of two tokens.
    chosen, other : Out(signed(8))
        The chosen one of each.
    """

    enable: Value
    index: Value
    # pyright knows no items of views.
    first: Any
    second: Any
    chosen: Value
    other: Value

    def __init__(self) -> None:
        activations = data.ArrayLayout(signed(OPERAND_BITS), CANDIDATES)
        super().__init__({
            "enable": In(1),
            "index": In(INDEX_BITS),
            "first": In(activations),
            "second": In(activations),
            "chosen": Out(signed(OPERAND_BITS)),
            "other": Out(signed(OPERAND_BITS)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        chosen = Signal(signed(OPERAND_BITS))
        other = Signal(signed(OPERAND_BITS))
        with m.Switch(self.index):
            for place in range(CANDIDATES):
                with m.Case(place) if place < CANDIDATES - 1 else m.Default():
                    m.d.comb += [chosen.eq(self.first[place]), other.eq(self.second[place])]
        with m.If(self.enable):
            m.d.sync += [self.chosen.eq(chosen), self.other.eq(other)]
        return m
