"""Stream layout against element-by-element indexing, and back."""

import dataclasses

import numpy as np
import numpy.typing as npt
import pytest

from hw.spec.layout import pack_scales, pack_weights, unpack_scales, unpack_weights
from hw.spec.machine_file import load_machine
from hw.spec.weight_format import StepFormat, WeightFormat

SPECS = {
    name: dataclasses.replace(
        load_machine(name), weight_formats=tuple(w.name for w in WeightFormat), sparse=1
    )
    for name in ("tiny", "small")
}
SHAPES = [(1, 1), (4, 8), (5, 9), (16, 32), (17, 33), (40, 20), (9, 80)]
STEPS = SPECS["tiny"].step_formats
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def random_matrix(step: StepFormat, shape: tuple[int, int]) -> npt.NDArray[np.int8]:
    """Any weights that the format holds; sparse: up to `kept` of every 16, sometimes fewer."""
    rng = np.random.default_rng(1)
    limit = step.weight.largest
    matrix = rng.integers(-limit, limit, shape, np.int8)
    if step.weight is WeightFormat.FP4:
        doubled = [int(2 * value) for value in E2M1]
        matrix = rng.choice(doubled + [-value for value in doubled], shape).astype(np.int8)
    if step.kept:
        for row in matrix:
            for start in range(0, len(row), 16):
                block = row[start : start + 16]
                allowed = min(len(block), step.kept - int(rng.integers(0, 2)))
                block[rng.permutation(len(block))[allowed:]] = 0
    return matrix


