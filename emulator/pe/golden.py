"""Golden twins of all processing elements: exact products, then sums as the accumulator keeps them.

Written from what the formats mean, in NumPy's integers and IEEE arithmetic; the hardware works on
fields of bits.
"""

import numpy as np
import numpy.typing as npt

from emulator.pe.operands import Codes, Values, decode, signed_value, split
from hw.spec.processing_element import (
    BIT_TERM_BITS,
    BIT_TERM_LANES,
    BITMOD_GUARD_BITS,
    FusionWidth,
    Operand,
    ProcessingElementSpec,
)

__all__ = ["products", "sums"]

CANONICAL_NAN = 0x7FC00000
_DECODED = {Operand.DECODED_FLINT, Operand.DECODED_OLIVE}


def products(
    spec: ProcessingElementSpec,
    weight: npt.ArrayLike,
    activation: npt.ArrayLike,
    control: npt.ArrayLike = 0,
) -> Values:
    """What each cycle adds to the sum, of all its operands together.

    Parameters
    ----------
    spec : ProcessingElementSpec
        The element.
    weight, activation, control : array_like of int
        Bit patterns at the ports; they broadcast.

    Returns
    -------
    ndarray of int64, or of float64 of an element with FP32 sum
        Exact.
    """
    with np.errstate(invalid="ignore"):  # infinity times zero is a NaN, as it should be
        if spec.name == "bitfusion":
            return _fused(weight, activation, control)
        if spec.name == "bitmod":
            return _bit_serial(weight, activation)
        if spec.name == "dequant-int8":
            q, control = np.asarray(weight, np.int64), np.asarray(control, np.int64)
            weights = signed_value(q * (control & 255) + (control >> 8), 8)
            return weights * decode(spec.activation, activation)
        if spec.name == "dequant-fp16":
            return _dequantized(weight, control) * decode(spec.activation, activation)
        exact = decode(spec.weight, weight) * decode(spec.activation, activation)
    return signed_value(exact, spec.product_bits) if spec.weight in _DECODED else exact


def _fused(weight: npt.ArrayLike, activation: npt.ArrayLike, control: npt.ArrayLike) -> Codes:
    """Each mode by itself, as a dot product of as many operands as fit."""
    weight, activation, control = np.broadcast_arrays(weight, activation, control)
    total = np.zeros(weight.shape, np.int64)
    for a in FusionWidth:
        for w in FusionWidth:
            lanes = 64 // (a.bits * w.bits)
            x = signed_value(split(activation, a.bits, lanes), a.bits)
            y = signed_value(split(weight, w.bits, lanes), w.bits)
            total = np.where(control == a.value | w.value << 2, (x * y).sum(-1), total)
    return total


def _bit_serial(weight: npt.ArrayLike, activation: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Terms times activations, each cut to a multiple of one quantum of the largest exponent."""
    term = split(weight, BIT_TERM_BITS, BIT_TERM_LANES)
    bits = split(activation, 16, BIT_TERM_LANES)
    field = (bits >> 10) & 31
    fraction = (bits & 1023) + np.where(field > 0, 1024, 0)
    exponent = np.maximum(field, 1) - 25.0
    value = np.ldexp(1.0, exponent.astype(int)) * fraction * (1 << (term & 7))
    quantum = np.ldexp(1.0, (exponent.max(-1, keepdims=True) - BITMOD_GUARD_BITS).astype(int))
    kept = np.floor(value * ((term >> 3) & 1) / quantum) * quantum
    negative = ((term >> 4) ^ (bits >> 15)) & 1
    return np.where(negative, -kept, kept).sum(-1)


def _dequantized(weight: npt.ArrayLike, control: npt.ArrayLike) -> npt.NDArray[np.float64]:
    control = np.asarray(control, np.int64)
    scale = control.astype(np.uint16).view(np.float16)
    steps = (np.asarray(weight, np.int64) - (control >> 16)).astype(np.float16)
    with np.errstate(over="ignore"):
        return (scale * steps).astype(np.float64)


def sums(
    spec: ProcessingElementSpec,
    weight: npt.ArrayLike,
    activation: npt.ArrayLike,
    valid: npt.ArrayLike,
    clear: npt.ArrayLike,
    control: npt.ArrayLike = 0,
) -> Codes:
    """The sum register after each operand set, time along the first axis.

    The entry of cycle ``t`` is what the element shows in cycle ``t + spec.latency``. The first operand
    set must be valid and clear, since the sum is unknown before.

    Parameters
    ----------
    weight, activation, control : array_like of int
        Bit patterns at the ports in each cycle.
    valid, clear : array_like of bool
        As the ports of these names.

    Returns
    -------
    ndarray of int64
        Signed sums; of an element with FP32 accumulator its bits, as unsigned integers.
    """
    addends = np.atleast_1d(products(spec, weight, activation, control))
    valid = np.broadcast_to(np.asarray(valid, bool), addends.shape)
    clear = np.broadcast_to(np.asarray(clear, bool), addends.shape)
    if spec.fp32:
        return _float_sums(addends.astype(np.float32), valid, clear)
    doubles = np.broadcast_to(
        np.asarray(control, np.int64) if spec.name == "tender" else 0, addends.shape
    )
    total = np.zeros(addends.shape[1:], np.int64)
    history = np.empty(addends.shape, np.int64)
    for cycle, addend in enumerate(addends):
        before = np.where(clear[cycle], 0, total << doubles[cycle])
        upto = signed_value(before + addend, spec.accumulator_bits)
        history[cycle] = total = np.where(valid[cycle], upto, total)
    return history


def _float_sums(
    addends: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_], clear: npt.NDArray[np.bool_]
) -> Codes:
    total = np.zeros(addends.shape[1:], np.float32)
    history = np.empty(addends.shape, np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        for cycle, addend in enumerate(addends):
            upto = np.where(clear[cycle], addend, total + addend)
            history[cycle] = total = np.where(valid[cycle], upto, total)
    bits = history.view(np.uint32).astype(np.int64)
    return np.where(np.isnan(history), CANONICAL_NAN, bits)
