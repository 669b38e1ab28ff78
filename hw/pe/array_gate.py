"""Acceptance of beats: when a systolic array may take the next one."""

from amaranth.hdl import Module, Mux, Signal, Value, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.spec.systolic import SystolicSpec

__all__ = ["BeatGate", "WeightGate"]


class BeatGate(wiring.Component):
    """Holds a beat back until nothing behind it can overflow or collide.

    * The first beat of a group (os) or pass (ws) waits for its scales, or for its weights: `prepared`.
    * A beat that completes results waits for room for them, and for the scales of their rows. Both are
      counted when it is accepted, so that the array never has to stop.
    * Output stationary, last beats are at least `spec.drain_interval` cycles apart. Weight stationary, two
      beats for one entry are at least `spec.accumulate_interval` cycles apart.

    Parameters
    ----------
    spec : SystolicSpec
        The array.

    Members
    -------
    first, last, close, address : In
        Fields of the beat; `address` only with dequantization.
    valid : In(1)
        There is a beat.
    prepared : In(1)
        Scales or weights are there.
    token : In(1)
        The scale of one more row has come in.
    taken : In(1)
        A row of results was taken.
    ready, accepted : Out(1)
        The beat may come in; it does.
    """

    first: Value
    last: Value
    close: Value
    address: Value
    valid: Value
    prepared: Value
    token: Value
    taken: Value
    ready: Value
    accepted: Value

    def __init__(self, spec: SystolicSpec) -> None:
        self.spec = spec
        super().__init__({
            **{name: In(1) for name in ("first", "last", "close", "valid", "prepared")},
            "address": In(unsigned(spec.address_bits)),
            "token": In(1),
            "taken": In(1),
            "ready": Out(1),
            "accepted": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        rows = spec.rows if spec.output_stationary else 1
        closing = Signal()
        room = Signal(range(spec.result_rows + 1), init=spec.result_rows)
        m.d.comb += closing.eq(self.close & (self.last if spec.output_stationary else 1))
        taken = Mux(self.accepted & closing, rows, 0)
        m.d.sync += room.eq(room - taken + self.taken)
        enough = room >= rows
        if spec.dequantizes:
            tokens = Signal(range(spec.token_scale_rows + 1))
            m.d.sync += tokens.eq(tokens - taken + self.token)
            enough &= tokens >= rows
        apart = self._spaced(m) if spec.output_stationary else self._distinct(m)
        m.d.comb += [
            self.ready.eq((~self.first | self.prepared) & (~closing | enough) & apart),
            self.accepted.eq(self.ready & self.valid),
        ]
        return m

    def _spaced(self, m: Module) -> Value:
        """Whether the column units have time for another group."""
        wait = Signal(range(max(self.spec.drain_interval, 2)))
        with m.If(self.accepted & self.last):
            m.d.sync += wait.eq(self.spec.drain_interval - 1)
        with m.Elif(wait.any()):
            m.d.sync += wait.eq(wait - 1)
        return ~self.last | ~wait.any()

    def _distinct(self, m: Module) -> Value:
        """Whether no addition to the same entry is under way."""
        same: Value | int = 0
        valid: Value = self.accepted
        address: Value = self.address
        for cycle in range(1, self.spec.accumulate_interval):
            earlier = Signal(name=f"accepted_{cycle}")
            entry = Signal.like(self.address, name=f"address_{cycle}", reset_less=True)
            m.d.sync += [earlier.eq(valid), entry.eq(address)]
            same |= earlier & (entry == self.address)
            valid, address = earlier, entry
        blocked = Signal()
        m.d.comb += blocked.eq(same)
        return ~blocked


class WeightGate(wiring.Component):
    """Counts the rows of the next weights in (weight stationary), the lowest row of the array first.

    The next weights may come in when the ones before are in use in every row: ``max(rows - 1, 1)`` cycles
    behind the first beat that uses them.

    Parameters
    ----------
    spec : SystolicSpec
        The array.

    Members
    -------
    valid : In(1)
        There is a row of weights.
    prepared : In(1)
        There are scales for the weights to come.
    begins : In(1)
        A first beat is accepted.
    ready, accepted : Out(1)
        The row may come in; it does.
    first : Out(1)
        It is the first row.
    loaded : Out(1)
        All rows are in, and not in use.
    """

    valid: Value
    prepared: Value
    begins: Value
    ready: Value
    accepted: Value
    first: Value
    loaded: Value

    def __init__(self, spec: SystolicSpec) -> None:
        self.spec = spec
        super().__init__({
            **{name: In(1) for name in ("valid", "prepared", "begins")},
            **{name: Out(1) for name in ("ready", "accepted", "first", "loaded")},
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows = self.spec.rows
        row = Signal(range(max(rows, 2)))
        wait = Signal(range(max(rows - 1, 2)))
        m.d.comb += [
            self.first.eq(~row.any()),
            self.ready.eq(~self.loaded & ~wait.any() & (~self.first | self.prepared)),
            self.accepted.eq(self.ready & self.valid),
        ]
        with m.If(wait.any()):
            m.d.sync += wait.eq(wait - 1)
        with m.If(self.accepted):
            m.d.sync += [
                row.eq(Mux(row == rows - 1, 0, row + 1)),
                self.loaded.eq(row == rows - 1),
            ]
        with m.If(self.begins):
            m.d.sync += [self.loaded.eq(0), wait.eq(max(rows - 2, 0))]
        return m
