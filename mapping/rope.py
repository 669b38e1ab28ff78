"""Rotary position embedding: the angles, as the outside reference implementation has them."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from mapping.frontend.config import ModelConfig

Floats = npt.NDArray[np.floating]
Angles = npt.NDArray[np.float64]


def inverse_frequencies(config: ModelConfig) -> npt.NDArray[np.float32]:
    """Return the angle, in radians, by which each pair of a head turns from a position to the next.

    Pair i consists of elements i and ``i + head_dim // 2`` of a head. The values are rounded to
    float32 because models are trained with frequencies of that precision.

    Returns
    -------
    float32 array of shape [head_dim // 2]
    """
    exponents = np.arange(0, config.head_dim, 2) / config.head_dim
    frequencies = config.rope_theta**-exponents
    scaling = config.rope_scaling
    if scaling is not None and scaling["kind"] == "linear":
        frequencies = frequencies / scaling["factor"]
    elif scaling is not None and scaling["kind"] == "llama3":
        frequencies = _llama3_frequencies(frequencies, dict(scaling))
    elif scaling is not None and scaling["kind"] == "yarn":
        frequencies = _yarn_frequencies(frequencies, config, dict(scaling))
    elif scaling is not None:
        raise ValueError(
            f"rope_scaling must be 'linear', 'llama3' or 'yarn', not {scaling['kind']!r}"
        )
    return frequencies.astype(np.float32)


def _llama3_frequencies(frequencies: Angles, scaling: dict[str, Any]) -> Angles:
    """Slow down the pairs that turn seldom within the original context, and blend in between.

    Turning more than `high_freq_factor` times within the original context leaves a pair as it is;
    fewer than `low_freq_factor` times divides its frequency by `factor`.
    """
    turns = scaling["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return frequencies * (kept + (1.0 - kept) / scaling["factor"])


def _yarn_frequencies(frequencies: Angles, config: ModelConfig, scaling: dict[str, Any]) -> Angles:
    """Divide the frequencies of slow pairs by `factor`, keep those of fast ones, and blend in a line between.

    The line runs over the index of the pair: from the one that turns `beta_fast` times within the original
    context to the one that turns `beta_slow` times (YaRN, arXiv 2309.00071).
    """

    def pair_that_turns(turns: float) -> float:
        length = scaling["original_max_position_embeddings"]
        dimension = config.head_dim * math.log(length / (turns * 2 * math.pi))
        return dimension / (2 * math.log(config.rope_theta))

    low, high = pair_that_turns(scaling["beta_fast"]), pair_that_turns(scaling["beta_slow"])
    if scaling["truncate"]:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, config.head_dim - 1)
    slow = np.clip((np.arange(len(frequencies)) - low) / ((high - low) or 0.001), 0.0, 1.0)
    return frequencies * (1.0 - slow + slow / scaling["factor"])


def rope_tables(config: ModelConfig, positions: npt.NDArray[np.int64]) -> tuple[Angles, Angles]:
    """Return cosines and sines for the given positions; YaRN multiplies both by its attention factor.

    The product of position and frequency is rounded to float32, as the reference implementation does;
    without that, the two would drift apart at positions in the thousands.

    Returns
    -------
    Two float64 arrays of shape [len(positions), head_dim // 2]
    """
    angles = positions.astype(np.float32)[:, None] * inverse_frequencies(config)
    factor = (config.rope_scaling or {}).get("attention_factor", 1.0)
    wide = angles.astype(np.float64)
    return np.cos(wide) * factor, np.sin(wide) * factor


def rotate(x: Floats, cosine: Floats, sine: Floats) -> Floats:
    """Turn each head of x [T, heads, D] by the angles of its position, tables [T, D / 2].

    Element i of a head is paired with element ``i + D / 2``.
    """
    first, second = np.split(x, 2, axis=-1)
    cosine, sine = cosine[:, None], sine[:, None]
    return np.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
