"""Quantization of weights: scales that FP16 holds, errors within half a step, and a search that never does harm."""

import numpy as np
import pytest

from mapping.quantize import QuantizedMatrix, quantize_matrix
from mapping.recipe import WeightFormat

FORMATS = [WeightFormat(bits, group) for bits in (4, 8) for group in (None, 8, 32, 64)]
each_format = pytest.mark.parametrize("format", FORMATS, ids=lambda f: f"w{f.bits}g{f.group}")


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
    least = -127 if format.bits == 8 else -8
    assert quantized.values.min() >= least
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
    inside = (values > (-127 if format.bits == 8 else -8)) & (values < (1 << format.bits - 1) - 1)
    assert (error <= np.abs(scales) * 0.5000001)[inside].all()
    if format.bits == 8:
        # The scale puts the largest weight at 127; FP16 rounds it by half its last place, 127 times.
        place = np.maximum(scales * 2.0**-11, 2.0**-25)
        assert (error <= scales * 0.5000001 + 127 * place).all()


@each_format
def test_integers_times_a_scale_come_back_exactly(format: WeightFormat) -> None:
    generator = np.random.default_rng(2)
    group = format.group or 64
    largest = 127 if format.bits == 8 else 7
    integers = generator.integers(-largest, largest + 1, (4, 128))
    integers[:, ::group] = largest if format.bits == 8 else -8
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
