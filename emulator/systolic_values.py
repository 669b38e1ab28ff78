"""Golden outputs of a systolic array: whole matrices at once, from what the arithmetic means."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emulator.numerics.floating import add, canonical, from_integer, multiply
from emulator.pe.golden import sums
from emulator.pe.operands import decode, signed_value
from emulator.systolic_gemm import Gemm
from emulator.units.matrix import SCALE_FACTORS
from hw.spec.processing_element import BIT_TERM_BITS, Operand
from hw.spec.systolic import SystolicSpec
from hw.spec.systolic_parts import FRACTION_BITS, Dequantization

__all__ = ["Operands", "golden_outputs", "group_length", "random_operands"]

Codes = npt.NDArray[np.int64]

EXACT_PRODUCTS = {Operand.INT4, Operand.UINT4, Operand.INT5, Operand.INT8, Operand.E2M1}
"""Weights whose integer products and sums need no wrapping, so that a product of matrices has them."""

CHUNK = 1 << 22
"""Products held at once where an element's own golden sums are used."""


@dataclass(frozen=True)
class Operands:
    """What one product is computed from; codes are bit patterns.

    Members
    -------
    activations : int64 [m, beats]
    weights : int64 [beats, n]
        With the element's control bits, if any, above the weight.
    scales : int64 [groups, n]
        FP16 bits, or 8-bit integers (`Dequantization.CHANNEL`).
    zeros : int64 [groups, n]
    channel_scales : int64 [n]
        FP16 bits; of `Dequantization.CHANNEL` only.
    token_scales : uint32 [m]
        FP32 bits.
    """

    activations: Codes
    weights: Codes
    scales: Codes
    zeros: Codes
    channel_scales: Codes
    token_scales: npt.NDArray[np.uint32]


def group_length(spec: SystolicSpec) -> int:
    """Beats whose sum is dequantized at once: a group, or the rows of a pass."""
    return spec.group_size if spec.output_stationary else spec.rows


