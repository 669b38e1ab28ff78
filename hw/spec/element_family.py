"""The family of processing elements, by name."""

from typing import Any

from hw.spec.errors import InputError
from hw.spec.processing_element import (
    GROUP_ACCUMULATOR_BITS,
    Operand,
    ProcessingElementSpec,
    ZeroPoint,
)

__all__ = ["ELEMENTS", "element_spec"]


def _element(
    name: str,
    title: str,
    operands: tuple[Operand, int, Operand, int],
    product_bits: int,
    accumulator_bits: int | None,
    **more: Any,
) -> ProcessingElementSpec:
    """A spec; no accumulator width means FP32."""
    weight, weight_bits, activation, activation_bits = operands
    return ProcessingElementSpec(
        name=name,
        title=title,
        weight=weight,
        activation=activation,
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        product_bits=product_bits,
        accumulator_bits=accumulator_bits or 32,
        fp32=accumulator_bits is None,
        **more,
    )


_INT8 = (Operand.INT8, 8, Operand.INT8, 8)
_INT4_INT8 = (Operand.INT4, 4, Operand.INT8, 8)
_UINT4_INT8 = (Operand.UINT4, 4, Operand.INT8, 8)
_INT5_INT8 = (Operand.INT5, 5, Operand.INT8, 8)
_INT4_FP16 = (Operand.INT4, 4, Operand.FP16, 16)
_GROUP = GROUP_ACCUMULATOR_BITS


def _mixpe_a8(suffix: str, what: str, accumulator_bits: int) -> tuple[ProcessingElementSpec, ...]:
    title = f"MixPE W4A8, shift-and-add, {{}}, {what}"
    return (
        _element(f"mixpe-a8{suffix}", title.format("signed"), _INT4_INT8, 12, accumulator_bits),
        _element(
            f"mixpe-a8-unsigned{suffix}",
            title.format("unsigned with zero point"),
            _UINT4_INT8,
            12,
            accumulator_bits,
            zero_point=ZeroPoint.ROW_SUM,
        ),
        _element(
            f"mixpe-a8-edge{suffix}",
            title.format("5-bit weight less its zero point"),
            _INT5_INT8,
            13,
            accumulator_bits,
            zero_point=ZeroPoint.EDGE,
        ),
    )


_SPECS = (
    _element("int8", "INT8 MAC, multiplier of the synthesis tool", _INT8, 16, 32),
    _element("int8-booth", "INT8 MAC, radix-4 Booth multiplier", _INT8, 16, 32),
    _element("int8-tree", "INT8 MAC, Baugh-Wooley and a Dadda tree by hand", _INT8, 16, 32),
    _element("int8-acc29", "INT8 MAC, accumulator for 11008 products of 127 x 127", _INT8, 16, 29),
    _element("int4x8", "INT4 x INT8, multiplier, group accumulator", _INT4_INT8, 12, _GROUP),
    _element("int4x8-acc32", "INT4 x INT8, multiplier, 32-bit accumulator", _INT4_INT8, 12, 32),
    *_mixpe_a8("", "group accumulator", _GROUP),
    *_mixpe_a8("-acc32", "32-bit accumulator", 32),
    _element(
        "mixpe-a8-recoded",
        "MixPE W4A8, shift-and-add of two signed digits, group accumulator",
        _INT4_INT8,
        12,
        _GROUP,
    ),
    _element(
        "mixpe-a8-recoded-acc18",
        "The same, for groups of 128 and activations of at most 127",
        _INT4_INT8,
        12,
        18,
    ),
    _element(
        "dequant-int8",
        "INT4 to INT8 dequantization in the element, INT8 MAC",
        _UINT4_INT8,
        16,
        32,
        control_bits=16,
        zero_point=ZeroPoint.ELEMENT,
    ),
    _element("mixpe-a16", "MixPE W4A16, exact shift-and-add of mantissas", _INT4_FP16, 23, None),
    _element("mixpe-a16-literal", "MixPE W4A16, additions to the exponent", _INT4_FP16, 23, None),
    _element(
        "dequant-fp16",
        "INT4 to FP16 dequantization in the element, FP16 MAC",
        (Operand.UINT4, 4, Operand.FP16, 16),
        32,
        None,
        control_bits=20,
        zero_point=ZeroPoint.ELEMENT,
    ),
    _element("fp16", "FP16 MAC", (Operand.FP16, 16, Operand.FP16, 16), 32, None),
    _element("fp8-e4m3", "FP8 E4M3 MAC", (Operand.E4M3, 8, Operand.E4M3, 8), 16, None),
    _element("fp8-e5m2", "FP8 E5M2 MAC", (Operand.E5M2, 8, Operand.E5M2, 8), 15, None),
    _element("mxfp4", "MXFP4 x MXFP4, block of 32", (Operand.E2M1, 4, Operand.E2M1, 4), 9, 14),
    _element("mxfp4-a8", "MXFP4 x INT8", (Operand.E2M1, 4, Operand.INT8, 8), 12, _GROUP),
    _element(
        "bitfusion",
        "BitFusion fusion unit, 16 bricks, 9 modes",
        (Operand.FUSED, 32, Operand.FUSED, 32),
        16,
        32,
        control_bits=4,
    ),
    _element(
        "ant",
        "ANT, decoded flint4 or int4",
        (Operand.DECODED_FLINT, 6, Operand.DECODED_FLINT, 6),
        10,
        _GROUP,
    ),
    _element(
        "olive",
        "OliVe, decoded int4 or outlier",
        (Operand.DECODED_OLIVE, 7, Operand.DECODED_OLIVE, 7),
        15,
        32,
    ),
    _element(
        "tender",
        "Tender, INT4 x INT4, accumulator shifts between groups",
        (Operand.INT4, 4, Operand.INT4, 4),
        8,
        32,
        control_bits=1,
    ),
    _element(
        "bitmod",
        "BitMoD, 4 lanes, bit-serial weight x FP16",
        (Operand.BIT_TERM, 20, Operand.FP16, 64),
        29,
        None,
        products_per_cycle=2,
    ),
    _element(
        "figna", "FIGNA, pre-aligned 14 bits x INT4", (Operand.INT4, 4, Operand.INT14, 14), 18, 32
    ),
    _element(
        "figna-24",
        "FIGNA, pre-aligned 24 bits x INT4",
        (Operand.INT4, 4, Operand.INT24, 24),
        28,
        40,
    ),
    _element(
        "prealigned-12",
        "Pre-aligned 12 bits x INT4, shift-and-add, 24-bit accumulator",
        (Operand.INT4, 4, Operand.INT12, 12),
        16,
        24,
    ),
)

ELEMENTS: dict[str, ProcessingElementSpec] = {spec.name: spec for spec in _SPECS}
"""Every processing element by name, in the order of reports."""


def element_spec(name: str) -> ProcessingElementSpec:
    """The element of that name.

    Raises
    ------
    InputError
        If there is none.
    """
    if name not in ELEMENTS:
        raise InputError(f"element: expected one of {', '.join(ELEMENTS)}, found {name!r}")
    return ELEMENTS[name]
