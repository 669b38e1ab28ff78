"""INT8 element with a multiplier built of full adders by hand: Baugh-Wooley bits, Dadda's tree."""

from amaranth.hdl import Cat, Const, Module, Value

from hw.floating_values import named
from hw.pe.element import ProcessingElement

__all__ = ["TreeElement", "tree_multiply"]


def _full_add(m: Module, name: str, a: Value, b: Value, c: Value) -> tuple[Value, Value]:
    half = named(m, f"{name}_half", a ^ b)
    return named(m, f"{name}_sum", half ^ c), named(m, f"{name}_carry", (a & b) | (half & c))


def _half_add(m: Module, name: str, a: Value, b: Value) -> tuple[Value, Value]:
    return named(m, f"{name}_sum", a ^ b), named(m, f"{name}_carry", a & b)


def _heights(tallest: int) -> list[int]:
    """Dadda's column heights below the tallest, largest first: 2, 3, 4, 6, 9, 13, ..."""
    heights = [2]
    while heights[-1] * 3 // 2 < tallest:
        heights.append(heights[-1] * 3 // 2)
    return heights[::-1]


def tree_multiply(m: Module, a: Value, b: Value) -> Value:
    """Signed product of two numbers of equal width.

    Partial products of the sign bits are inverted instead of subtracted; two constants correct for
    that. Columns are reduced by just as many full and half adders as the next height asks for.
    """
    width = len(a)
    columns: list[list[Value]] = [[] for _ in range(2 * width)]
    for i in range(width):
        for j in range(width):
            bit = a[i] & b[j]
            inverted = (i == width - 1) != (j == width - 1)
            columns[i + j].append(named(m, f"pp_{i}_{j}", ~bit if inverted else bit))
    columns[width].append(Const(1, 1))
    columns[2 * width - 1].append(Const(1, 1))
    for height in _heights(max(map(len, columns))):
        for place in range(2 * width):
            column = columns[place]
            count = 0
            while len(column) > height:
                name = f"h{height}_{place}_{count}"
                if len(column) == height + 1:
                    total, carry = _half_add(m, name, column.pop(0), column.pop(0))
                else:
                    total, carry = _full_add(m, name, *(column.pop(0) for _ in range(3)))
                column.append(total)
                if place + 1 < 2 * width:
                    columns[place + 1].append(carry)
                count += 1
    rows = [
        Cat(column[row] if row < len(column) else Const(0, 1) for column in columns)
        for row in range(2)
    ]
    return (rows[0] + rows[1])[: 2 * width].as_signed()


class TreeElement(ProcessingElement):
    """INT8 x INT8 in a Dadda tree; the last two rows go through the tool's adder."""

    def product(self, m: Module, weight: Value, activation: Value) -> Value:
        return tree_multiply(m, weight.as_signed(), activation.as_signed())
