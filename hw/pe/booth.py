"""Elements with radix-4 Booth digits: half as many shifted copies as the weight has bits."""

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
    """Integer product by Booth digits of the weight; the synthesis tool merges the rows in a tree.

    With an 8-bit weight a baseline. With a 4-bit weight it is shift-and-add with two terms instead of
    four: each digit is -2 to 2, so a term is the activation, shifted by one more place or not, inverted
    or not. As hardware it is the same as a Booth multiplier of that size.
    """

    def product(self, m: Module, weight: Value, activation: Value) -> Value:
        return booth_multiply(m, activation.as_signed(), weight.as_signed())
