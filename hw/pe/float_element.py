"""Elements with an FP32 sum: exact products, normalised before the cut, and one IEEE addition.

Every product of these elements fits FP32 exactly, so the only rounding is that of the addition, to
nearest even. A nonzero sum is a multiple of the smallest product or above 2**23 times it, so it is
never subnormal; and from the largest product, overflow is more than 2**90 additions away: the adder
has logic for neither. Infinities and NaNs of operands are followed as IEEE 754 says; a NaN result is
0x7FC00000.
"""

from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Value

from hw.floating_values import named, normalise, shift_right_sticky
from hw.pe.element import ProcessingElement

__all__ = ["FloatElement", "FloatOperand", "RawProduct", "decode_operand"]

FRACTION_BITS = 23
SIGNIFICAND_BITS = 24
EXPONENT_BITS = 8
EXTRA_BITS = 3
"""Guard, round and sticky."""


@dataclass(frozen=True)
class FloatOperand:
    """An operand as ``significand * 2**exponent`` in units of its format's smallest subnormal.

    Parameters
    ----------
    sign, is_infinite, is_nan : Value
        One bit each.
    exponent : Value
        0 for subnormal numbers and for those of the lowest normal exponent.
    significand : Value
        Fraction under its hidden bit; not normalised if subnormal.
    """

    sign: Value
    exponent: Value
    significand: Value
    is_infinite: Value
    is_nan: Value

    @property
    def is_zero(self) -> Value:
        """Whether the operand is zero of either sign; without meaning if infinite or NaN."""
        return ~self.significand.any()


def decode_operand(
    m: Module, name: str, value: Value, fraction_bits: int, has_infinity: bool = True
) -> FloatOperand:
    """Split a small float.

    Parameters
    ----------
    has_infinity : bool
        False for E4M3, where only all ones is reserved, for NaN.
    """
    fraction, exponent = value[:fraction_bits], value[fraction_bits:-1]
    normal = named(m, f"{name}_normal", exponent.any())
    if has_infinity:
        reserved = named(m, f"{name}_reserved", exponent.all())
        is_nan = named(m, f"{name}_nan", reserved & fraction.any())
        is_infinite = named(m, f"{name}_infinite", reserved & ~fraction.any())
    else:
        is_nan = named(m, f"{name}_nan", value[:-1].all())
        is_infinite = Const(0, 1)
    return FloatOperand(
        sign=value[-1],
        exponent=named(m, f"{name}_exponent", (exponent - normal)[: len(exponent)]),
        significand=Cat(fraction, normal),
        is_infinite=is_infinite,
        is_nan=is_nan,
    )


@dataclass(frozen=True)
class RawProduct:
    """An exact product, not yet normalised.

    Parameters
    ----------
    sign : Value
        One bit.
    exponent : Value
        Unsigned power of two, in units of the smallest nonzero product.
    magnitude : Value
        Unsigned integer, at most 24 bits.
    is_infinite, is_nan : Value or None
        None where the formats have no such value.
    """

    sign: Value
    exponent: Value
    magnitude: Value
    is_infinite: Value | None = None
    is_nan: Value | None = None


