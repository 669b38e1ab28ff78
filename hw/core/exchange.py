"""The network between cores: parts of vectors to all cores, reductions over all cores, and the best token of all."""

from typing import Any

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.core.vector_reduce import INDEX_BITS, KEY_BITS, SUM_WIDTH
from hw.spec.instructions import COUNT_BITS
from hw.spec.machine import MachineSpec

__all__ = [
    "Exchange",
    "RowResults",
    "TokenChoice",
    "received_layout",
    "result_layout",
    "sent_layout",
]


def sent_layout(spec: MachineSpec) -> data.StructLayout:
    """A beat that a core sends to all; `last` of its row."""
    return data.StructLayout({"valid": 1, "last": 1, "data": 32 * spec.lanes})


def received_layout(spec: MachineSpec) -> data.StructLayout:
    """What every core gets in a cycle: the beat of one core; `first` and `final` of those of one beat."""
    return data.StructLayout({
        "valid": 1,
        "first": 1,
        "final": 1,
        "last": 1,
        "data": 32 * spec.lanes,
    })


def result_layout() -> data.StructLayout:
    """What a row is reduced to: a sum in fixed point, or else the key of a largest element."""
    return data.StructLayout({"valid": 1, "is_sum": 1, "value": SUM_WIDTH})


class Exchange(wiring.Component):
    """Takes a beat of every core in the same cycle, and sends all of them to all cores, one a cycle.

    The beat of core j, sent in cycle t, is received in cycle t + exchange_latency + j. The next beats may be sent
    `cores` cycles later.

    Parameters
    ----------
    spec : MachineSpec
        Cores, lanes and latency.

    Members
    -------
    sent : In(sent_layout(spec)), an array of `cores`
    o : Out(received_layout(spec))
        The same for every core.
    offer : In(cores)
        Cores whose vector unit has an exchange before it.
    go : Out(1)
        All have.
    """

    sent: Any  # pyright knows no arrays of members
    o: data.View
    offer: Value
    go: Value

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        super().__init__({
            "sent": In(sent_layout(spec)).array(spec.cores),
            "o": Out(received_layout(spec)),
            "offer": In(spec.cores),
            "go": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cores = self.spec.cores
        m.d.comb += self.go.eq(self.offer.all())
        beats = [Signal(sent_layout(self.spec), name=f"beat_{core}") for core in range(cores)]
        number = Signal(range(cores))
        valid = Signal()
        with m.If(self.sent[0].valid):
            m.d.sync += [number.eq(0), valid.eq(1)]
            m.d.sync += [beat.eq(sent) for beat, sent in zip(beats, self.sent, strict=True)]
        with m.Elif(number == cores - 1):
            m.d.sync += valid.eq(0)
        with m.Else():
            m.d.sync += number.eq(number + 1)
        stages = [Signal(received_layout(self.spec), name="stage_0")]
        m.d.comb += [
            stages[0].valid.eq(valid),
            stages[0].first.eq(number == 0),
            stages[0].final.eq(number == cores - 1),
            stages[0].last.eq(beats[0].last),
            stages[0].data.eq(Array(beat.data for beat in beats)[number]),
        ]
        for age in range(1, self.spec.exchange_latency):
            stages.append(Signal(received_layout(self.spec), name=f"stage_{age}"))
            m.d.sync += stages[age].eq(stages[age - 1])
        m.d.comb += self.o.eq(stages[-1])
        return m


class RowResults(wiring.Component):
    """Takes what a row is reduced to in every core in the same cycle; gives their sum, or the largest, to all.

    Latency `exchange_latency`, one row a cycle. Sums are of integers and keys have one largest, so that the order of cores
    does not matter.

    Parameters
    ----------
    spec : MachineSpec
        Cores and latency.

    Members
    -------
    result : In(result_layout()), an array of `cores`
        `valid` and `is_sum` are the same in all.
    o : Out(result_layout())
    """

    result: Any  # pyright knows no arrays of members
    o: data.View

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        super().__init__({
            "result": In(result_layout()).array(spec.cores),
            "o": Out(result_layout()),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        total = Signal(SUM_WIDTH)
        m.d.comb += total.eq(sum(result.value for result in self.result))
        largest: Value = self.result[0].value[:KEY_BITS]
        for core in range(1, self.spec.cores):
            key = self.result[core].value[:KEY_BITS]
            larger = Signal(KEY_BITS, name=f"largest_{core}")
            m.d.comb += larger.eq(Mux(key > largest, key, largest))
            largest = larger
        first = self.result[0]
        combined = Signal(result_layout())
        m.d.comb += [
            combined.valid.eq(first.valid),
            combined.is_sum.eq(first.is_sum),
            combined.value.eq(Mux(first.is_sum, total, largest)),
        ]
        for age in range(self.spec.exchange_latency):
            later = Signal(result_layout(), name=f"combined_{age}")
            m.d.sync += later.eq(combined)
            combined = later
        m.d.comb += self.o.eq(combined)
        return m


class TokenChoice(wiring.Component):
    """The token of the largest ARGMAX value of all cores; on a tie the lowest.

    Core j's output number i stands for token i * cores + j. Latency `exchange_latency`, one choice a cycle.

    Parameters
    ----------
    spec : MachineSpec
        Cores and latency.

    Members
    -------
    key : In(KEY_BITS), index : In(INDEX_BITS), arrays of `cores`
        Rank and number of each core's largest output.
    o : Out(COUNT_BITS)
        The token.
    """

    key: Any  # pyright knows no arrays of members
    index: Any
    o: Value

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        super().__init__({
            "key": In(KEY_BITS).array(spec.cores),
            "index": In(INDEX_BITS).array(spec.cores),
            "o": Out(COUNT_BITS),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        # An inverted token below the key: of equal keys the lowest token is the largest.
        best: Value | None = None
        for core in range(spec.cores):
            token = Signal(COUNT_BITS, name=f"token_{core}")
            m.d.comb += token.eq(self.index[core] * spec.cores + core)
            candidate = Signal(KEY_BITS + COUNT_BITS, name=f"candidate_{core}")
            m.d.comb += candidate.eq(Cat(~token, self.key[core]))
            if best is None:
                best = candidate
            else:
                larger = Signal(KEY_BITS + COUNT_BITS, name=f"best_{core}")
                m.d.comb += larger.eq(Mux(candidate > best, candidate, best))
                best = larger
        assert best is not None
        chosen: Value = ~best[:COUNT_BITS]
        for age in range(spec.exchange_latency):
            later = Signal(COUNT_BITS, name=f"chosen_{age}")
            m.d.sync += later.eq(chosen)
            chosen = later
        m.d.comb += self.o.eq(chosen)
        return m
