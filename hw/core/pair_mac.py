"""Two products that share an operand, packed into one word and added to a cascade."""

from amaranth.hdl import Cat, Module, Signal, Value, signed
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

from hw.core.dsp48e2 import DSP48E2
from hw.core.mult18x18d import Mult18x18d
from hw.spec.dsp import (
    D_BITS,
    INMODE_PREADD,
    LANE_BITS,
    P_BITS,
    PAIR_CONTROL_DELAY,
    DspSpec,
    Multiplier,
    Z,
    opmode,
)

__all__ = ["OPERAND_BITS", "PairMac", "Start", "extract_lanes", "multiply_packed"]

OPERAND_BITS = 8


class Start(enum.Enum, shape=2):
    """What the products of a `PairMac` are added to."""

    ZERO = 0
    CASCADE = 1
    """The word of the neighbour below."""
    WORD = 2
    """`word`, which comes through fabric."""


class PairMac(wiring.Component):
    """p = start + (a*b << 18) + d*b in 48 bits: one DSP48E2, or as much of another part.

    Both products are in the word: the low 18 bits, and those above less one where the low ones are
    negative (`extract_lanes`). No flow control; registers start from zero.

    Latency: `hw.spec.dsp.PAIR_LATENCY` from operands and `start` to `p`. `word` and `cascade_in` enter
    late, `PAIR_CONTROL_DELAY` and `PAIR_LATENCY - 1` cycles behind the operands that they belong to: so
    in a cascade each cell's operands are one cycle behind those of its neighbour below.

    Parameters
    ----------
    multiplier : Multiplier
        Who multiplies. All are equal in every bit and cycle.

    Members
    -------
    enable : In(1)
        Clock enable of all registers.
    a, b, d : In(signed(8))
        Operands.
    start : In(Start)
        What the products are added to.
    cascade_in, cascade_out : In(signed(48)), Out(signed(48))
        Wire these only to the neighbours in the column.
    word : In(signed(48))
        Another word to add to.
    p : Out(signed(48))
        The sum.
    """

    enable: Value
    a: Value
    b: Value
    d: Value
    start: Value
    cascade_in: Value
    word: Value
    p: Value
    cascade_out: Value

    def __init__(self, multiplier: Multiplier) -> None:
        self.multiplier = multiplier
        super().__init__({
            "enable": In(1),
            "a": In(signed(OPERAND_BITS)),
            "b": In(signed(OPERAND_BITS)),
            "d": In(signed(OPERAND_BITS)),
            "start": In(Start),
            "cascade_in": In(signed(P_BITS)),
            "word": In(signed(P_BITS)),
            "p": Out(signed(P_BITS)),
            "cascade_out": Out(signed(P_BITS)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # Behind these registers comes the one inside the slice.
        start = Value.cast(self.start)
        for number in range(PAIR_CONTROL_DELAY):
            later = Signal(2, name=f"start_{number + 1}", reset_less=True)
            with m.If(self.enable):
                m.d.sync += later.eq(start)
            start = later
        if self.multiplier in (Multiplier.MODEL, Multiplier.DSP48E2):
            self._slice(m, start)
        else:
            self._fabric(m, start)
        return m

    def _slice(self, m: Module, start: Value) -> None:
        vendor = self.multiplier is Multiplier.DSP48E2
        m.submodules.slice = dsp = DSP48E2(DspSpec(), vendor=vendor)
        multiply_packed(m, dsp, self.a, self.b, self.d)
        m.d.comb += [
            dsp.enable.eq(self.enable),
            dsp.c.eq(self.word),
            dsp.pcin.eq(self.cascade_in),
            self.p.eq(dsp.p),
            self.cascade_out.eq(dsp.pcout),
        ]
        # One code differs from the next in Z alone.
        with m.Switch(start):
            with m.Case(Start.CASCADE):
                m.d.comb += dsp.opmode.eq(opmode(z=Z.PCIN))
            with m.Case(Start.WORD):
                m.d.comb += dsp.opmode.eq(opmode(z=Z.C))
            with m.Default():
                m.d.comb += dsp.opmode.eq(opmode())

    def _fabric(self, m: Module, start: Value) -> None:
        high, low = (
            self._product(m, name, operand) for name, operand in (("a", self.a), ("d", self.d))
        )
        packed = Signal(signed(D_BITS + OPERAND_BITS), reset_less=True)
        word = Signal(signed(P_BITS), reset_less=True)
        chosen = Signal(2, reset_less=True)
        begin = Signal(signed(P_BITS))
        total = Signal(signed(P_BITS), reset_less=True)
        # Only the bits above the low lane need an adder.
        sign = low[-1].replicate(len(packed) - LANE_BITS).as_signed()
        above = Signal(signed(len(packed) - LANE_BITS))
        m.d.comb += above.eq(high + sign)
        with m.Switch(chosen):
            with m.Case(Start.CASCADE):
                m.d.comb += begin.eq(self.cascade_in)
            with m.Case(Start.WORD):
                m.d.comb += begin.eq(word)
            with m.Default():
                m.d.comb += begin.eq(0)
        with m.If(self.enable):
            m.d.sync += [
                packed.eq(Cat(_extended(low, LANE_BITS), above)),
                word.eq(self.word),
                chosen.eq(start),
                total.eq(begin + packed),
            ]
        m.d.comb += [self.p.eq(total), self.cascade_out.eq(total)]

    def _product(self, m: Module, name: str, operand: Value) -> Value:
        """`operand` * `b`, registered before and behind the multiplier."""
        product = Signal(signed(2 * OPERAND_BITS), name=f"{name}_product")
        if self.multiplier is Multiplier.INFERRED:
            left = Signal(signed(OPERAND_BITS), name=f"{name}_operand", reset_less=True)
            right = Signal(signed(OPERAND_BITS), name=f"{name}_shared", reset_less=True)
            registered = Signal.like(product, name=f"{name}_registered", reset_less=True)
            with m.If(self.enable):
                m.d.sync += [left.eq(operand), right.eq(self.b), registered.eq(left * right)]
            m.d.comb += product.eq(registered)
        else:
            vendor = self.multiplier is Multiplier.ECP5
            m.submodules[f"{name}_multiplier"] = multiplier = Mult18x18d(vendor=vendor)
            m.d.comb += [
                multiplier.enable.eq(self.enable),
                multiplier.a.eq(operand),
                multiplier.b.eq(self.b),
                product.eq(multiplier.p),
            ]
        return product


def _extended(value: Value, width: int) -> Value:
    """A signed value's bits, with its sign up to `width`."""
    return Cat(value, value[-1].replicate(width - len(value)))


def multiply_packed(m: Module, dsp: DSP48E2, a: Value, b: Value, d: Value) -> None:
    """Wires two operands and the one that they share to a slice: its product is (a*b << 18) + d*b."""
    m.d.comb += [
        dsp.a.eq(a << LANE_BITS),
        dsp.d.eq(d),
        dsp.b.eq(b),
        dsp.inmode.eq(INMODE_PREADD),
    ]


def extract_lanes(word: Value) -> tuple[Value, Value]:
    """The signed sums in a packed word: low, and high with the borrow that low took given back."""
    low = word[:LANE_BITS].as_signed()
    return low, word[LANE_BITS:].as_signed() + word[LANE_BITS - 1]
