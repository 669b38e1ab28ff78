"""Real tensors of the bundled model in the formats of the processing elements.

Each element gets one layer's weights and activations, quantized as its paper does it as far as that is
known: bit patterns for its ports, and the numbers that they stand for.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from emulator.pe.operands import decode
from hw.pe.edge import FLINT, OLIVE, TERMS
from hw.spec.processing_element import Operand, ProcessingElementSpec, ZeroPoint

__all__ = ["Quantized", "Tensors", "quantize", "real_tensors", "signal_to_noise"]

Matrix = npt.NDArray[np.float64]
Codes = npt.NDArray[np.uint64]

MODEL = "pydoc-llama"
LAYER = 2
TOKENS = 256
GROUP = 128
MXFP4_BLOCK = 32
QSERVE_RANGE = 119


@dataclass(frozen=True)
class Tensors:
    """Weights [N, K] and activations [M, K] of one matrix product, K a multiple of the group."""

    weight: Matrix
    activation: Matrix


@dataclass(frozen=True)
class Quantized:
    """One matrix product in the format of an element.

    Parameters
    ----------
    weight_codes, activation_codes : ndarray of uint64
        Bit patterns at the ports over the cycles of one sum: [N, cycles] and [M, cycles].
    control : ndarray of uint64
        [N, cycles] at the control port.
    weight, activation : ndarray of float64
        Numbers that the codes and their scales stand for, [N, K] and [M, K].
    group_cycles : int
        Cycles after which the sum begins again.
    """

    weight_codes: Codes
    activation_codes: Codes
    control: Codes
    weight: Matrix
    activation: Matrix
    group_cycles: int


@cache
def real_tensors() -> Tensors:
    """The feed-forward input of a middle layer on held-out text, and the weights it meets."""
    from mapping.frontend.model import MODELS_FOLDER, load_model
    from mapping.reference import FloatReference

    model = load_model(MODEL)
    seen: dict[str, Matrix] = {}

    def hook(point: str, values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        if point == f"layers.{LAYER}.feed_forward_input":
            seen["activation"] = values.astype(np.float64)
        return values

    text = (MODELS_FOLDER / MODEL / "heldout.txt").read_text()
    ids = model.tokenizer.encode(text[: 16 * TOKENS])[:TOKENS]
    FloatReference(model, activation_hook=hook).prefill(np.asarray(ids))
    weight = model.tensor(f"layers.{LAYER}.mlp.gate_proj").astype(np.float64)
    return Tensors(weight, seen["activation"])


def signal_to_noise(tensors: Tensors, quantized: Quantized) -> float:
    """Decibels of the product's power over that of its error, in the operands' quantization alone."""
    exact = tensors.activation @ tensors.weight.T
    error = quantized.activation @ quantized.weight.T - exact
    return float(10 * np.log10(np.square(exact).sum() / np.square(error).sum()))


def _bits(values: npt.ArrayLike, width: int) -> Codes:
    return (np.asarray(values).astype(np.int64) & ((1 << width) - 1)).astype(np.uint64)


def _blocks(values: Matrix, block: int) -> Matrix:
    """[rows, blocks, block]."""
    return values.reshape(len(values), -1, block)


def _integers(values: Matrix, block: int, largest: int) -> tuple[Matrix, Matrix]:
    """Symmetric integers and what they stand for, a scale a block."""
    parts = _blocks(values, block)
    scale = np.abs(parts).max(-1, keepdims=True) / largest
    scale = np.where(scale == 0, 1, scale)
    integers = np.clip(np.rint(parts / scale), -largest, largest)
    return integers.reshape(values.shape), (integers * scale).reshape(values.shape)


def _nearest(
    values: Matrix, block: int, grid: npt.NDArray[np.float64], power_of_two: bool = False
) -> tuple[npt.NDArray[np.int64], Matrix]:
    """Index of the nearest entry of a table of numbers, and the number times its block's scale."""
    parts = _blocks(values, block)
    largest = np.abs(parts).max(-1, keepdims=True)
    scale = np.where(largest == 0, 1, largest / np.nanmax(np.abs(grid)))
    if power_of_two:
        # The rule of the OCP specification: elements above the largest number saturate.
        exponent = np.floor(np.log2(np.where(largest == 0, 1, largest)))
        scale = np.exp2(exponent - np.floor(np.log2(np.nanmax(grid))))
    order = np.argsort(grid)
    ascending = grid[order]
    edges = (ascending[1:] + ascending[:-1]) / 2
    index = order[np.searchsorted(edges, parts / scale)]
    return index.reshape(values.shape), (grid[index] * scale).reshape(values.shape)