class FloatElement(ProcessingElement):
    """Base of elements whose sum is an FP32 number. A subclass gives `multiply` and its constants.

    The product register holds sign, normalised significand, exponent in units of the smallest product,
    and two flags where operands can be infinite or NaN.
    """

    #: FP32's biased exponent of the smallest nonzero product.
    LOWEST: int
    #: Largest exponent that `multiply` gives, and the width of its magnitude.
    LARGEST_EXPONENT: int
    MAGNITUDE_BITS: int
    HAS_INFINITY: bool = True
    HAS_NAN: bool = True
    HOLDS = True

    @property
    def exponent_bits(self) -> int:
        """Width of the exponent of a normalised product."""
        return (self.LARGEST_EXPONENT + self.MAGNITUDE_BITS - 1).bit_length()

    def multiply(self, m: Module) -> RawProduct:
        """The product of the operands at the ports."""
        raise NotImplementedError

    def product(self, m: Module, weight: Value, activation: Value) -> Value:
        raw = self.multiply(m)
        significand, leading_zeros = normalise(m, "product", raw.magnitude)
        exponent = raw.exponent + (self.MAGNITUDE_BITS - 1) - leading_zeros
        return self.packed(raw, significand, exponent)

    def packed(self, raw: RawProduct, significand: Value, exponent: Value) -> Value:
        """What the product register holds."""
        flags = [flag for flag in (raw.is_infinite, raw.is_nan) if flag is not None]
        return Cat(significand, exponent[: self.exponent_bits], raw.sign, *flags)

    def accumulate(self, m: Module, product: Value, clear: Value) -> Value:
        width, top = self.MAGNITUDE_BITS, self.MAGNITUDE_BITS + self.exponent_bits
        significand, sign = product[:width], product[top]
        infinite = product[top + 1] if self.HAS_INFINITY else Const(0, 1)
        nan = product[-1] if self.HAS_NAN else Const(0, 1)
        # A zero has exponent zero, or zeros of two encodings would not cancel.
        exponent = named(m, "b_exponent", (product[width:top] + self.LOWEST)[:EXPONENT_BITS])
        exponent = exponent & significand[-1].replicate(EXPONENT_BITS)
        b = Cat(Const(0, SIGNIFICAND_BITS - width), significand[:-1], exponent)
        # Minus zero plus a product is the product, whichever it is.
        a = named(m, "a", (self.sum[:-1] & (~clear).replicate(31))[:31])
        a_sign = named(m, "a_sign", self.sum[-1] | clear)
        magnitude, total_sign = _add(m, a, a_sign, named(m, "b", b), sign)
        if not self.HAS_NAN and not self.HAS_INFINITY:
            return Cat(magnitude, total_sign)
        a_special = named(m, "a_special", a[FRACTION_BITS:].all())
        a_nan, a_infinite = a_special & a[FRACTION_BITS - 1], a_special & ~a[FRACTION_BITS - 1]
        is_nan = named(m, "is_nan", a_nan | nan | (a_infinite & infinite & (a_sign ^ sign)))
        special = named(m, "special", a_special | infinite | nan)
        special_magnitude = Cat(Const(0, FRACTION_BITS - 1), is_nan, Const(255, EXPONENT_BITS))
        special_sign = Mux(infinite, sign, a_sign) & ~is_nan
        return Cat(
            Mux(special, special_magnitude, magnitude), Mux(special, special_sign, total_sign)
        )


def _add(m: Module, a: Value, a_sign: Value, b: Value, b_sign: Value) -> tuple[Value, Value]:
    """Magnitude and sign of the sum of two finite FP32 numbers without subnormals."""
    swap = named(m, "swap", b > a)
    differ = named(m, "differ", a_sign ^ b_sign)
    cancel = named(m, "cancel", differ & (a == b))
    large = named(m, "large", Mux(swap, b, a))
    small = named(m, "small", Mux(swap, a, b))
    large_exponent, small_exponent = large[FRACTION_BITS:], small[FRACTION_BITS:]
    distance = named(m, "distance", (large_exponent - small_exponent)[:EXPONENT_BITS])
    extra = Const(0, EXTRA_BITS)
    placed = named(m, "placed", Cat(extra, small[:FRACTION_BITS], small_exponent.any()))
    aligned = shift_right_sticky(m, "aligned", placed, distance)
    addend = named(m, "addend", aligned ^ differ.replicate(len(aligned)))
    significand = Cat(extra, large[:FRACTION_BITS], large_exponent.any())
    total = named(m, "total", (significand + addend + differ)[: len(aligned) + 1])
    carry = total[-1] & ~differ
    normalised, leading_zeros = normalise(m, "normalised", Cat(total[:-1], carry))
    exponent = named(m, "exponent_up", (large_exponent + 1 - leading_zeros)[:EXPONENT_BITS])
    dropped = EXTRA_BITS + 1
    fraction = normalised[dropped:-1]
    round_up = normalised[dropped - 1] & (normalised[: dropped - 1].any() | fraction[0])
    rounded = named(m, "rounded", (Cat(fraction, exponent) + round_up)[:31])
    nonzero = normalised[-1]
    return rounded & nonzero.replicate(31), Mux(swap, b_sign, a_sign) & ~cancel
