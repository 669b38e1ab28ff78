"""Matrices as the papers of OliVe, BitFusion, BitMoD and Tender quantize them, as far as that is known."""

import numpy as np

from hw.pe.edge import OLIVE, TERMS
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
)
from sim_tests.pe_quantized import Quantized, Tensors

__all__ = ["bitfusion", "bitmod", "olive", "tender"]


def olive(values: Matrix) -> tuple[Codes, Matrix]:
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
    return bit_patterns(base, 4).reshape(values.shape) | bit_patterns(shift << 4, 7).reshape(
        values.shape
    ), numbers


def bitfusion(tensors: Tensors) -> Quantized:
    """The mode of 8-bit activations and 4-bit weights, two products a cycle."""
    integers, weight = int4_weights(tensors.weight)
    acts, activation = round_symmetric(tensors.activation, tensors.activation.shape[1], 127)
    weight_codes = lanes(bit_patterns(integers, 4), 2, 4)
    activation_codes = lanes(bit_patterns(acts, 8), 2, 8)
    control = np.full(weight_codes.shape, 1 << 2, np.uint64)
    return Quantized(weight_codes, activation_codes, control, weight, activation, GROUP // 2)


def lanes(codes: Codes, count: int, bits: int) -> Codes:
    parts = codes.reshape(len(codes), -1, count)
    return np.bitwise_or.reduce(parts << (np.arange(count, dtype=np.uint64) * np.uint64(bits)), -1)


def bitmod(tensors: Tensors) -> Quantized:
    """FP4 with the special value that suits each group best, two terms a weight."""
    twice = np.array([float(sum(1 << t for t in terms)) for terms in TERMS])
    best_error, chosen, numbers = None, None, None
    for special, place in ((10.0, 8), (-10.0, 8), (16.0, 9), (-16.0, 9)):
        grid = np.concatenate([twice[:8], -twice[1:8], [special]])
        index, values = round_to_table(tensors.weight, GROUP, grid)
        row = np.array([*range(8), *range(1, 8), place])[index]
        negative = np.array([0] * 8 + [1] * 7 + [int(special < 0)])[index]
        error = np.square(in_blocks(values - tensors.weight, GROUP)).sum(-1, keepdims=True)
        error = np.broadcast_to(error, in_blocks(values, GROUP).shape).reshape(values.shape)
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
    weight_codes = lanes(quads.reshape(-1, 4), 4, 5).reshape(len(terms), -1)
    half, activation = float16(tensors.activation)
    activation_codes = np.repeat(lanes(half, 4, 16), 2, axis=-1)
    control = np.zeros(weight_codes.shape, np.uint64)
    return Quantized(weight_codes, activation_codes, control, numbers, activation, GROUP // 2)


def tender(tensors: Tensors) -> Quantized:
    """Channels in groups of falling powers of two, the largest first; INT4 both; one sum."""
    largest = np.abs(tensors.activation).max(0)
    steps = np.clip(np.floor(np.log2(largest.max() / np.maximum(largest, 1e-30))), 0, 7)
    order = np.argsort(steps, kind="stable")
    scale = largest.max() / 7 * np.exp2(-steps)
    integers = np.clip(np.rint(tensors.activation / scale), -7, 7)
    weights, weight = round_symmetric(tensors.weight, tensors.weight.shape[1], 7)
    doubles = np.diff(steps[order], prepend=steps[order][0])
    # A step of more than one group passes empty groups: one cycle with a zero weight each.
    control = np.broadcast_to((doubles > 0).astype(np.uint64), weights.shape)
    return Quantized(
        bit_patterns(weights[:, order], 4),
        bit_patterns(integers[:, order], 4),
        control,
        weight,
        integers * scale,
        weights.shape[1],
    )
