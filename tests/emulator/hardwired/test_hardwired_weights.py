"""Weights to be hardwired: formats, users' arrays, and what is wrong with them; the golden product."""

from pathlib import Path

import numpy as np
import pytest

from emulator.hardwired.product import digits, multiply
from emulator.hardwired.weights import (
    E2M1_TWICE,
    SmallWeights,
    decode_mxfp4,
    load_array,
    quantize_mxfp4,
    synthetic,
)
from hw.spec.errors import InputError


@pytest.mark.parametrize(
    "kind, values",
    [
        ("mxfp4", {0, 1, 2, 3, 4, 6, 8, 12}),
        ("int4", set(range(9))),
        ("int3", set(range(5))),
        ("ternary", {0, 1}),
    ],
)
def test_synthetic_weights_use_their_alphabet(kind: str, values: set[int]) -> None:
    weights = synthetic(16, 256, kind, seed=3)
    assert set(np.abs(weights.values).ravel().tolist()) <= values
    assert len(set(weights.values.ravel().tolist())) >= len(values)
    again = synthetic(16, 256, kind, seed=3)
    assert np.array_equal(weights.values, again.values)
    assert not np.array_equal(weights.values, synthetic(16, 256, kind, seed=4).values)
    assert abs(sum(weights.shares().values()) - (weights.values != 0).mean()) < 1e-12


def test_mxfp4_rounds_to_the_nearest_and_ties_to_the_even_code() -> None:
    # A block whose largest is 6 has scale 1; doubled magnitudes are 0 1 2 3 4 6 8 12.
    row = np.array([
        6,
        0.25,
        0.75,
        1.25,
        1.75,
        2.5,
        3.5,
        5.0,
        0.26,
        -0.74,
        4.9,
        5.1,
        7.9,
        -1.0,
        0,
        2,
    ])
    values, exponents = quantize_mxfp4(row[None], 16)
    assert exponents.tolist() == [[0]]
    assert values.tolist() == [[12, 0, 2, 2, 4, 4, 8, 8, 1, -1, 8, 12, 12, -2, 0, 4]]


def test_mxfp4_scales_follow_the_largest_of_a_block() -> None:
    rng = np.random.default_rng(2)
    weights = rng.standard_normal((8, 96)) * 2.0 ** rng.integers(-20, 20, (8, 1))
    values, exponents = quantize_mxfp4(weights, 32)
    for row in range(8):
        for block in range(3):
            part = weights[row, 32 * block : 32 * (block + 1)]
            scale = 2.0 ** exponents[row, block]
            assert 4 <= np.abs(part).max() / scale < 8
            decoded = values[row, 32 * block : 32 * (block + 1)] / 2 * scale
            grid = np.concatenate([-E2M1_TWICE, E2M1_TWICE]) / 2 * scale
            nearest = np.abs(part[:, None] - grid).min(axis=1)
            assert np.allclose(np.abs(part - decoded), nearest)


def test_mxfp4_of_a_checkpoint() -> None:
    """The even element is in the low nibble, bit 3 is the sign."""
    blocks = np.zeros((1, 2, 16), np.uint8)
    blocks[0, 0, 0] = 0x9F  # -6, -0.5
    blocks[0, 1, 15] = 0x72  # 1, 6
    weights = decode_mxfp4(blocks, np.array([[127, 129]], np.uint8), "test")
    values = np.zeros(64)
    values[[0, 1, 62, 63]] = -6, -0.5, 1 * 4, 6 * 4
    scales = np.repeat(2.0 ** weights.exponents[0], 32)
    assert np.array_equal(weights.values[0] * scales, values)
    assert weights.integers()[0, [0, 1, 62, 63]].tolist() == [-12, -1, 8, 48]


def test_nan_scales_are_refused() -> None:
    scales = np.full((3, 2), 127, np.uint8)
    scales[2, 1] = 255
    with pytest.raises(InputError, match=r"w: scale of row 2, block 1: .* found NaN \(0xff\)"):
        decode_mxfp4(np.zeros((3, 2, 16), np.uint8), scales, "w")


def test_shapes_of_mxfp4() -> None:
    for blocks, scales in (((2, 2, 8), (2, 2)), ((2, 2), (2, 2)), ((2, 3, 16), (2, 2))):
        with pytest.raises(InputError, match="expected blocks of"):
            decode_mxfp4(np.zeros(blocks, np.uint8), np.zeros(scales, np.uint8), "w")


