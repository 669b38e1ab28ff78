"""One output of the matrix engine: products, group sum, scale, accumulator."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.floating_values import named

__all__ = [
    "ACCUMULATOR_BITS",
    "ACCUMULATOR_FRACTION_BITS",
    "GROUP_SUM_BITS",
    "PRODUCTS",
    "MatrixRow",
    "row_control_layout",
]

PRODUCTS = 4
"""Bytes of weights a step, each of two nibbles that have a multiplier each."""
ACTIVATION_BITS = 8
GROUP_SUM_BITS = 32
ACCUMULATOR_BITS = 64
ACCUMULATOR_FRACTION_BITS = 24
"""The smallest FP16 number is 2**-24."""
SCALE_FRACTION_BITS = 10
SCALE_EXPONENT_BITS = 5


def row_control_layout() -> data.StructLayout:
    """What each stage of a row does in this cycle; all rows work in lockstep."""
    return data.StructLayout({
        # The weights on the port are a step's.
        "load": 1,
        # The loaded weights meet their activations.
        "multiply": 1,
        # The products are summed.
        "add": 1,
        # The step's sum joins its group's; `group_first` starts a group, `group_last` ends it.
        "gather": 1,
        "group_first": 1,
        "group_last": 1,
        # The group's sum is multiplied by its scale, moved to its place, and accumulated.
        "scale": 1,
        "place": 1,
        "accumulate": 1,
        # The accumulator starts from zero.
        "clear": 1,
    })


class MatrixRow(wiring.Component):
    """Dot product of one row of weights with the activations, in 64-bit fixed point.

    A byte of weights is split into nibbles, ``byte = 16 * high + low``, and every nibble has its own
    multiplier. Two INT4 weights meet two activations; an INT8 weight meets the same activation
    twice, its low nibble unsigned, and the sum of the high products counts 16 times. So all
    multipliers work in both modes, and each is only 5 bits by 8.

    No flow control. Operands are taken in the stages that `control` names, which follow each other
    cycle by cycle from `load` to `accumulate`; `sum` includes a group from the cycle after its
    `accumulate` on.

    Members
    -------
    wide : In(1)
        Weights are INT8, not INT4. Constant during an instruction, like `scaled`.
    scaled : In(1)
        `scale` counts; otherwise groups are multiplied by 1.
    weights : In(32)
        The row's bytes of a step, in the cycle of `load`.
    low, high : In(ArrayLayout(signed(8), 4))
        Activations of the low and the high nibbles, in the cycle of `multiply`.
    scale : In(16)
        FP16 scale (an exponent of all ones is nothing special), in the cycle of `group_last`.
    control : In(row_control_layout())
        What the stages do.
    sum : Out(signed(64))
        The accumulator, in units of 2**-24.
    """

    wide: Value
    scaled: Value
    weights: Value
    low: data.View
    high: data.View
    scale: Value
    control: data.View
    sum: Value

    def __init__(self) -> None:
        activations = data.ArrayLayout(signed(ACTIVATION_BITS), PRODUCTS)
        super().__init__({
            "wide": In(1),
            "scaled": In(1),
            "weights": In(8 * PRODUCTS),
            "low": In(activations),
            "high": In(activations),
            "scale": In(1 + SCALE_EXPONENT_BITS + SCALE_FRACTION_BITS),
            "control": In(row_control_layout()),
            "sum": Out(signed(ACCUMULATOR_BITS)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        step_sum = self._step_sum(m)

        group_sum = Signal(signed(GROUP_SUM_BITS), reset_less=True)
        with m.If(self.control.gather):
            earlier = Mux(self.control.group_first, 0, group_sum)
            m.d.sync += group_sum.eq(earlier + step_sum)

        mantissa, shift = self._decode_scale(m)
        product = Signal(signed(GROUP_SUM_BITS + SCALE_FRACTION_BITS + 1), reset_less=True)
        product_shift = Signal(SCALE_EXPONENT_BITS, reset_less=True)
        with m.If(self.control.scale):
            m.d.sync += [product.eq(group_sum * mantissa), product_shift.eq(shift)]

        # Constant shifts, cut to the accumulator's width: a variable one would be wider than that.
        placed = Signal(signed(ACCUMULATOR_BITS))
        m.d.comb += placed.eq(product)
        for level in range(SCALE_EXPONENT_BITS):
            distance = 1 << level
            moved = Cat(Const(0, distance), placed[:-distance]).as_signed()
            placed = named(m, f"placed_{distance}", Mux(product_shift[level], moved, placed))
        addend = Signal(signed(ACCUMULATOR_BITS), reset_less=True)
        with m.If(self.control.place):
            m.d.sync += addend.eq(placed)

        with m.If(self.control.accumulate):
            m.d.sync += self.sum.eq(Mux(self.control.clear, 0, self.sum) + addend)
        return m

    def _step_sum(self, m: Module) -> Value:
        """Products and adder tree: the dot product of a step, registered."""
        weights = Signal(8 * PRODUCTS, reset_less=True)
        with m.If(self.control.load):
            m.d.sync += weights.eq(self.weights)

        low_products: list[Value] = []
        high_products: list[Value] = []
        for index in range(PRODUCTS):
            low = weights[8 * index : 8 * index + 4]
            high = weights[8 * index + 4 : 8 * index + 8]
            # The low nibble has a sign only if it is a weight of its own.
            signed_low = Cat(low, low[-1] & ~self.wide).as_signed()
            low_product = Signal(signed(5 + ACTIVATION_BITS), name=f"low_{index}", reset_less=True)
            high_product = Signal(
                signed(4 + ACTIVATION_BITS), name=f"high_{index}", reset_less=True
            )
            with m.If(self.control.multiply):
                m.d.sync += [
                    low_product.eq(signed_low * self.low[index]),
                    high_product.eq(high.as_signed() * self.high[index]),
                ]
            low_products.append(low_product)
            high_products.append(high_product)

        high_sum = named(m, "high_sum", _balanced_sum(high_products))
        high_part = Mux(self.wide, high_sum << 4, high_sum)
        total = _balanced_sum(low_products) + high_part
        step_sum = Signal(total.shape(), reset_less=True)
        with m.If(self.control.add):
            m.d.sync += step_sum.eq(total)
        return step_sum

    def _decode_scale(self, m: Module) -> tuple[Value, Value]:
        """Signed mantissa and shift of the group's scale, registered; 1 if not scaled."""
        fraction = self.scale[:SCALE_FRACTION_BITS]
        exponent = self.scale[SCALE_FRACTION_BITS:-1]
        hidden = named(m, "hidden", exponent.any())
        magnitude = named(m, "magnitude", Cat(fraction, hidden))
        mantissa = Signal(signed(SCALE_FRACTION_BITS + 2), reset_less=True)
        shift = Signal(SCALE_EXPONENT_BITS, reset_less=True)
        with m.If(self.control.group_last):
            with m.If(self.scaled):
                m.d.sync += [
                    mantissa.eq(Mux(self.scale[-1], -magnitude, magnitude)),
                    shift.eq(exponent - hidden),
                ]
            with m.Else():
                m.d.sync += [mantissa.eq(1), shift.eq(ACCUMULATOR_FRACTION_BITS)]
        return mantissa, shift


def _balanced_sum(terms: list[Value]) -> Value:
    """Sum of signed values, as a tree."""
    while len(terms) > 1:
        odd = terms[len(terms) // 2 * 2 :]
        terms = [a + b for a, b in zip(terms[::2], terms[1::2], strict=False)] + odd
    return terms[0]
