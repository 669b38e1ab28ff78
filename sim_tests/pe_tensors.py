"""Real tensors of the bundled model in the formats of the processing elements.

Each element gets one layer's weights and activations, quantized as its paper does it as far as that is
known: bit patterns for its ports, and the numbers that they stand for.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

from emulator.pe.operands import decode
from hw.pe.edge import FLINT
from hw.spec.processing_element import Operand, ProcessingElementSpec, ZeroPoint
from sim_tests.pe_number_formats import (
    GROUP,
    Codes,
    Matrix,
    bit_patterns,
    float16,
    in_blocks,
    int4_weights,
    round_symmetric,
    round_to_table,
    zero_point_weights,
)
from sim_tests.pe_paper_formats import bitfusion, bitmod, olive, tender
from sim_tests.pe_quantized import Quantized, Tensors

__all__ = ["Quantized", "Tensors", "quantize", "real_tensors", "signal_to_noise"]

MODEL = "pydoc-llama"
LAYER = 2
TOKENS = 256
MXFP4_BLOCK = 32
QSERVE_RANGE = 119


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


def quantize(spec: ProcessingElementSpec, tensors: Tensors) -> Quantized:
    """A matrix product in the format of an element; what weights and activations do is independent."""
    if spec.name == "bitfusion":
        return bitfusion(tensors)
    if spec.name == "bitmod":
        return bitmod(tensors)
    if spec.name == "tender":
        return tender(tensors)
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
    codes, zeros, scales, numbers = zero_point_weights(weight)
    control = np.zeros(weight.shape, np.uint64)
    if spec.zero_point is ZeroPoint.EDGE:
        return bit_patterns(codes - zeros, 5), numbers, control
    if spec.zero_point is ZeroPoint.ELEMENT:
        half, _ = float16(scales)
        numbers = (scales.astype(np.float16) * (codes - zeros).astype(np.float16)).astype(float)
        control = half | bit_patterns(zeros, 4) << np.uint64(16)
    return bit_patterns(codes, 4), numbers, control


def _qserve(weight: Matrix) -> tuple[Codes, Matrix, Codes]:
    """INT8 a channel in the protective range, then uint4 with an integer scale a group."""
    scale = np.abs(weight).max(-1, keepdims=True) / QSERVE_RANGE
    first = np.rint(weight / scale)
    parts = in_blocks(first, GROUP)
    low, high = parts.min(-1, keepdims=True), parts.max(-1, keepdims=True)
    second = np.maximum(np.rint((high - low) / 15), 1)
    zero = np.clip(np.rint(-low / second), 0, 15)
    codes = np.clip(np.rint(parts / second) + zero, 0, 15)
    numbers = ((codes - zero) * second).reshape(weight.shape) * scale
    control = bit_patterns(second, 8) | bit_patterns(-zero * second, 8) << np.uint64(8)
    control = np.broadcast_to(control, parts.shape).reshape(weight.shape)
    return bit_patterns(codes, 4).reshape(weight.shape), numbers, control


def _weights(spec: ProcessingElementSpec, weight: Matrix) -> tuple[Codes, Matrix, int]:
    """Port codes, numbers, and products to a sum."""
    inputs = weight.shape[1]
    match spec.weight:
        case Operand.INT4:
            integers, numbers = int4_weights(weight)
            return bit_patterns(integers, 4), numbers, GROUP
        case Operand.INT8:
            integers, numbers = round_symmetric(weight, inputs, 127)
            return bit_patterns(integers, 8), numbers, inputs
        case Operand.FP16:
            return *float16(weight), inputs
    return _table_format(spec.weight, weight)


def _table_format(operand: Operand, values: Matrix) -> tuple[Codes, Matrix, int]:
    """Formats whose codes are looked up."""
    inputs = values.shape[1]
    match operand:
        case Operand.E4M3 | Operand.E5M2:
            grid = decode(operand, np.arange(256)).astype(np.float64)
            finite = np.flatnonzero(np.isfinite(grid))
            index, numbers = round_to_table(values, inputs, grid[finite])
            return finite[index].astype(np.uint64), numbers, inputs
        case Operand.E2M1:
            grid = decode(operand, np.arange(16)).astype(np.float64)
            index, numbers = round_to_table(values, MXFP4_BLOCK, grid, power_of_two=True)
            return index.astype(np.uint64), numbers, MXFP4_BLOCK
        case Operand.DECODED_FLINT:
            table = [(s * i, shift) for s in (1, -1) for i, shift in FLINT]
            grid = np.array([float(i << shift) for i, shift in table])
            index, numbers = round_to_table(values, GROUP, grid)
            ports = np.array([(i & 15) | shift << 4 for i, shift in table], np.uint64)
            return ports[index], numbers, GROUP
        case Operand.DECODED_OLIVE:
            return *olive(values), inputs
    raise ValueError(f"no tensors for {operand}")


def _activations(spec: ProcessingElementSpec, activation: Matrix) -> tuple[Codes, Matrix]:
    match spec.activation:
        case Operand.INT8:
            integers, numbers = round_symmetric(activation, activation.shape[1], 127)
            return bit_patterns(integers, 8), numbers
        case Operand.FP16:
            return float16(activation)
        case Operand.INT12 | Operand.INT14 | Operand.INT24:
            return _aligned(activation, spec.activation_bits)
    codes, numbers, _ = _table_format(spec.activation, activation)
    return codes, numbers


def _aligned(activation: Matrix, width: int) -> tuple[Codes, Matrix]:
    """FP16 cut to integers of the largest exponent of each group, as `hw.pe.edge.Aligner` does it."""
    half = activation.astype(np.float16).astype(np.float64)
    parts = in_blocks(half, GROUP)
    largest = np.abs(parts).max(-1, keepdims=True)
    exponent = np.floor(np.log2(np.maximum(largest, 2.0**-14)))
    unit = np.exp2(exponent - (width - 2))
    integers = np.trunc(parts / unit)
    return bit_patterns(integers, width).reshape(half.shape), (integers * unit).reshape(half.shape)
