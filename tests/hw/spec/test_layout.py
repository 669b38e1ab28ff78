"""Stream layout against element-by-element indexing, and back."""

import numpy as np
import pytest

from hw.spec.layout import pack_scales, pack_weights, unpack_scales, unpack_weights
from hw.spec.machine import load_machine

SPECS = {name: load_machine(name) for name in ("tiny", "small")}
SHAPES = [(1, 1), (4, 8), (5, 9), (16, 32), (17, 33), (40, 20)]


@pytest.mark.parametrize("target", list(SPECS))
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_weights_lie_where_the_manual_says(target: str, bits: int, shape: tuple[int, int]) -> None:
    spec = SPECS[target]
    rng = np.random.default_rng(1)
    limit = 1 << bits - 1
    matrix = rng.integers(-limit, limit, shape, np.int8)
    words = pack_weights(matrix, bits, spec)
    rows, elements = spec.matrix_rows, spec.step_elements(bits)
    blocks, steps = -(-shape[0] // rows), -(-shape[1] // elements)
    assert words.shape == (2 * blocks * steps, spec.word_bytes)
    stream = words.reshape(-1)
    for row in range(blocks * rows):
        for column in range(steps * elements):
            step = row // rows * steps + column // elements
            bit = (step * 2 * spec.word_bytes + row % rows * 4) * 8 + column % elements * bits
            value = int(stream[bit // 8]) >> bit % 8 & (1 << bits) - 1
            inside = row < shape[0] and column < shape[1]
            expected = int(matrix[row, column]) if inside else 0
            assert value == expected & (1 << bits) - 1
    assert np.array_equal(unpack_weights(words, *shape, bits, spec), matrix)


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
    with pytest.raises(ValueError, match="bits must be 8 or 4"):
        pack_weights(fitting, 2, spec)
    with pytest.raises(ValueError, match="-8 to 7"):
        pack_weights(fitting + np.int8(8), 4, spec)
    with pytest.raises(ValueError, match="int8 of two dimensions"):
        pack_weights(fitting.astype(np.int16), 8, spec)  # pyright: ignore[reportArgumentType] on purpose
    with pytest.raises(ValueError, match="words must have shape"):
        unpack_weights(pack_weights(fitting, 8, spec), 4, 12, 8, spec)
    for value in (1 / 3, 70000.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="finite FP16"):
            pack_scales(np.full((4, 1), value), spec)
