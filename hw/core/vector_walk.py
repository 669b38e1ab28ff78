"""Order of an SFU instruction: its rows and beats, and the buffer addresses that follow from them."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.core.ports import operation_layout
from hw.spec.instructions import BUFFER_BITS, Unit
from hw.spec.machine import MachineSpec

__all__ = ["VectorWalk", "beat_layout", "last_beat", "walk_address"]

LENGTH_BITS = operation_layout(Unit.SFU)["length"].width
ROW_BITS = operation_layout(Unit.SFU)["rows"].width


def beat_layout(spec: MachineSpec) -> data.StructLayout:
    """What goes along with a beat: the flags are 0 unless `valid`.

    `first` and `last` are those of its row, `final` is the last beat of the instruction; `mask` has
    the lanes whose element lies within the length.
    """
    return data.StructLayout({"valid": 1, "first": 1, "last": 1, "final": 1, "mask": spec.lanes})


def last_beat(spec: MachineSpec, length: Value) -> Value:
    """Number of the last beat of a row of `length` elements (at least 1)."""
    beats_of_granule = exact_log2(spec.granule // spec.lanes)
    granules = (length - 1)[exact_log2(spec.granule) : len(length)]
    return Cat(Const((1 << beats_of_granule) - 1, beats_of_granule), granules)


class VectorWalk(wiring.Component):
    """Goes through the rows and beats of an instruction, one beat a cycle, or every `cores` cycles.

    The first beat is in the cycle after `start`; everything else has to hold until the last.

    Parameters
    ----------
    spec : MachineSpec
        Gives the lanes and the granule.

    Members
    -------
    start : In(1)
        An instruction begins; not while another one is under way.
    rows, length : In
        At least 1.
    causal : In(1)
        Every row is an element longer than the one before; all take the beats of the last.
    slow : In(1)
        A beat every `cores` cycles.
    o : Out(beat_layout(spec))
        The beat of this cycle.
    """

    start: Value
    rows: Value
    length: Value
    causal: Value
    slow: Value
    o: data.View

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        super().__init__({
            "start": In(1),
            "rows": In(ROW_BITS),
            "length": In(LENGTH_BITS),
            "causal": In(1),
            "slow": In(1),
            "o": Out(beat_layout(spec)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lane_bits = exact_log2(self.spec.lanes)
        last_lane = self.spec.lanes - 1
        longest = Signal(LENGTH_BITS + 1)
        last_number = Signal(LENGTH_BITS + 1)
        row_length = Signal(LENGTH_BITS, reset_less=True)
        next_length = Signal(LENGTH_BITS)
        beat = Signal()
        beats_left = Signal(LENGTH_BITS, reset_less=True)
        rows_left = Signal(ROW_BITS, reset_less=True)
        remaining = Signal(LENGTH_BITS, reset_less=True)
        whole = Signal()
        valid = Signal()
        first = Signal()
        last = Signal()
        final = Signal()
        m.d.comb += [
            longest.eq(self.length + Mux(self.causal, self.rows - 1, 0)),
            last_number.eq(last_beat(self.spec, longest)),
            next_length.eq(Mux(self.start, self.length, row_length + self.causal)),
            beat.eq(valid & self._turn(m)),
            last.eq(beat & ~beats_left.any()),
            final.eq(last & ~rows_left.any()),
            whole.eq(remaining[lane_bits:].any()),
            self.o.valid.eq(beat),
            self.o.first.eq(beat & first),
            self.o.last.eq(last),
            self.o.final.eq(final),
            self.o.mask.eq(
                Cat(
                    *(whole | (remaining[:lane_bits] > lane) for lane in range(last_lane)),
                    whole,
                )
            ),
        ]
        with m.If(self.start | last):
            m.d.sync += [
                beats_left.eq(last_number),
                remaining.eq(next_length),
                row_length.eq(next_length),
            ]
        with m.Elif(beat):
            m.d.sync += [
                beats_left.eq(beats_left - 1),
                remaining.eq(Mux(whole, remaining - self.spec.lanes, 0)),
            ]
        with m.If(self.start):
            m.d.sync += [valid.eq(1), first.eq(1), rows_left.eq(self.rows - 1)]
        with m.Else():
            m.d.sync += valid.eq(valid & ~final)
            with m.If(beat):
                m.d.sync += first.eq(last)
            with m.If(last):
                m.d.sync += rows_left.eq(rows_left - 1)
        return m

    def _turn(self, m: Module) -> Value:
        """Whether a beat may be in this cycle."""
        if self.spec.cores == 1:
            return Const(1, 1)
        phase = Signal(range(self.spec.cores))
        with m.If(self.start | ~self.slow | (phase == self.spec.cores - 1)):
            m.d.sync += phase.eq(0)
        with m.Else():
            m.d.sync += phase.eq(phase + 1)
        return phase == 0


def walk_address(
    m: Module,
    name: str,
    *,
    start: Value,
    base: Value,
    pitch: Value,
    hold: Value,
    valid: Value,
    last: Value,
) -> Signal:
    """Buffer address of every beat: rows are `pitch` apart, beats 1, or 0 where `hold` is set.

    Parameters
    ----------
    start : Value
        Load `base`; the address counts from the next cycle on.
    valid, last : Value
        A beat uses the address in this cycle; it is the last of its row.
    """
    row = Signal(BUFFER_BITS, name=f"{name}_row", reset_less=True)
    address = Signal(BUFFER_BITS, name=f"{name}_address", reset_less=True)
    next_row = Signal(BUFFER_BITS, name=f"{name}_next_row")
    m.d.comb += next_row.eq(row + pitch)
    with m.If(start):
        m.d.sync += [row.eq(base), address.eq(base)]
    with m.Elif(valid & last):
        m.d.sync += [row.eq(next_row), address.eq(next_row)]
    with m.Elif(valid & ~hold):
        m.d.sync += address.eq(address + 1)
    return address
