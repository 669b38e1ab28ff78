"""A processing element: what it takes and what it sums; `hw.spec.element_family` has all of them by name.

A processing element multiplies a weight with an activation and adds the product to a sum of its own.
All elements share one interface and **one pipeline cut**: operands come from registers that belong to
the array, a register holds the product, a register holds the sum. So an operand pair presented in
cycle ``t`` with `valid` is part of the sum that is readable in cycle ``t + latency``.

* `clear` with `valid` marks the first product of a sum: the sum becomes the product.
* Without `valid` the sum holds, whatever the other inputs are.
* Integer sums wrap at the width of the accumulator; FP32 sums follow IEEE 754, to nearest even.
"""

from dataclasses import dataclass, replace
from enum import Enum

from hw.spec.errors import InputError

__all__ = [
    "BITMOD_GUARD_BITS",
    "BIT_TERM_BITS",
    "BIT_TERM_LANES",
    "FLINT_SHIFT_BITS",
    "GROUP_ACCUMULATOR_BITS",
    "FusionWidth",
    "OLIVE_SHIFT_BITS",
    "Operand",
    "ProcessingElementSpec",
    "ZeroPoint",
]

PRODUCT_LATENCY = 1
ACCUMULATE_LATENCY = 1


class Operand(Enum):
    """Number format of one operand; the value is its name in reports.

    `DECODED_FLINT` and `DECODED_OLIVE` are an integer and a shift, as decoders at the edge of the
    array make them of 4-bit codes: bits 3..0 are a signed integer, the bits above them the shift.
    `BIT_TERM` is one signed power of two of a weight that arrives bit-serially.
    """

    INT4 = "int4"
    UINT4 = "uint4"
    INT5 = "int5"
    INT8 = "int8"
    INT12 = "int12"
    INT14 = "int14"
    INT24 = "int24"
    FP16 = "fp16"
    E4M3 = "e4m3"
    E5M2 = "e5m2"
    E2M1 = "e2m1"
    DECODED_FLINT = "decoded flint4"
    DECODED_OLIVE = "decoded olive4"
    BIT_TERM = "signed power of two"
    FUSED = "2, 4 or 8 bits"


class ZeroPoint(Enum):
    """Who subtracts the zero point of a weight.

    NONE: weights are symmetric. ROW_SUM: the element multiplies ``q``, and the dequantization unit
    subtracts ``z`` times the sum of the row's activations. EDGE: a subtractor at the edge of the
    array gives the element ``q - z``. ELEMENT: the element itself subtracts.
    """

    NONE = "none"
    ROW_SUM = "row sum"
    EDGE = "edge"
    ELEMENT = "element"


@dataclass(frozen=True, kw_only=True)
class ProcessingElementSpec:
    """One kind of processing element.

    Parameters
    ----------
    name : str
        Name in the registry and on the command line.
    title : str
        One line for people.
    weight, activation : Operand
        Format of one operand.
    weight_bits, activation_bits : int
        Width of the port: of all operands that one cycle takes.
    product_bits : int
        Width of the register between multiplier and accumulator.
    accumulator_bits : int
        Width of the sum; 32 where `fp32` is set.
    fp32 : bool
        The sum is an FP32 number; otherwise a signed integer in two's complement.
    products_per_cycle : float
        Products of whole weights that one valid cycle adds, on average; below 1 never, above 1 where
        several operands share the ports, and 2 where four lanes need two cycles each.
    control_bits : int
        Width of the port `control`, which travels with the operands; 0 where there is none. What it
        means is stated by the element.
    zero_point : ZeroPoint
        Who subtracts the zero point.
    """

    name: str
    title: str
    weight: Operand
    activation: Operand
    weight_bits: int
    activation_bits: int
    product_bits: int
    accumulator_bits: int
    fp32: bool = False
    products_per_cycle: float = 1
    control_bits: int = 0
    zero_point: ZeroPoint = ZeroPoint.NONE

    @property
    def latency(self) -> int:
        """Cycles from operands at the ports to the sum that has them in it."""
        return PRODUCT_LATENCY + ACCUMULATE_LATENCY

    def with_accumulator(self, bits: int) -> "ProcessingElementSpec":
        """The same element with an integer accumulator of another width.

        Raises
        ------
        InputError
            If the accumulator is FP32, or narrower than a product.
        """
        if self.fp32:
            raise InputError(f"{self.name}: accumulator: expected none to be given, it is FP32")
        if not self.product_bits <= bits <= 64:
            raise InputError(
                f"{self.name}: accumulator: expected {self.product_bits} to 64 bits, found {bits}"
            )
        return replace(self, accumulator_bits=bits)


GROUP_ACCUMULATOR_BITS = 20
"""Enough for a group of 128 products of a 4-bit and an 8-bit integer, which need 19 bits."""

FLINT_SHIFT_BITS = 2
OLIVE_SHIFT_BITS = 3
"""Bits above the 4-bit integer of a decoded operand."""

BIT_TERM_BITS = 5
BIT_TERM_LANES = 4
"""A term of a bit-serial weight, low bits first: 3 bits of exponent, present, negative."""

BITMOD_GUARD_BITS = 5
"""Bits that BitMoD's alignment keeps below the last bit of the largest activation of its lanes."""


class FusionWidth(Enum):
    """Operand width of BitFusion's unit: the code in `control`; `bits` is the width."""

    EIGHT = 0
    FOUR = 1
    TWO = 2

    @property
    def bits(self) -> int:
        """Width of one operand."""
        return 8 >> self.value