def _int4_weights(weight: Matrix) -> tuple[Matrix, Matrix]:
    from mapping.quantize import quantize_matrix
    from mapping.recipe import WeightFormat

    matrix = quantize_matrix(weight.astype(np.float32), WeightFormat(bits=4, group=GROUP))
    return matrix.values.astype(np.float64), matrix.dequantize().astype(np.float64)


def _zero_point_weights(weight: Matrix) -> tuple[Matrix, Matrix, Matrix, Matrix]:
    """Codes 0..15, zero points and scales for each weight, and numbers."""
    parts = _blocks(weight, GROUP)
    low, high = parts.min(-1, keepdims=True), parts.max(-1, keepdims=True)
    scale = (np.maximum(high - low, 1e-5) / 15).astype(np.float16).astype(np.float64)
    zero = np.clip(np.rint(-low / scale), 0, 15)
    codes = np.clip(np.rint(parts / scale) + zero, 0, 15)
    numbers = (codes - zero) * scale
    zeros, scales = np.broadcast_to(zero, parts.shape), np.broadcast_to(scale, parts.shape)
    return tuple(x.reshape(weight.shape) for x in (codes, zeros, scales, numbers))  # type: ignore[return-value] - four of them


def _float16(values: Matrix) -> tuple[Codes, Matrix]:
    half = values.astype(np.float16)
    return half.view(np.uint16).astype(np.uint64), half.astype(np.float64)


def quantize(spec: ProcessingElementSpec, tensors: Tensors) -> Quantized:
    """A matrix product in the format of an element; what weights and activations do is independent."""
    if spec.name == "bitfusion":
        return _bitfusion(tensors)
    if spec.name == "bitmod":
        return _bitmod(tensors)
    if spec.name == "tender":
        return _tender(tensors)
    activation_codes, activation = _activations(spec, tensors.activation)
    control = np.zeros(tensors.weight.shape, np.uint64)
    group = GROUP
    if spec.zero_point is not ZeroPoint.NONE:
        weight_codes, weight, control = _zero_pointed(spec, tensors.weight)
    else:
        weight_codes, weight, group = _weights(spec, tensors.weight)
    return Quantized(weight_codes, activation_codes, control, weight, activation, group)


def _zero_pointed(spec: ProcessingElementSpec, weight: Matrix) -> tuple[Codes, Matrix, Codes]:
    if spec.name == "dequant-int8":
        return _qserve(weight)
    codes, zeros, scales, numbers = _zero_point_weights(weight)
    control = np.zeros(weight.shape, np.uint64)
    if spec.zero_point is ZeroPoint.EDGE:
        return _bits(codes - zeros, 5), numbers, control
    if spec.zero_point is ZeroPoint.ELEMENT:
        half, _ = _float16(scales)
        numbers = (scales.astype(np.float16) * (codes - zeros).astype(np.float16)).astype(float)
        control = half | _bits(zeros, 4) << np.uint64(16)
    return _bits(codes, 4), numbers, control


def _qserve(weight: Matrix) -> tuple[Codes, Matrix, Codes]:
    """INT8 a channel in the protective range, then uint4 with an integer scale a group."""
    scale = np.abs(weight).max(-1, keepdims=True) / QSERVE_RANGE
    first = np.rint(weight / scale)
    parts = _blocks(first, GROUP)
    low, high = parts.min(-1, keepdims=True), parts.max(-1, keepdims=True)
    second = np.maximum(np.rint((high - low) / 15), 1)
    zero = np.clip(np.rint(-low / second), 0, 15)
    codes = np.clip(np.rint(parts / second) + zero, 0, 15)
    numbers = ((codes - zero) * second).reshape(weight.shape) * scale
    control = _bits(second, 8) | _bits(-zero * second, 8) << np.uint64(8)
    control = np.broadcast_to(control, parts.shape).reshape(weight.shape)
    return _bits(codes, 4).reshape(weight.shape), numbers, control


