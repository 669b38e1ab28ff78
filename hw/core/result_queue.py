"""A FIFO behind a pipeline that does not stop, for results that are sure of a place."""

from amaranth.hdl import Module, Signal, Value, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["ResultQueue"]


class ResultQueue(wiring.Component):
    """Keeps results in order until they are taken; one a cycle in, one a cycle out.

    Whoever sends counts the places: a result that comes while all are taken is lost. A place is taken until
    `taken` of its result. No result passes more than a lookup table between two registers, and nothing
    that reaches every bit of a result comes from an adder: wide queues are as fast as narrow ones, nearly.

    Parameters
    ----------
    width : int
        Bits of a result.
    depth : int
        Places in memory, a power of two of at least 4.

    Members
    -------
    result : In(width)
        A result.
    done : In(1)
        There is one.
    payload, valid, ready : Out(width), Out(1), In(1)
        The oldest one, offered as on a stream, `hw.spec.chain.QUEUE_LATENCY` cycles later at the earliest.
    taken : Out(1)
        It leaves in this cycle.
    """

    result: Value
    done: Value
    payload: Value
    valid: Value
    ready: Value
    taken: Value

    def __init__(self, width: int, depth: int) -> None:
        if depth < 4 or depth & (depth - 1):
            raise ValueError(f"depth must be a power of two of at least 4, not {depth!r}")
        self.width = width
        self.depth = depth
        super().__init__({
            "result": In(width),
            "done": In(1),
            "payload": Out(width),
            "valid": Out(1),
            "ready": In(1),
            "taken": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        entry = Signal(self.width, reset_less=True)
        enable = Signal()
        pop = Signal()
        some = Signal()
        level = Signal(range(self.depth + 1))
        later = Signal.like(level)
        m.submodules.storage = storage = memory.Memory(
            shape=unsigned(self.width), depth=self.depth, init=[]
        )
        write, oldest = storage.write_port(), storage.read_port(domain="comb")
        m.d.comb += [
            write.en.eq(enable),
            write.data.eq(entry),
            self.taken.eq(self.valid & self.ready),
            pop.eq(some & (~self.valid | self.ready)),
            later.eq(level + enable - pop),
        ]
        m.d.sync += [
            enable.eq(self.done),
            entry.eq(self.result),
            write.addr.eq(write.addr + enable),
            oldest.addr.eq(oldest.addr + pop),
            level.eq(later),
            some.eq(later.any()),
        ]
        with m.If(self.ready | ~self.valid):
            m.d.sync += [self.valid.eq(some), self.payload.eq(oldest.data)]
        return m