def random_operands(spec: SystolicSpec, gemm: Gemm, rng: np.random.Generator) -> Operands:
    """Random operands, scales of all magnitudes; floating-point codes are of magnitudes around 1."""
    element = spec.processing_element
    beats = gemm.beats(spec)
    count = -(-beats // spec.group_size)
    x = _codes(rng, element.activation, element.activation_bits, (gemm.m, beats))
    w = _codes(rng, element.weight, spec.code_bits, (beats, gemm.n))
    if element.weight is Operand.FUSED:
        # Modes are pairs of three widths.
        modes = rng.integers(0, 3, w.shape) | rng.integers(0, 3, w.shape) << 2
        w |= modes << element.weight_bits
    else:
        w |= rng.integers(0, 1 << element.control_bits, w.shape) << element.weight_bits
    integer = spec.dequantization is Dequantization.CHANNEL
    scales = rng.integers(0, 1 << (8 if integer else 16), (count, gemm.n))
    if not integer:
        # Most of similar magnitude, so that every group has a say in the sum.
        similar = scales & 0x87FF | 0x3800
        scales = np.where(rng.random(scales.shape) < 0.8, similar, scales)
    return Operands(
        activations=x,
        weights=w,
        scales=scales,
        zeros=rng.integers(0, 1 << spec.zero_bits, (count, gemm.n)),
        channel_scales=rng.integers(0, 1 << 16, gemm.n),
        token_scales=rng.normal(size=gemm.m).astype(np.float32).view(np.uint32),
    )


def _codes(rng: np.random.Generator, operand: Operand, bits: int, shape: tuple[int, int]) -> Codes:
    """Random codes; floating-point ones of magnitudes around 1, so that sums are numbers that round."""
    codes = rng.integers(0, 1 << bits, shape, np.uint64)
    if operand is Operand.FP16:
        lanes = sum(1 << lane for lane in range(0, bits, 16))
        codes = codes & np.uint64(0x87FF * lanes) | np.uint64(0x3800 * lanes)
    if operand is Operand.BIT_TERM:
        # Above the exponent of a term, which is at most 4, are its sign and whether there is one.
        places = range(0, bits, BIT_TERM_BITS)
        terms = [
            rng.integers(0, 5, shape, np.uint64)
            | rng.integers(0, 4, shape, np.uint64) << np.uint64(3)
            for _ in places
        ]
        joined = [term << np.uint64(place) for term, place in zip(terms, places, strict=True)]
        codes = np.bitwise_or.reduce(joined)
    if operand in (Operand.E4M3, Operand.E5M2):
        codes &= np.uint64(0xBF)
    return codes.astype(np.int64)


def golden_outputs(spec: SystolicSpec, operands: Operands) -> npt.NDArray[np.uint32]:
    """Bits of all outputs, uint32 [m, n]: FP32, or the lowest 32 bits of sums without dequantization."""
    length = group_length(spec)
    beats = operands.activations.shape[1]
    bounds = [(start, min(start + length, beats)) for start in range(0, beats, length)]
    parts = [_group_sums(spec, operands, start, end) for start, end in bounds]
    if spec.dequantization is Dequantization.NONE:
        return parts[0].astype(np.int64).astype(np.uint32)
    scales = [operands.scales[start // spec.group_size] for start, _ in bounds]
    tokens = canonical(operands.token_scales.view(np.float32))[:, None]
    match spec.dequantization:
        case Dequantization.INTEGER:
            total = sum(p * SCALE_FACTORS[s] for p, s in zip(parts, scales, strict=True))
            outputs = from_integer(total, FRACTION_BITS)
        case Dequantization.CHANNEL:
            total = signed_value(sum(p * s for p, s in zip(parts, scales, strict=True)), 32)
            outputs = multiply(from_integer(total), _half(operands.channel_scales))
        case _:
            outputs = np.zeros(parts[0].shape, np.float32)
            for part, scale in zip(parts, scales, strict=True):
                outputs = add(outputs, multiply(_as_float(spec, part), _half(scale)))
    return multiply(outputs, tokens).view(np.uint32)


def _half(codes: Codes) -> npt.NDArray[np.float32]:
    """FP16 numbers; an exponent of all ones is nothing special."""
    values = (SCALE_FACTORS[codes] * 2.0**-FRACTION_BITS).astype(np.float32)
    return np.where((codes >> 15 & 1).astype(bool), -np.abs(values), values)


def _as_float(spec: SystolicSpec, part: Codes) -> npt.NDArray[np.float32]:
    if spec.processing_element.fp32:
        return canonical(part.astype(np.uint32).view(np.float32))
    return from_integer(part)


def _group_sums(spec: SystolicSpec, operands: Operands, start: int, end: int) -> Codes:
    """Sums of ``x * (q - z)`` over a range of beats; bits where the element's sum is FP32."""
    element = spec.processing_element
    x, w = operands.activations[:, start:end], operands.weights[start:end]
    if spec.row_sums or spec.edge_zeros:
        zeros = operands.zeros[start // spec.group_size]
        # Sums fit the accumulator, so they may be formed without wrapping.
        return np.asarray(decode(element.activation, x) @ (w - zeros), np.int64)
    if element.weight in EXACT_PRODUCTS and not element.fp32 and not element.control_bits:
        return np.asarray(decode(element.activation, x) @ decode(element.weight, w), np.int64)
    bits, mask = element.weight_bits, (1 << element.weight_bits) - 1
    outputs = np.empty((x.shape[0], w.shape[1]), np.int64)
    columns = max(CHUNK // max(x.size, 1), 1)
    clear = (np.arange(end - start) == 0)[:, None, None]
    for first in range(0, w.shape[1], columns):
        codes = w[:, None, first : first + columns]
        history = sums(element, codes & mask, x.T[:, :, None], True, clear, codes >> bits)
        outputs[:, first : first + columns] = history[-1]
    return outputs
