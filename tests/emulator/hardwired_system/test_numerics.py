"""Arithmetic of wires and links against exact rational arithmetic."""

from fractions import Fraction

import numpy as np
import pytest

from emulator.hardwired_system.numerics import (
    Wires,
    all_gather,
    bit_serial,
    exponential,
    make_wires,
    mean_square,
    quantize,
    reduce_scatter,
    sigmoid,
    to_fixed,
)
from hw.spec.errors import InputError

E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6]


def random_matrix(seed: int, spread: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 16, (12, 96)).astype(np.uint8)
    return codes, rng.integers(-5, -5 + spread + 1, (12, 3))


@pytest.mark.parametrize("seed", range(5))
def test_wires_hold_the_values_of_their_codes(seed: int) -> None:
    codes, exponents = random_matrix(seed)
    wires = make_wires(codes, exponents, "trial")
    for row, column in np.ndindex(codes.shape):
        value = Fraction(E2M1[codes[row, column] % 8]) * (-1 if codes[row, column] > 7 else 1)
        value *= Fraction(2) ** int(exponents[row, column // 32])
        assert int(wires.weights[row, column]) * Fraction(2) ** wires.exponent == value


@pytest.mark.parametrize("seed", range(5))
def test_bit_serial_sums_are_exact(seed: int) -> None:
    codes, exponents = random_matrix(seed)
    wires = make_wires(codes, exponents, "trial")
    inputs = np.random.default_rng(seed).integers(-127, 128, 96)
    inputs[:3] = -128, 127, 0
    expected = [
        sum(int(w) * int(x) for w, x in zip(row, inputs, strict=True)) for row in wires.weights
    ]
    assert bit_serial(wires.weights, inputs).tolist() == expected
    assert wires.multiply(inputs[None])[0].tolist() == expected


def test_sums_beyond_float64_are_exact() -> None:
    weights = np.full((1, 64), 12 << 40)
    weights[0, 1] = 1
    inputs = np.full((1, 64), 127)
    assert Wires(weights, 0).multiply(inputs)[0, 0] == 63 * 127 * (12 << 40) + 127


def test_parts_of_a_matrix_add_up() -> None:
    codes, exponents = random_matrix(3)
    wires = make_wires(codes, exponents, "trial")
    inputs = np.random.default_rng(3).integers(-127, 128, (5, 96))
    parts = [wires.part(c, 24).multiply(inputs[:, c : c + 24]) for c in range(0, 96, 24)]
    np.testing.assert_array_equal(sum(parts), wires.multiply(inputs))


def test_scales_beyond_the_taps_are_refused() -> None:
    codes, exponents = random_matrix(0)
    exponents[2, 1] = 30
    with pytest.raises(
        InputError, match=r"trial: expected block scales within 24 taps, .* 2\*\*30"
    ):
        make_wires(codes, exponents, "trial")
    # A block of zeros, of either sign, needs no tap.
    codes[2, 32:64] = 8
    make_wires(codes, exponents, "trial")
    assert not make_wires(codes * 0, exponents, "trial").weights.any()


def test_wrong_shapes_are_refused() -> None:
    codes, exponents = random_matrix(0)
    with pytest.raises(InputError, match=r"found \[12, 96\] and \[12, 2\]"):
        make_wires(codes, exponents[:, :2], "trial")


def test_quantization_to_int8() -> None:
    x = np.array([[127, 0.5, 1.5, -2.5, -127], [0, 0, 0, 0, 0]], np.float32)
    values, scale = quantize(x)
    assert values.tolist() == [[127, 0, 2, -2, -127], [0] * 5]
    assert scale.tolist() == [[1.0], [1.0]]


def exact_message(row: list[float], bits: int) -> list[Fraction]:
    """What a message of one shared power of two holds, by trying exponents from the coarse side."""
    limit = (1 << (bits - 1)) - 1
    values = [Fraction(float(value)) for value in row]
    largest = max(map(abs, values))
    if not largest:
        return values
    exponent = 200
    while largest < Fraction(2) ** (exponent + bits - 2):
        exponent -= 1
    step = Fraction(2) ** exponent
    return [max(-limit, min(limit, round(value / step))) * step for value in values]


@pytest.mark.parametrize("bits", [2, 4, 8, 13, 16, 24])
def test_messages_by_rational_arithmetic(bits: int) -> None:
    rng = np.random.default_rng(bits)
    rows = rng.standard_normal((20, 7)) * 2.0 ** rng.integers(-20, 20, (20, 1))
    rows[0] = 0
    rows[1] = [1, 0.5, 1.5, 2.5, -0.5, -1.5, 255]
    found = to_fixed(rows, bits)
    for row, message in zip(rows.tolist(), found.tolist(), strict=True):
        assert [Fraction(value) for value in message] == exact_message(row, bits)


def test_whole_numbers_that_fit_pass_unchanged() -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(-(2**23) + 1, 2**23, (50, 9)).astype(np.float64)
    np.testing.assert_array_equal(to_fixed(values, 24), values)
    partial = rng.integers(-(2**20), 2**20, (4, 5, 8)).astype(np.float64)
    np.testing.assert_array_equal(reduce_scatter(partial, 24), partial.sum(axis=0))


def test_narrow_sums_are_near() -> None:
    rng = np.random.default_rng(2)
    partial = rng.standard_normal((4, 30, 16))
    found, exact = reduce_scatter(partial, 8), partial.sum(axis=0)
    # Three messages, each off by half a step of at most 2 * largest / 128, and saturation of one step.
    assert 0 < np.abs(found - exact).max() < 3 * 1.5 * np.abs(partial).max() / 64
    own = np.zeros((4, 1, 8))
    own[2, 0, 4:6] = 0.123456789
    assert reduce_scatter(own, 4)[0, 4] == 0.123456789, "a chip's own part is not sent"


def test_gathered_parts_have_scales_of_their_own() -> None:
    values = np.array([[1000.0, 1.0, 0.001, 0.002]])
    found = all_gather(values, 2, 8)
    np.testing.assert_array_equal(found[:, :2], to_fixed(values[:, :2], 8))
    np.testing.assert_array_equal(found[:, 2:], to_fixed(values[:, 2:], 8))
    assert found[0, 3] == pytest.approx(0.002, rel=0.01)


def test_functions_are_near_the_true_ones() -> None:
    x = np.linspace(-80, 0, 999, dtype=np.float32)
    np.testing.assert_allclose(exponential(x), np.exp(x.astype(np.float64)), rtol=1e-5)
    both = np.linspace(-30, 30, 999, dtype=np.float32)
    np.testing.assert_allclose(sigmoid(both), 1 / (1 + np.exp(-both.astype(np.float64))), rtol=1e-5)
    assert sigmoid(np.array([-1000, 1000], np.float32)).tolist() == [0.0, 1.0]


def test_mean_square_is_correctly_rounded_in_any_order() -> None:
    rng = np.random.default_rng(4)
    x = (rng.standard_normal((6, 96)) * 10.0 ** rng.integers(-8, 8, (6, 96))).astype(np.float32)
    found = mean_square(x)
    shuffled = mean_square(x[:, rng.permutation(96)])
    np.testing.assert_array_equal(found, shuffled)
    for row, value in zip(x, found[:, 0], strict=True):
        exact = sum(Fraction(float(v)) ** 2 for v in row) / 96
        assert abs(Fraction(float(value)) / exact - 1) < Fraction(1, 2**23)