def bits_at(stream: npt.NDArray[np.uint8], bit: int, count: int) -> int:
    return sum((int(stream[(bit + i) // 8]) >> (bit + i) % 8 & 1) << i for i in range(count))


def value_of(code: int, weight: WeightFormat) -> int:
    if weight is WeightFormat.FP4:
        return int(2 * E2M1[code & 7]) * (-1 if code & 8 else 1)
    return code - (1 << weight.bits) if code >> weight.bits - 1 else code


@pytest.mark.parametrize("target", list(SPECS))
@pytest.mark.parametrize("step", [s for s in STEPS if not s.kept], ids=lambda s: s.weight.name)
@pytest.mark.parametrize("shape", SHAPES)
def test_dense_weights_lie_where_the_manual_says(
    target: str, step: StepFormat, shape: tuple[int, int]
) -> None:
    spec, bits, each = SPECS[target], step.weight.bits, step.weight.step_weights
    matrix = random_matrix(step, shape)
    words = pack_weights(matrix, step, spec)
    rows, steps = spec.matrix_rows, -(-shape[1] // each)
    blocks = -(-shape[0] // rows)
    block_words = -(-steps * rows * each * bits // (8 * spec.word_bytes))
    assert words.shape == (blocks * block_words, spec.word_bytes)
    for row in range(blocks * rows):
        stream = words[row // rows * block_words : (row // rows + 1) * block_words].reshape(-1)
        for column in range(steps * each):
            at = (column // each * rows + row % rows) * each + column % each
            inside = row < shape[0] and column < shape[1]
            expected = int(matrix[row, column]) if inside else 0
            assert value_of(bits_at(stream, at * bits, bits), step.weight) == expected


@pytest.mark.parametrize("target", list(SPECS))
@pytest.mark.parametrize(
    "step", [s for s in STEPS if s.kept], ids=lambda s: f"{s.weight.name}-{s.kept}-{s.bitmap}"
)
@pytest.mark.parametrize("shape", [(1, 1), (5, 40), (17, 64)])
def test_sparse_weights_lie_where_the_manual_says(
    target: str, step: StepFormat, shape: tuple[int, int]
) -> None:
    spec, bits, each, rows = (
        SPECS[target],
        step.weight.bits,
        step.weight.step_weights,
        SPECS[target].matrix_rows,
    )
    matrix = random_matrix(step, shape)
    words = pack_weights(matrix, step, spec)
    blocks = -(-shape[0] // rows)
    steps = -(-shape[1] // max(16, step.span)) * max(16, step.span) // step.span
    step_bits = len(words) * spec.word_bytes * 8 // (blocks * steps)
    metadata = (
        -(-rows * (16 if step.bitmap else 4 * each) // (8 * spec.word_bytes)) * 8 * spec.word_bytes
    )
    stream = words.reshape(-1)
    found = np.zeros((blocks * rows, steps * step.span), np.int64)
    for row in range(blocks * rows):
        for kept in range(steps * each):
            start = (row // rows * steps + kept // each) * step_bits
            lane = row % rows * each + kept % each
            if step.bitmap:
                bitmap = bits_at(stream, start + 16 * (row % rows), 16)
                index = [i for i in range(16) if bitmap >> i & 1][kept % each]
            else:
                index = bits_at(stream, start + 4 * lane, 4)
            code = bits_at(stream, start + metadata + lane * bits, bits)
            found[row, kept // step.kept * 16 + index] += value_of(code, step.weight)
    expected = np.zeros_like(found)
    expected[: shape[0], : shape[1]] = matrix
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("step", STEPS, ids=lambda s: f"{s.weight.name}-{s.kept}-{s.bitmap}")
@pytest.mark.parametrize("shape", SHAPES)
def test_packed_weights_come_back(step: StepFormat, shape: tuple[int, int]) -> None:
    for spec in SPECS.values():
        matrix = random_matrix(step, shape)
        words = pack_weights(matrix, step, spec)
        np.testing.assert_array_equal(unpack_weights(words, *shape, step, spec), matrix)


@pytest.mark.parametrize("target", list(SPECS))
@pytest.mark.parametrize("shape", SHAPES)
def test_scales_lie_where_the_manual_says(target: str, shape: tuple[int, int]) -> None:
    spec = SPECS[target]
    codes = np.random.default_rng(2).integers(0, 0x7C00, shape).astype(np.uint16)
    scales = codes.view(np.float16)
    words = pack_scales(scales.astype(np.float32), spec)
    halves = words.view(np.uint16)
    for row in range(shape[0]):
        for group in range(shape[1]):
            word = row // spec.matrix_rows * shape[1] + group
            assert halves[word, row % spec.matrix_rows] == codes[row, group]
    assert len(words) == -(-shape[0] // spec.matrix_rows) * shape[1]
    assert np.array_equal(unpack_scales(words, *shape, spec).view(np.uint16), codes)


def test_what_does_not_fit_is_refused() -> None:
    spec = SPECS["tiny"]
    fitting = np.zeros((4, 8), np.int8)
    int4, int8 = StepFormat(WeightFormat.INT4), StepFormat(WeightFormat.INT8)
    with pytest.raises(ValueError, match="-8 to 7"):
        pack_weights(fitting + np.int8(8), int4, spec)
    with pytest.raises(ValueError, match="twice an E2M1 number"):
        pack_weights(fitting + np.int8(5), StepFormat(WeightFormat.FP4), spec)
    with pytest.raises(ValueError, match="more than 2 weights of 16"):
        pack_weights(fitting + np.int8(1), StepFormat(WeightFormat.INT4, 2), spec)
    with pytest.raises(ValueError, match="int8 of two dimensions"):
        pack_weights(fitting.astype(np.int16), int8, spec)  # pyright: ignore[reportArgumentType] on purpose
    with pytest.raises(ValueError, match="words must have shape"):
        unpack_weights(pack_weights(fitting, int8, spec), 4, 12, int8, spec)
    with pytest.raises(ValueError, match="kept must be"):
        StepFormat(WeightFormat.INT4, 3)
    with pytest.raises(ValueError, match="bitmaps need"):
        StepFormat(WeightFormat.INT8, 8, True)
    for value in (1 / 3, 70000.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="finite FP16"):
            pack_scales(np.full((4, 1), value), spec)
