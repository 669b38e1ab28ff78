"""Quantization of weights: scales that FP16 holds, errors within half a step, and a search that never does harm."""

import numpy as np
import pytest

from mapping.pruning import prune
from mapping.quantize import QuantizedMatrix, quantize_matrix
from mapping.recipe import WeightFormat

FORMATS = [WeightFormat(bits, group) for bits in (2, 3, 4, 5, 8) for group in (None, 8, 32, 64)]
each_format = pytest.mark.parametrize("format", FORMATS, ids=lambda f: f"w{f.bits}g{f.group}")


def lowest(format: WeightFormat) -> int:
    return -127 if format.bits == 8 else -(1 << format.bits - 1)


def random_matrix(outputs: int = 12, inputs: int = 100, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    # Rows of very different magnitude, as in real models.
    scales = 10.0 ** generator.uniform(-4, 1, (outputs, 1))
    return (generator.standard_normal((outputs, inputs)) * scales).astype(np.float32)


def squared_errors(matrix: np.ndarray, quantized: QuantizedMatrix) -> np.ndarray:
    """By output and group, in double precision."""
    outputs, groups = quantized.scales.shape
    padded = np.zeros(quantized.values.shape)
    padded[:, : matrix.shape[1]] = matrix
    restored = quantized.values.reshape(outputs, groups, -1) * quantized.scales[:, :, None].astype(
        np.float64
    )
    return np.square(restored - padded.reshape(outputs, groups, -1)).sum(axis=2)


@each_format
def test_shapes_padding_and_scales(format: WeightFormat) -> None:
    matrix = random_matrix()
    quantized = quantize_matrix(matrix, format)
    group = format.group or 100
    groups = -(-100 // group)
    assert quantized.scales.shape == (12, groups)
    assert quantized.values.shape == (12, groups * group)
    assert quantized.values.dtype == np.int8
    assert not quantized.values[:, 100:].any()
    halves = quantized.scales.astype(np.float16)
    assert np.isfinite(halves).all()
    np.testing.assert_array_equal(halves.astype(np.float32), quantized.scales)
    assert quantized.scales.all()
    assert quantized.values.min() >= lowest(format)
    assert quantized.values.max() <= (1 << format.bits - 1) - 1
    expected = quantized.values.reshape(12, groups, -1) * quantized.scales[:, :, None]
    np.testing.assert_array_equal(quantized.dequantize(), expected.reshape(12, -1)[:, :100])


@each_format
def test_every_weight_is_the_nearest_of_its_scale_or_at_an_end(format: WeightFormat) -> None:
    matrix = random_matrix(seed=1)
    quantized = quantize_matrix(matrix, format)
    scales = np.repeat(quantized.scales, format.group or 100, axis=1)[:, :100].astype(np.float64)
    error = np.abs(quantized.dequantize() - matrix.astype(np.float64))
    values = quantized.values[:, :100]
    inside = (values > lowest(format)) & (values < (1 << format.bits - 1) - 1)
    assert (error <= np.abs(scales) * 0.5000001)[inside].all()
    if format.bits == 8:
        # The scale puts the largest weight at 127; FP16 rounds it by half its last place, 127 times.
        place = np.maximum(scales * 2.0**-11, 2.0**-25)
        assert (error <= scales * 0.5000001 + 127 * place).all()


@each_format
def test_integers_times_a_scale_come_back_exactly(format: WeightFormat) -> None:
    generator = np.random.default_rng(2)
    group = format.group or 64
    largest = (1 << format.bits - 1) - 1
    integers = generator.integers(-largest, largest + 1, (4, 128))
    integers[:, ::group] = largest if format.bits == 8 else lowest(format)
    matrix = (integers * np.float32(0.03125)).astype(np.float32)
    quantized = quantize_matrix(matrix, format)
    np.testing.assert_array_equal(quantized.dequantize(), matrix)


@pytest.mark.parametrize("group", [None, 8, 32, 64])
@pytest.mark.parametrize("kind", ["normal", "outlier", "positive", "uniform"])
def test_the_search_of_int4_is_never_worse_than_plain_rounding(
    group: int | None, kind: str
) -> None:
    matrix = random_matrix(outputs=64, inputs=128, seed=3)
    if kind == "outlier":
        matrix[:, 5] *= 30
    elif kind == "positive":
        matrix = np.abs(matrix)
    elif kind == "uniform":
        matrix = np.random.default_rng(4).uniform(-1, 1, matrix.shape).astype(np.float32)
    width = group or 128
    grouped = matrix.reshape(64, -1, width)
    searched = squared_errors(matrix, quantize_matrix(matrix, WeightFormat(4, group)))
    largest = np.abs(grouped).max(axis=2)
    total = {}
    for divisor, lowest in ((7, -7), (7.5, -8), (8, -8)):
        scales = (largest / divisor).astype(np.float16).astype(np.float32)
        values = np.clip(np.rint(grouped / scales[:, :, None]), lowest, 7)
        plain = QuantizedMatrix(
            values.reshape(64, -1).astype(np.int8), scales, WeightFormat(4, group), 128
        )
        errors = squared_errors(matrix, plain)
        total[divisor] = errors.sum()
        if divisor == 7:
            assert (searched <= errors * (1 + 1e-5)).all()
    assert searched.sum() < 0.99 * min(total.values())


def test_a_group_of_its_own_scale_is_better_than_a_row() -> None:
    matrix = random_matrix(seed=5)
    matrix[:, :8] *= 50
    for bits in (4, 8):
        fine = squared_errors(matrix, quantize_matrix(matrix, WeightFormat(bits, 8))).sum()
        coarse = squared_errors(matrix, quantize_matrix(matrix, WeightFormat(bits, None))).sum()
        assert fine < coarse


@each_format
@pytest.mark.parametrize("value", [0.0, 1e-9, 60000.0, 1e7])
def test_extreme_weights_keep_finite_scales(format: WeightFormat, value: float) -> None:
    quantized = quantize_matrix(np.full((2, 64), value, np.float32), format)
    assert np.isfinite(quantized.dequantize()).all()
    assert np.isfinite(quantized.scales.astype(np.float16)).all() and quantized.scales.all()
    if value <= 60000:
        assert np.abs(quantized.dequantize() - value).max() <= max(value / 14, 2.0**-24)


@pytest.mark.parametrize("bits", [2, 3, 5])
@pytest.mark.parametrize("group", [None, 32])
def test_the_search_of_other_widths_is_better_than_plain_rounding(
    bits: int, group: int | None
) -> None:
    matrix = random_matrix(outputs=64, inputs=128, seed=6)
    grouped = matrix.reshape(64, -1, group or 128)
    largest = (1 << bits - 1) - 1
    scales = (np.abs(grouped).max(axis=2) / largest).astype(np.float16).astype(np.float32)
    values = np.clip(np.rint(grouped / scales[:, :, None]), -largest, largest).astype(np.int8)
    format = WeightFormat(bits, group)
    plain = squared_errors(
        matrix, QuantizedMatrix(values.reshape(64, -1), scales, format, 128)
    ).sum()
    assert squared_errors(matrix, quantize_matrix(matrix, format)).sum() < 0.9 * plain


# FP4. The numbers of E2M1 by the formula of its fields.
E2M1 = np.array([
    (m / 2 if e == 0 else (1 + m / 2) * 2 ** (e - 1)) for e in range(4) for m in (0, 1)
])


@pytest.mark.parametrize("kind", ["fp4", "mxfp4"])
def test_every_fp4_weight_is_the_nearest(kind: str) -> None:
    matrix = random_matrix(inputs=128, seed=7)
    quantized = quantize_matrix(matrix, WeightFormat(4, 32, kind))
    assert set(np.abs(quantized.values).ravel().tolist()) <= set((2 * E2M1).astype(int).tolist())
    scales = np.repeat(quantized.scales, 32, axis=1).astype(np.float64)
    grid = np.concatenate([-E2M1, E2M1]) * 2
    distance = np.abs(grid[:, None, None] * scales - matrix).min(axis=0)
    np.testing.assert_allclose(np.abs(quantized.dequantize() - matrix), distance, atol=1e-12)


def test_fp4_ties_go_to_the_even_code() -> None:
    # The first two fix the scale: 6 and a half unit.
    numbers = [6.0, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0] * 4
    matrix = np.array([numbers, [-n for n in numbers]], np.float32)
    restored = quantize_matrix(matrix, WeightFormat(4, 32, "mxfp4")).dequantize()
    np.testing.assert_array_equal(restored[0, :8], [6, 0, 1, 1, 2, 2, 4, 4])
    np.testing.assert_array_equal(restored[1], -restored[0])


@pytest.mark.parametrize("largest", [0.0, 1e-30, 0.24, 1.0, 5.99, 6.0, 7.99, 8.0, 3e5, 1e9])
def test_mxfp4_scales_are_those_of_the_specification(largest: float) -> None:
    matrix = np.full((1, 32), largest / 3, np.float32)
    matrix[0, 3] = largest
    quantized = quantize_matrix(matrix, WeightFormat(4, 32, "mxfp4"))
    mantissa, _ = np.frexp(quantized.scales)
    assert (mantissa == 0.5).all()
    if 1e-3 < largest < 1e5:
        # floor(log2(largest)) - 2, of which the machine takes half.
        expected = 2.0 ** (np.floor(np.log2(np.float32(largest))) - 2)
        assert 2 * quantized.scales[0, 0] == expected


# Pruning.


@pytest.mark.parametrize("inputs", [16, 100, 128])
@pytest.mark.parametrize("kept", [8, 4, 2])
def test_pruning_keeps_the_largest_of_every_sixteen(kept: int, inputs: int) -> None:
    matrix = random_matrix(inputs=inputs, seed=8)
    pruned = prune(matrix, kept)
    for row, found in zip(matrix, pruned, strict=True):
        for begin in range(0, inputs, 16):
            block = row[begin : begin + 16].tolist()
            largest = sorted(block, key=abs, reverse=True)[:kept]
            expected = [value if value in largest else 0 for value in block]
            assert found[begin : begin + 16].tolist() == expected


def test_pruning_by_activations_keeps_what_matters_to_the_outputs() -> None:
    generator = np.random.default_rng(9)
    inputs = generator.standard_normal((500, 64)) * 10.0 ** generator.uniform(-2, 1, 64)
    matrix = random_matrix(outputs=32, inputs=64, seed=10)
    norms = np.sqrt(np.mean(np.square(inputs), axis=0))

    def error(pruned: np.ndarray) -> float:
        return float(np.square(inputs @ (pruned - matrix).T).sum())

    assert error(prune(matrix, 8, norms)) < 0.2 * error(prune(matrix, 8))
    aware = quantize_matrix(matrix, WeightFormat(3, 32, "integer", 8, True), norms).dequantize()
    blind = quantize_matrix(matrix, WeightFormat(3, 32, "integer", 8, True)).dequantize()
    assert error(aware) < 0.5 * error(blind)


def test_equal_weights_lose_the_last_ones() -> None:
    pruned = prune(np.ones((1, 16), np.float32), 4)
    np.testing.assert_array_equal(pruned[0], [1] * 4 + [0] * 12)


@pytest.mark.parametrize("kind, bits", [("integer", b) for b in (2, 3, 4, 5, 8)] + [("fp4", 4)])
def test_sparse_formats_keep_at_most_their_number(kind: str, bits: int) -> None:
    matrix = random_matrix(inputs=120, seed=11)
    quantized = quantize_matrix(matrix, WeightFormat(bits, 64, kind, 4))
    assert quantized.values.shape == (12, 128)
    kept = (quantized.values.reshape(12, -1, 16) != 0).sum(axis=2)
    assert kept.max() == 4
    assert squared_errors(matrix, quantized).sum() < np.square(matrix.astype(np.float64)).sum()
