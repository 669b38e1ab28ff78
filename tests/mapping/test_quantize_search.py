"""The compiled search finds scales of least error, and rounds them as FP16 does."""

import numpy as np
import pytest

from mapping.quantize_search import search_scales


def half(values: np.ndarray) -> np.ndarray:
    """FP16 by NumPy, kept from zero and from infinity."""
    rounded = np.clip(values, -65504, 65504).astype(np.float16).astype(np.float64)
    return np.where(rounded == 0, np.copysign(2.0**-24, values), rounded)


@pytest.mark.parametrize("bits", [2, 3, 4, 5])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("size", [1, 16, 33])
def test_no_other_scale_has_less_error(bits: int, weighted: bool, size: int) -> None:
    rng = np.random.default_rng(bits * size)
    grouped = rng.standard_normal((6, 5, size)).astype(np.float32)
    grouped *= np.exp(6 * rng.standard_normal((6, 5, 1))).astype(np.float32)
    importance = rng.random((5, size)).astype(np.float32) if weighted else None
    extreme = grouped[..., 0].copy()
    tries = rng.uniform(-1, 1, 17).astype(np.float32)
    found = search_scales(grouped, extreme, tries, bits, importance)

    candidates = half((extreme[..., None] * tries).astype(np.float32))
    factor = np.ones((5, size)) if importance is None else importance
    exact = grouped[:, :, None, :].astype(np.float64)
    codes = np.clip(np.rint(exact / candidates[..., None]), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    errors = (np.square(codes * candidates[..., None] - exact) * factor[None, :, None, :]).sum(-1)
    chosen = (candidates == found[..., None]).argmax(axis=-1)
    assert (np.take_along_axis(candidates, chosen[..., None], -1)[..., 0] == found).all()
    reached = np.take_along_axis(errors, chosen[..., None], -1)[..., 0]
    np.testing.assert_allclose(reached, errors.min(axis=-1), rtol=1e-4)


def test_scales_are_rounded_as_numpy_rounds() -> None:
    rng = np.random.default_rng(0)
    extreme = (rng.standard_normal((400, 50)) * np.exp(8 * rng.standard_normal((400, 50)))).astype(
        np.float32
    )
    extreme.flat[:4] = [0.0, -0.0, 3e38, -1e30]
    found = search_scales(extreme[..., None], extreme, np.ones(1, np.float32), 4)
    np.testing.assert_array_equal(found, half(extreme))