def test_scales_too_far_apart_for_integers() -> None:
    weights = SmallWeights(np.ones((2, 4), np.int64), np.array([[0, 1], [0, 9]]), "w")
    with pytest.raises(InputError, match="row 1: block scales are 9 binades apart"):
        weights.integers()


def test_a_users_array(tmp_path: Path) -> None:
    path = tmp_path / "w.npy"
    for kind in (np.int8, np.int64, np.uint8, ">i2"):
        np.save(path, np.array([[1, 2, 3], [4, 5, 0]]).astype(kind))
        assert load_array(path).values.tolist() == [[1, 2, 3], [4, 5, 0]]


class Trap:
    """Would be executed if an array of objects were unpickled."""

    def __reduce__(self) -> tuple:
        return (pytest.fail, ("a file was executed",))


@pytest.mark.parametrize(
    "array, message",
    [
        (np.ones((2, 2)), "expected integers, found float64"),
        (np.ones(3, int), r"found a shape of \[3\]"),
        (np.ones((0, 3), int), r"found a shape of \[0, 3\]"),
        (np.full((1, 1), 1 << 40), "expected small weights"),
        (np.array([[Trap()]], dtype=object), "expected integers, found object"),
        (np.zeros((2, 2), [("a", "i4")]), "expected integers"),
    ],
    ids=["float", "vector", "empty", "large", "objects", "records"],
)
def test_arrays_of_the_wrong_kind(tmp_path: Path, array: np.ndarray, message: str) -> None:
    path = tmp_path / "w.npy"
    np.save(path, array, allow_pickle=False) if array.dtype != object else _save_objects(path)
    with pytest.raises(InputError, match=message):
        load_array(path)


def _save_objects(path: Path) -> None:
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1, 1), }"
    header += b" " * (118 - len(header) - 1) + b"\n"
    path.write_bytes(
        b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"cos\nsystem\n"
    )


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "expected a NumPy array"),
        (b"PK\x03\x04 a zip file", "expected a NumPy array"),
        (b"\x93NUMPY\x09\x00", "expected .npy version 1 or 2"),
        (b"\x93NUMPY\x01\x00\x76\x00{'descr'", "expected a NumPy array"),
    ],
)
def test_files_that_are_no_arrays(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "w.npy"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_array(path)


def test_a_truncated_array(tmp_path: Path) -> None:
    path = tmp_path / "w.npy"
    np.save(path, np.ones((30, 30), int))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InputError, match="found a damaged file"):
        load_array(path)
    with pytest.raises(InputError, match="cannot be read"):
        load_array(tmp_path / "none.npy")


@pytest.mark.parametrize("kind, shape", [("fp9", (2, 2)), ("int4", (0, 2))])
def test_synthetic_weights_of_no_sense(kind: str, shape: tuple[int, int]) -> None:
    with pytest.raises(InputError):
        synthetic(*shape, kind)


def test_the_product_is_that_of_python_integers() -> None:
    rng = np.random.default_rng(8)
    weights, vectors = rng.integers(-12, 13, (4, 9)), rng.integers(-128, 128, (5, 9))
    biases = rng.integers(-99, 99, 4)
    got = multiply(weights, vectors, biases)
    for v, o in np.ndindex(5, 4):
        total = sum(int(a) * int(b) for a, b in zip(weights[o], vectors[v], strict=True))
        assert got[v, o] == total + int(biases[o])
    with pytest.raises(InputError, match="expected INT8"):
        multiply(weights, vectors + 100)


@pytest.mark.parametrize("bits, taps", [(1, 1), (2, 3), (8, 1), (4, 2)])
def test_digits_spell_the_inputs(bits: int, taps: int) -> None:
    cycles = -(-(7 + taps) // bits)
    vectors = np.array([[-128, 127], [0, -1], [5, -77]])
    for offset in (False, True):
        total = np.zeros((3, 2, taps), np.int64)
        for cycle in range(cycles):
            fed = digits(vectors, cycle, bits, taps, cycles, offset).reshape(3, 2, taps, bits)
            total += (fed.astype(np.int64) << np.arange(cycle * bits, (cycle + 1) * bits)).sum(
                axis=3
            )
        width = cycles * bits
        wanted = vectors[..., None] << np.arange(taps)
        if offset:
            total -= 1 << width - 1
        else:
            total -= (total >> width - 1) << width
        assert np.array_equal(total, wanted)