def _weights(spec: ProcessingElementSpec, weight: Matrix) -> tuple[Codes, Matrix, int]:
    """Port codes, numbers, and products to a sum."""
    inputs = weight.shape[1]
    match spec.weight:
        case Operand.INT4:
            integers, numbers = _int4_weights(weight)
            return _bits(integers, 4), numbers, GROUP
        case Operand.INT8:
            integers, numbers = _integers(weight, inputs, 127)
            return _bits(integers, 8), numbers, inputs
        case Operand.FP16:
            return *_float16(weight), inputs
    return _table_format(spec.weight, weight)


def _table_format(operand: Operand, values: Matrix) -> tuple[Codes, Matrix, int]:
    """Formats whose codes are looked up."""
    inputs = values.shape[1]
    match operand:
        case Operand.E4M3 | Operand.E5M2:
            grid = decode(operand, np.arange(256)).astype(np.float64)
            finite = np.flatnonzero(np.isfinite(grid))
            index, numbers = _nearest(values, inputs, grid[finite])
            return finite[index].astype(np.uint64), numbers, inputs
        case Operand.E2M1:
            grid = decode(operand, np.arange(16)).astype(np.float64)
            index, numbers = _nearest(values, MXFP4_BLOCK, grid, power_of_two=True)
            return index.astype(np.uint64), numbers, MXFP4_BLOCK
        case Operand.DECODED_FLINT:
            table = [(s * i, shift) for s in (1, -1) for i, shift in FLINT]
            grid = np.array([float(i << shift) for i, shift in table])
            index, numbers = _nearest(values, GROUP, grid)
            ports = np.array([(i & 15) | shift << 4 for i, shift in table], np.uint64)
            return ports[index], numbers, GROUP
        case Operand.DECODED_OLIVE:
            return *_olive(values), inputs
    raise ValueError(f"no tensors for {operand}")


def _olive(values: Matrix) -> tuple[Codes, Matrix]:
    """Outlier-victim pairs: three standard deviations are 7; what is above keeps its place."""
    scale = 3 * values.std(-1, keepdims=True) / 7
    normalized = values / scale
    pairs = normalized.reshape(len(values), -1, 2)
    large = np.abs(pairs) > 9.5  # between the last normal number and the first outlier
    first = np.abs(pairs[..., :1]) >= np.abs(pairs[..., 1:])
    is_larger = np.concatenate([first, ~first], axis=-1)
    outlier = large & is_larger
    victim = large.any(-1, keepdims=True) & ~is_larger
    levels = np.array([float(i << s) for i, s in OLIVE[1:]])
    nearest = np.abs(np.abs(pairs)[..., None] - levels).argmin(-1)
    integers = np.array([i for i, _ in OLIVE[1:]])[nearest] * np.where(pairs < 0, -1, 1)
    shifts = np.array([s for _, s in OLIVE[1:]])[nearest]
    normal = np.clip(np.rint(pairs), -7, 7).astype(np.int64)
    base = np.where(outlier, integers, np.where(victim, 0, normal))
    shift = np.where(outlier, shifts, 0)
    numbers = (base * (1 << shift)).reshape(values.shape) * scale
    return _bits(base, 4).reshape(values.shape) | _bits(shift << 4, 7).reshape(
        values.shape
    ), numbers


def _activations(spec: ProcessingElementSpec, activation: Matrix) -> tuple[Codes, Matrix]:
    match spec.activation:
        case Operand.INT8:
            integers, numbers = _integers(activation, activation.shape[1], 127)
            return _bits(integers, 8), numbers
        case Operand.FP16:
            return _float16(activation)
        case Operand.INT12 | Operand.INT14 | Operand.INT24:
            return _aligned(activation, spec.activation_bits)
    codes, numbers, _ = _table_format(spec.activation, activation)
    return codes, numbers


