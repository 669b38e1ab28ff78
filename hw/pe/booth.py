"""INT8 element with a radix-4 Booth multiplier: half as many partial products as bits."""

from amaranth.hdl import Cat, Const, Module, Mux, Value

from hw.pe.element import ProcessingElement

__all__ = ["BoothElement", "booth_multiply"]


def booth_multiply(m: Module, multiplicand: Value, multiplier: Value) -> Value:
    """Signed product; each digit -2..2 of the multiplier selects a multiple of the multiplicand.

    Parameters
    ----------
    multiplicand, multiplier : Value
        Signed; the multiplier has an even number of bits.
    """
    width = len(multiplicand) + len(multiplier)
    bits = Cat(Const(0, 1), multiplier)
    once = multiplicand
    rows: list[Value] = []
    negations: list[Value] = []
    for place in range(0, len(multiplier), 2):
        low, middle, high = bits[place], bits[place + 1], bits[place + 2]
        one = low ^ middle
        two = (high ^ middle) & ~one
        multiple = Mux(one, once, Mux(two, once << 1, 0))[: len(once) + 1].as_signed()
        # -x is ~x and a one at its last place; all those ones make one more row.
        inverted = (multiple ^ high.replicate(len(multiple)))[: len(multiple)]
        rows.append(inverted.as_signed() << place)
        negations += [high, Const(0, 1)]
    rows.append(Cat(negations))
    total = rows[0]
    for row in rows[1:]:
        total = total + row
    return total[:width].as_signed()


class BoothElement(ProcessingElement):
    """INT8 x INT8; Booth digits of the weight. The synthesis tool merges the rows in a tree."""

    def product(self, m: Module) -> Value:
        return booth_multiply(m, self.activation.as_signed(), self.weight.as_signed())
