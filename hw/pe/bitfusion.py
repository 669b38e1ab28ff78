"""BitFusion's fusion unit: sixteen 2-bit multipliers that fuse to multipliers of 2, 4 or 8 bits."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Value

from hw.floating_values import named
from hw.pe.element import ProcessingElement
from hw.spec.processing_element import FusionWidth

__all__ = ["FusionElement"]


class FusionElement(ProcessingElement):
    """Sum of 1 to 16 signed products in each of nine modes; the sum wraps.

    `control` bits 1..0 are the `FusionWidth` of the activations, bits 3..2 that of the weights. With
    widths A and W there are ``64 / (A * W)`` products; the operands of product ``i`` are bits ``A*i``
    and ``W*i`` upwards of the ports.

    Each brick multiplies a 2-bit digit of an activation by one of a weight, 3 bits signed each; bricks
    that belong to one product are added at the places of their digits. Sharma et al., "Bit Fusion:
    Bit-Level Dynamically Composable Architecture for Accelerating Deep Neural Networks", ISCA 2018.
    """

    def product(self, m: Module, weight: Value, activation: Value) -> Value:
        # Codes 0 and 1 have fused bricks, code 0 fused groups too.
        activation_code, weight_code = self.control[:2], self.control[2:]
        bricks_fused = ~activation_code[1], ~weight_code[1]
        groups_fused = (
            ~(activation_code[0] | activation_code[1]),
            ~(weight_code[0] | weight_code[1]),
        )
        total: Value = Const(0, 1)
        # Four groups of four bricks; one bit of each operand's position is the group's.
        for high in range(4):
            inner: Value = Const(0, 1)
            for low in range(4):
                position = (high >> 1, low >> 1), (high & 1, low & 1)
                brick = self._brick(m, weight, activation, *position)
                inner = inner + self._placed(brick, (low >> 1, low & 1), bricks_fused, 2)
            inner = named(m, f"fused_{high}", inner)
            total = total + self._placed(inner, (high >> 1, high & 1), groups_fused, 4)
        return total[: self.spec.product_bits].as_signed()

    def _placed(
        self, value: Value, halves: tuple[int, int], fused: tuple[Value, Value], places: int
    ) -> Value:
        """The value at the place of its digits: higher where an upper half is fused to its lower one."""
        for half, is_fused in zip(halves, fused, strict=True):
            if half:
                value = Mux(is_fused, value << places, value)
        return value

    def _brick(
        self,
        m: Module,
        weight: Value,
        activation: Value,
        a: tuple[int, int],
        w: tuple[int, int],
    ) -> Value:
        """Product of the digits that meet at a position, each given by its two halves."""
        name = f"{a[0]}{w[0]}_{a[1]}{w[1]}"
        activations, weights = [], []
        for weight_width in FusionWidth:
            for activation_width in FusionWidth:
                a_lane, a_digit = _lane_and_digit(a, activation_width)
                w_lane, w_digit = _lane_and_digit(w, weight_width)
                lane = a_lane * (8 // weight_width.bits) + w_lane
                for digits, port, width, digit in (
                    (activations, activation, activation_width, a_digit),
                    (weights, weight, weight_width, w_digit),
                ):
                    start = lane * width.bits + 2 * digit
                    is_top = digit == width.bits // 2 - 1
                    # A third bit makes all digits but the top one unsigned.
                    sign = port[start + 1] if is_top else Const(0, 1)
                    digits.append(Cat(port[start : start + 2], sign))
            # The codes that are no width.
            activations.append(Const(0, 3))
            weights.append(Const(0, 3))
        activations += [Const(0, 3)] * 4
        weights += [Const(0, 3)] * 4
        x = named(m, f"activation_{name}", Array(activations)[self.control])
        y = named(m, f"weight_{name}", Array(weights)[self.control])
        return named(m, f"brick_{name}", x.as_signed() * y.as_signed())


def _lane_and_digit(position: tuple[int, int], width: FusionWidth) -> tuple[int, int]:
    """Which operand of that width a position belongs to, and which digit of it."""
    upper, lower = position
    match width:
        case FusionWidth.EIGHT:
            return 0, 2 * upper + lower
        case FusionWidth.FOUR:
            return upper, lower
        case FusionWidth.TWO:
            return 2 * upper + lower, 0
