"""Payloads of the streams of a systolic array."""

from typing import Any

from amaranth.hdl import Shape, signed, unsigned
from amaranth.lib import data

from hw.spec.systolic import SystolicSpec
from hw.spec.systolic_parts import INTEGER_SCALE_BITS, RESULT_BITS, SCALE_BITS, Dequantization

__all__ = [
    "beat_layout",
    "control_layout",
    "result_layout",
    "row_sum_shape",
    "scale_layout",
    "scales_layout",
    "sum_shape",
    "unit_scales_layout",
    "weights_layout",
]


def weights_layout(spec: SystolicSpec) -> data.ArrayLayout:
    """One row of weights as they enter: the control bits of the element above the weight."""
    return data.ArrayLayout(unsigned(spec.weight_bits), spec.columns)


def beat_layout(spec: SystolicSpec) -> data.StructLayout:
    """A beat of the stream `i`: activations of all rows, and what to do with them.

    Output stationary, it has one index of K; weight stationary, one row of X. `first` and `last` bound a
    group (os) or a pass (ws). With dequantization, sums over groups begin where `open` is set and leave as
    results where `close` is set; `address` is the entry of a tile's first row (os) or of this row (ws).
    """
    fields: dict[str, Any] = {
        "activations": data.ArrayLayout(
            unsigned(spec.processing_element.activation_bits), spec.rows
        )
    }
    if spec.output_stationary:
        fields["weights"] = weights_layout(spec)
    fields |= {"first": unsigned(1), "last": unsigned(1)}
    if spec.dequantizes:
        fields |= {"open": unsigned(1), "close": unsigned(1)}
        fields["address"] = unsigned(spec.address_bits)
    return data.StructLayout(fields)


def scale_layout(spec: SystolicSpec) -> data.StructLayout:
    """Scales and zero point of one column for a group; `channel` is used with the group that closes."""
    fields: dict[str, Any] = {}
    if spec.dequantization is Dequantization.CHANNEL:
        fields |= {"scale": unsigned(INTEGER_SCALE_BITS), "channel": unsigned(SCALE_BITS)}
    else:
        fields["scale"] = unsigned(SCALE_BITS)
    if spec.zero_bits:
        fields["zero"] = unsigned(spec.zero_bits)
    return data.StructLayout(fields)


def unit_scales_layout(spec: SystolicSpec) -> data.StructLayout | data.ArrayLayout:
    """Scales and zero points of the columns of one unit."""
    layout = scale_layout(spec)
    return layout if spec.columns_per_unit == 1 else data.ArrayLayout(layout, spec.columns_per_unit)


def scales_layout(spec: SystolicSpec) -> data.ArrayLayout:
    """A word of the stream `scales`."""
    return data.ArrayLayout(scale_layout(spec), spec.columns)


def control_layout(spec: SystolicSpec) -> data.StructLayout:
    """What a group's sum needs to know below its column; `end` marks the last sum of a group or pass.

    `column` is that of the unit, where columns share one.
    """
    fields: dict[str, Any] = {"valid": unsigned(1), "end": unsigned(1)}
    if spec.dequantizes:
        fields |= {"open": unsigned(1), "close": unsigned(1)}
        fields["address"] = unsigned(spec.address_bits)
        if spec.columns_per_unit > 1:
            fields["column"] = unsigned((spec.columns_per_unit - 1).bit_length())
    return data.StructLayout(fields)


def result_layout(spec: SystolicSpec) -> data.ArrayLayout:
    """One row of outputs."""
    return data.ArrayLayout(unsigned(RESULT_BITS), spec.columns)


def sum_shape(spec: SystolicSpec) -> Shape:
    """A group's sum."""
    element = spec.processing_element
    return unsigned(32) if element.fp32 else signed(element.accumulator_bits)


def row_sum_shape(spec: SystolicSpec) -> Shape:
    """Sum of a row's activations."""
    return signed(spec.row_sum_bits)
