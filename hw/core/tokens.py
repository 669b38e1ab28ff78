"""Counters of synchronization tokens between the sequencers."""

from amaranth.hdl import C, Cat, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.spec.instructions import SEMAPHORE_BITS, Unit


class Tokens(wiring.Component):
    """One counter of tokens for every ordered pair of units, a unit and itself included.

    A token that is signalled in one cycle is available in the next. Both may happen in one cycle.

    Members
    -------
    clear : In(1)
        Forget all tokens.
    send : In(5), an array by unit
        Units to which this unit sends one token each.
    take : In(5), an array by unit
        Units of which this unit takes one token each; only where `available`.
    available : Out(5), an array by unit
        Units that have sent this unit tokens which it has not taken yet.
    overflow : Out(1)
        A counter that was full is signalled and not taken from; combinational.
    """

    clear: Value
    send: list[Value]
    take: list[Value]
    available: list[Value]
    overflow: Value

    def __init__(self) -> None:
        units = len(Unit)
        super().__init__({
            "clear": In(1),
            "send": In(units).array(units),
            "take": In(units).array(units),
            "available": Out(units).array(units),
            "overflow": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        overflows = []
        for source in Unit:
            for sink in Unit:
                count = Signal(SEMAPHORE_BITS, name=f"{source.name}_to_{sink.name}".lower())
                send = self.send[source][sink]
                take = self.take[sink][source]
                with m.If(self.clear):
                    m.d.sync += count.eq(0)
                with m.Elif(send != take):
                    # Minus one is all ones: take is spread over the width.
                    m.d.sync += count.eq(count + Cat(C(1, 1), take.replicate(SEMAPHORE_BITS - 1)))
                m.d.comb += self.available[sink][source].eq(count.any())
                overflows.append(count.all() & send & ~take)
        m.d.comb += self.overflow.eq(Cat(overflows).any())
        return m
