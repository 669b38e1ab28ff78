"""What some elements need at the edges of an array, once a row or a column: decoders and aligners."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.floating_values import named
from hw.spec.processing_element import FLINT_SHIFT_BITS, OLIVE_SHIFT_BITS

__all__ = ["Aligner", "FlintDecoder", "OliveDecoder", "RowSum", "TermDecoder", "ZeroSubtractor"]

#: Integer and shift of each flint4 magnitude 0, 1, 2, 3, 4, 6, 8, 16.
FLINT = ((0, 0), (1, 0), (2, 0), (3, 0), (2, 1), (3, 1), (2, 2), (2, 3))
#: Of OliVe's outliers: 0 (not used), 12, 16, 24, 32, 48, 64, 96.
OLIVE = ((0, 0), (3, 2), (2, 3), (3, 3), (2, 4), (3, 4), (2, 5), (3, 5))
#: Terms of twice an E2M1 magnitude 0, 1, 2, 3, 4, 6, 8, 12, and of the special values 10 and 16.
TERMS = ((), (0,), (1,), (1, 0), (2,), (2, 1), (3,), (3, 2), (3, 1), (4,))


def _table(m: Module, name: str, index: Value, rows: list[int], width: int) -> Signal:
    value = Signal(width, name=name)
    m.d.comb += value.eq(Array([Const(row, width) for row in rows])[index])
    return value


class FlintDecoder(wiring.Component):
    """Sign and 3-bit code of flint4 to a signed integer and a shift; combinational.

    Members
    -------
    i : In(4)
    o : Out(4 + FLINT_SHIFT_BITS)
    """

    i: Value
    o: Value

    def __init__(self) -> None:
        super().__init__({"i": In(4), "o": Out(4 + FLINT_SHIFT_BITS)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        entry = _table(m, "entry", self.i[:3], [i | s << 2 for i, s in FLINT], 4)
        integer = Mux(self.i[3], -entry[:2], entry[:2])
        m.d.comb += self.o.eq(Cat(integer[:3], integer[2], entry[2:]))
        return m


class OliveDecoder(wiring.Component):
    """A pair of OliVe codes to two signed integers and shifts; combinational.

    The code 8 in one place says that the other is an outlier and this one its victim, zero.

    Members
    -------
    a, b : In(4)
    a_o, b_o : Out(4 + OLIVE_SHIFT_BITS)
    """

    a: Value
    b: Value
    a_o: Value
    b_o: Value

    def __init__(self) -> None:
        width = 4 + OLIVE_SHIFT_BITS
        super().__init__({"a": In(4), "b": In(4), "a_o": Out(width), "b_o": Out(width)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for name, own, other, o in (
            ("a", self.a, self.b, self.a_o),
            ("b", self.b, self.a, self.b_o),
        ):
            entry = _table(m, f"{name}_entry", own[:3], [i | s << 2 for i, s in OLIVE], 5)
            magnitude = Mux(own[3], -entry[:2], entry[:2])
            outlier = Cat(magnitude[:3], magnitude[2], entry[2:])
            normal = Mux(own == 8, 0, own)
            m.d.comb += o.eq(Mux(other == 8, outlier, normal))
        return m


class TermDecoder(wiring.Component):
    """An E2M1 code, or its group's special value in place of minus zero, to one of its two terms.

    Members
    -------
    code : In(4)
    special : In(2)
        What minus zero means in this group: 5, -5, 8 or -8.
    second : In(1)
        Which term.
    o : Out(5)
    """

    code: Value
    special: Value
    second: Value
    o: Value

    def __init__(self) -> None:
        super().__init__({"code": In(4), "special": In(2), "second": In(1), "o": Out(5)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        is_special = named(m, "is_special", self.code == 8)
        rows = []
        for terms in TERMS:
            for place in range(2):
                rows.append((terms[place] | 8) if place < len(terms) else 0)
        index = Mux(is_special, 8 + self.special[1], self.code[:3])
        entry = _table(m, "entry", Cat(self.second, index), rows, 4)
        m.d.comb += self.o.eq(Cat(entry, Mux(is_special, self.special[0], self.code[3])))
        return m


class Aligner(wiring.Component):
    """FP16 to a signed integer of a shared exponent, cut off; and the largest exponent so far.

    Members
    -------
    i : In(16)
        Number; infinities and NaNs are taken for large numbers.
    exponent : In(5)
        Largest exponent field of the block; that number's leading bit is the second of the integer.
    first : In(1)
        `i` also begins a block for `largest`.
    o : Out(signed(width))
        Integer, one cycle later.
    largest : Out(5)
        Largest exponent field since `first`, one cycle later.
    """

    i: Value
    exponent: Value
    first: Value
    o: Value
    largest: Value

    def __init__(self, width: int) -> None:
        self.width = width
        super().__init__({
            "i": In(16),
            "exponent": In(5),
            "first": In(1),
            "o": Out(signed(width)),
            "largest": Out(5),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        normal = named(m, "normal", self.i[10:15].any())
        # Subnormals have the exponent of the smallest normal numbers.
        field = named(m, "field", Cat(self.i[10] | ~normal, self.i[11:15]))
        significand = Cat(self.i[:10], normal)
        distance = named(m, "distance", (self.exponent - field)[:5])
        below = self.width - 12
        placed = Cat(Const(0, max(below, 0)), significand) if below > 0 else significand[-below:]
        shifted = named(m, "shifted", placed >> distance)
        m.d.sync += self.o.eq(Mux(self.i[15], -shifted, shifted))
        with m.If(self.first | (field > self.largest)):
            m.d.sync += self.largest.eq(field)
        return m


class RowSum(wiring.Component):
    """Sum of a row's activations over a group, for zero points.

    Members
    -------
    i : In(signed(8))
    clear : In(1)
        `i` begins a group.
    o : Out(signed(16))
    """

    i: Value
    clear: Value
    o: Value

    def __init__(self) -> None:
        super().__init__({"i": In(signed(8)), "clear": In(1), "o": Out(signed(16))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.sync += self.o.eq(Mux(self.clear, 0, self.o) + self.i)
        return m


class ZeroSubtractor(wiring.Component):
    """``q - z``, 5 bits signed; combinational.

    Members
    -------
    q, z : In(4)
    o : Out(signed(5))
    """

    q: Value
    z: Value
    o: Value

    def __init__(self) -> None:
        super().__init__({"q": In(unsigned(4)), "z": In(unsigned(4)), "o": Out(signed(5))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += self.o.eq(self.q - self.z)
        return m