def _aligned(activation: Matrix, width: int) -> tuple[Codes, Matrix]:
    """FP16 cut to integers of the largest exponent of each group, as `hw.pe.edge.Aligner` does it."""
    half = activation.astype(np.float16).astype(np.float64)
    parts = _blocks(half, GROUP)
    largest = np.abs(parts).max(-1, keepdims=True)
    exponent = np.floor(np.log2(np.maximum(largest, 2.0**-14)))
    unit = np.exp2(exponent - (width - 2))
    integers = np.trunc(parts / unit)
    return _bits(integers, width).reshape(half.shape), (integers * unit).reshape(half.shape)


def _bitfusion(tensors: Tensors) -> Quantized:
    """The mode of 8-bit activations and 4-bit weights, two products a cycle."""
    integers, weight = _int4_weights(tensors.weight)
    acts, activation = _integers(tensors.activation, tensors.activation.shape[1], 127)
    weight_codes = _lanes(_bits(integers, 4), 2, 4)
    activation_codes = _lanes(_bits(acts, 8), 2, 8)
    control = np.full(weight_codes.shape, 1 << 2, np.uint64)
    return Quantized(weight_codes, activation_codes, control, weight, activation, GROUP // 2)


def _lanes(codes: Codes, count: int, bits: int) -> Codes:
    parts = codes.reshape(len(codes), -1, count)
    return np.bitwise_or.reduce(parts << (np.arange(count, dtype=np.uint64) * np.uint64(bits)), -1)


def _bitmod(tensors: Tensors) -> Quantized:
    """FP4 with the special value that suits each group best, two terms a weight."""
    twice = np.array([float(sum(1 << t for t in terms)) for terms in TERMS])
    best_error, chosen, numbers = None, None, None
    for special, place in ((10.0, 8), (-10.0, 8), (16.0, 9), (-16.0, 9)):
        grid = np.concatenate([twice[:8], -twice[1:8], [special]])
        index, values = _nearest(tensors.weight, GROUP, grid)
        row = np.array([*range(8), *range(1, 8), place])[index]
        negative = np.array([0] * 8 + [1] * 7 + [int(special < 0)])[index]
        error = np.square(_blocks(values - tensors.weight, GROUP)).sum(-1, keepdims=True)
        error = np.broadcast_to(error, _blocks(values, GROUP).shape).reshape(values.shape)
        if best_error is None or chosen is None or numbers is None:
            best_error, chosen, numbers = error, row << 1 | negative, values
        else:
            better = error < best_error
            best_error = np.where(better, error, best_error)
            chosen = np.where(better, row << 1 | negative, chosen)
            numbers = np.where(better, values, numbers)
    assert chosen is not None and numbers is not None
    terms = (
        np.array([[(t[p] | 8) if p < len(t) else 0 for p in range(2)] for t in TERMS])[chosen >> 1]
        | ((chosen & 1) << 4)[..., None]
    )
    quads = terms.reshape(len(terms), -1, 4, 2).swapaxes(-1, -2).astype(np.uint64)
    weight_codes = _lanes(quads.reshape(-1, 4), 4, 5).reshape(len(terms), -1)
    half, activation = _float16(tensors.activation)
    activation_codes = np.repeat(_lanes(half, 4, 16), 2, axis=-1)
    control = np.zeros(weight_codes.shape, np.uint64)
    return Quantized(weight_codes, activation_codes, control, numbers, activation, GROUP // 2)


def _tender(tensors: Tensors) -> Quantized:
    """Channels in groups of falling powers of two, the largest first; INT4 both; one sum."""
    largest = np.abs(tensors.activation).max(0)
    steps = np.clip(np.floor(np.log2(largest.max() / np.maximum(largest, 1e-30))), 0, 7)
    order = np.argsort(steps, kind="stable")
    scale = largest.max() / 7 * np.exp2(-steps)
    integers = np.clip(np.rint(tensors.activation / scale), -7, 7)
    weights, weight = _integers(tensors.weight, tensors.weight.shape[1], 7)
    doubles = np.diff(steps[order], prepend=steps[order][0])
    # A step of more than one group passes empty groups: one cycle with a zero weight each.
    control = np.broadcast_to((doubles > 0).astype(np.uint64), weights.shape)
    return Quantized(
        _bits(weights[:, order], 4),
        _bits(integers[:, order], 4),
        control,
        weight,
        integers * scale,
        weights.shape[1],
    )
