"""Layouts of packed checkpoints, bit by bit: nibble orders, zero points, tiles, by another formula."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from mapping.frontend.awq import padded_groups, write_gemm, write_gemv
from mapping.frontend.gptq import write_gptq
from mapping.frontend.mxfp4 import stored_mxfp4, write_mxfp4
from mapping.frontend.nibbles import INTERLEAVED, NATURAL, pack_words, unpack_words
from mapping.frontend.qserve import ProgressiveMatrix, write_qserve
from mapping.frontend.stored import Tensors, ZeroPointMatrix, consecutive_groups
from mapping.round_to_nearest import mxfp4_matrix, progressive_matrix, zero_point_matrix

OUTPUTS, INPUTS, GROUP = 32, 64, 32
Array = npt.NDArray[np.generic]


def random_matrix(seed: int, outputs: int = OUTPUTS, inputs: int = INPUTS) -> ZeroPointMatrix:
    generator = np.random.default_rng(seed)
    groups = inputs // GROUP
    zeros = generator.integers(0, 16, (outputs, groups), np.uint8)
    zeros[0, 0], zeros[1, 0] = 0, 15
    scales = generator.uniform(0.001, 2, (outputs, groups)).astype(np.float16)
    return ZeroPointMatrix(
        generator.integers(0, 16, (outputs, inputs), np.uint8),
        zeros,
        scales.astype(np.float32),
        consecutive_groups(inputs, GROUP),
    )


def nibble(tensor: Array, row: int, element: int) -> int:
    """The 4 bits number `element` of a row's bytes, low nibbles first: what a word of any width stores."""
    data = np.ascontiguousarray(tensor[row]).tobytes()
    return data[element // 2] >> 4 * (element % 2) & 15


# Where the published kernels find element `column` of a row of packed words.
def interleaved(column: int) -> int:
    return column // 8 * 8 + [0, 4, 1, 5, 2, 6, 3, 7][column % 8]


def gemm_weight(t: Tensors, n: int, k: int) -> float:
    code = nibble(t["qweight"], k, interleaved(n))
    zero = nibble(t["qzeros"], k // GROUP, interleaved(n))
    return float(t["scales"][k // GROUP, n]) * (code - zero)  # type: ignore[arg-type] # a float


def gemv_weight(t: Tensors, n: int, k: int) -> float:
    code, zero = nibble(t["qweight"], n, k), nibble(t["qzeros"], n, k // GROUP)
    return float(t["scales"][n, k // GROUP]) * (code - zero)  # type: ignore[arg-type] # a float


def gptq_weight(offset: int) -> Callable[[Tensors, int, int], float]:
    def weight(t: Tensors, n: int, k: int) -> float:
        group = int(t["g_idx"][k])  # type: ignore[arg-type] # a whole number
        code = int(t["qweight"][k // 8, n]) >> 4 * (k % 8) & 15  # type: ignore[arg-type] # same
        zero = nibble(t["qzeros"], group, n) + offset
        return float(t["scales"][group, n]) * (code - zero)  # type: ignore[arg-type] # same

    return weight


def qserve_weight(t: Tensors, n: int, k: int) -> float:
    """As the kernel's threads find it: 32 x 32 tiles of bytes, and second-level tables transposed 4 x 8."""
    tile, r, c = n // 32, n % 32, k % 32
    byte = 64 * (r % 8) + 16 * (c // 4 % 4) + 8 * (c // 16) + 4 * (r // 8 % 2) + c % 4
    data = np.ascontiguousarray(t["qweight"]).tobytes()
    start = (tile * (INPUTS // 32) + k // 32) * 512
    code = data[start + byte] >> 4 * (r // 16) & 15
    column = 32 * tile + 4 * (r % 8) + r // 8
    step = np.ascontiguousarray(t["s2_scales"]).tobytes()[(k // GROUP) * OUTPUTS + column]
    bias = np.ascontiguousarray(t["s2_zeros"]).tobytes()[(k // GROUP) * OUTPUTS + column]
    first = code * step + bias & 255
    first = first - 256 if first > 127 else first
    return float(t["s1_scales"][n]) * first  # type: ignore[arg-type] # a float


def test_eight_codes_in_a_word_have_the_published_orders() -> None:
    codes = np.arange(8, dtype=np.uint8)
    assert pack_words(codes, INTERLEAVED).view(np.uint32).tolist() == [0x75316420]
    assert pack_words(codes, NATURAL).view(np.uint32).tolist() == [0x76543210]
    for order in (NATURAL, INTERLEAVED):
        everything = np.random.default_rng(1).integers(0, 16, (5, 40), np.uint8)
        np.testing.assert_array_equal(
            unpack_words(pack_words(everything, order), order), everything
        )
    with pytest.raises(ValueError, match="codes must be 0 to 15, not 16"):
        pack_words(np.full(8, 16, np.uint8))


@pytest.mark.parametrize(
    ("write", "weight", "least"),
    [
        (write_gemm, gemm_weight, 0),
        (write_gemv, gemv_weight, 0),
        (lambda m: write_gptq(m, offset=1), gptq_weight(1), 1),
        (lambda m: write_gptq(m, offset=0), gptq_weight(0), 0),
    ],
    ids=["awq-gemm", "awq-gemv", "gptq", "gptq-v2"],
)
def test_zero_points_and_nibbles_by_another_formula(
    write: Callable[[ZeroPointMatrix], Tensors],
    weight: Callable[[Tensors, int, int], float],
    least: int,
) -> None:
    matrix = random_matrix(2)
    matrix = ZeroPointMatrix(
        matrix.codes, np.maximum(matrix.zeros, least).astype(np.uint8), matrix.scales, matrix.groups
    )
    tensors = write(matrix)
    expected = [[weight(tensors, n, k) for k in range(INPUTS)] for n in range(OUTPUTS)]
    np.testing.assert_array_equal(matrix.stored().dequantize(), expected)


def test_version_1_of_gptq_has_no_zero_point_0() -> None:
    with pytest.raises(ValueError, match="cannot hold the zero point 0"):
        write_gptq(random_matrix(3), offset=1)


def test_qserve_by_another_formula() -> None:
    generator = np.random.default_rng(4)
    weight = generator.standard_normal((OUTPUTS, INPUTS)).astype(np.float32)
    matrix = progressive_matrix(weight, GROUP)
    assert matrix.steps.max() <= 16
    tensors = write_qserve(matrix)
    expected = [[qserve_weight(tensors, n, k) for k in range(INPUTS)] for n in range(OUTPUTS)]
    np.testing.assert_array_equal(matrix.stored().dequantize(), expected)
    # Rounding of the first level, and of the zero point and the range of a group.
    error = np.abs(np.array(expected) - weight) / matrix.scales[:, None]
    assert error.max() <= 16.5


def test_first_level_integers_of_qserve_need_8_bits() -> None:
    flat = np.full((1, 32), 15, np.uint8)
    zeros, steps = np.zeros((1, 1), np.uint8), np.full((1, 1), 17, np.uint8)
    with pytest.raises(ValueError, match="-128 to 127, not 255 to 255"):
        ProgressiveMatrix(flat, zeros, steps, np.ones(1, np.float32)).stored()


def test_mxfp4_by_another_formula() -> None:
    generator = np.random.default_rng(5)
    weight = (generator.standard_normal((4, 96)) * 2.0 ** generator.integers(-9, 9, (4, 1))).astype(np.float32)  # fmt: skip
    weight[0, :32] = 0
    matrix = mxfp4_matrix(weight)
    tensors = write_mxfp4(matrix)
    values = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
    for n in range(4):
        blocks = np.ascontiguousarray(tensors["weight_blocks"]).tobytes()
        scales = np.ascontiguousarray(tensors["weight_scales"]).tobytes()
        for k in range(96):
            code = blocks[n * 48 + k // 2] >> 4 * (k % 2) & 15
            scale = 2.0 ** (scales[n * 3 + k // 32] - 127)
            stored = (-1) ** (code >> 3) * values[code & 7] * scale
            assert stored_mxfp4(matrix).dequantize()[n, k] == stored == matrix.values()[n, k]
            best = min(abs(abs(weight[n, k]) / scale - value) for value in values)
            assert abs(weight[n, k] / scale - stored / scale) == pytest.approx(best)


def test_ties_of_e2m1_go_to_the_even_code() -> None:
    halfway = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, -0.25, -5.0, 4.0]
    matrix = mxfp4_matrix(np.array([halfway + [0.0] * 22], np.float32))
    assert matrix.exponents.tolist() == [[0]]
    assert matrix.values()[0, :10].tolist() == [0, 1, 1, 2, 2, 4, 4, 0, -4, 4]


@pytest.mark.parametrize("symmetric", [False, True])
def test_rounding_to_nearest_is_within_half_a_scale(symmetric: bool) -> None:
    weight = np.random.default_rng(6).standard_normal((8, 100)).astype(np.float32)
    weight[0] = np.abs(weight[0])
    weight[1] = 0
    matrix = zero_point_matrix(weight, 32, symmetric=symmetric)
    assert matrix.codes.shape == weight.shape
    assert matrix.zeros.shape == (8, 4)
    if symmetric:
        assert (matrix.zeros == 8).all()
    else:
        assert (matrix.zeros[0] == 0).all()
    error = np.abs(matrix.stored().dequantize() - weight) / matrix.scales[:, matrix.groups]
    assert error.max() < (0.51 if symmetric else 1.01)
    np.testing.assert_array_equal(matrix.scales, matrix.scales.astype(np.float16))


def test_gemv_pads_its_groups() -> None:
    assert [padded_groups(4096, g) for g in (32, 64, 128, None)] == [128, 64, 32, 8]
    assert padded_groups(352, 32) == 32
    assert padded_groups(192, 64) == 16
    assert padded_groups(1024, 32) == 32
    assert padded_groups(1152, 128) == 16
