"""Rotary angles against the published formulas, pair by pair."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mapping.frontend import ModelConfig, load_model
from mapping.rope import inverse_frequencies, rope_tables

LLAMA3: dict[str, Any] = {
    "kind": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@pytest.fixture
def config() -> ModelConfig:
    return dataclasses.replace(load_model("llama-3-8b").config, head_dim=64)


def test_plain_frequencies(config: ModelConfig) -> None:
    expected = [500000.0 ** (-2 * pair / 64) for pair in range(32)]
    np.testing.assert_allclose(inverse_frequencies(config), expected, rtol=1e-7)


def test_linear_frequencies(config: ModelConfig) -> None:
    scaled = dataclasses.replace(config, rope_scaling={"kind": "linear", "factor": 4.0})
    np.testing.assert_allclose(
        inverse_frequencies(scaled), inverse_frequencies(config) / 4.0, rtol=1e-7
    )


def llama3_frequency(frequency: float) -> float:
    """The published rule, by wavelength and case by case."""
    wavelength = 2 * math.pi / frequency
    if wavelength < 8192 / 4.0:
        return frequency
    if wavelength > 8192 / 1.0:
        return frequency / 32.0
    smooth = (8192 / wavelength - 1.0) / (4.0 - 1.0)
    return (1 - smooth) * frequency / 32.0 + smooth * frequency


def test_llama3_frequencies(config: ModelConfig) -> None:
    scaled = dataclasses.replace(config, rope_scaling=LLAMA3)
    plain = [500000.0 ** (-2 * pair / 64) for pair in range(32)]
    expected = [llama3_frequency(frequency) for frequency in plain]
    ratios = {round(new / old, 3) for new, old in zip(expected, plain, strict=True)}
    assert {1.0, round(1 / 32, 3)} < ratios  # all three cases occur
    np.testing.assert_allclose(inverse_frequencies(scaled), expected, rtol=2e-7)


def test_unknown_scaling_is_refused(config: ModelConfig) -> None:
    with pytest.raises(ValueError, match="must be 'linear', 'llama3' or 'yarn', not 'longrope'"):
        inverse_frequencies(dataclasses.replace(config, rope_scaling={"kind": "longrope"}))


def test_tables(fixtures_folder: Path) -> None:
    config = load_model(fixtures_folder / "tied_f32").config
    positions = np.array([0, 1, 7, 2047])
    cosine, sine = rope_tables(config, positions)
    assert cosine.shape == sine.shape == (4, config.head_dim // 2)
    np.testing.assert_allclose(cosine**2 + sine**2, 1.0, rtol=1e-15)
    for row, position in enumerate(positions):
        for pair in range(config.head_dim // 2):
            angle = position * config.rope_theta ** (-2 * pair / config.head_dim)
            # Rounding the angle to float32 twice moves it by 2^-23 of itself at most.
            assert cosine[row, pair] == pytest.approx(math.cos(angle), abs=angle * 2**-23)
            assert sine[row, pair] == pytest.approx(math.sin(angle), abs=angle * 2**-23)
