"""The comparison that the authors of MixPE published, and its times computed again from their configuration.

Published: results/mixpe_res.csv of github.com/yuzhang712/mixpe_simulator, the simulator of arXiv
2411.16158. Facts of that configuration: arrays of unequal size, 64 inputs at once, one precision for both
operands (so that W4A8 counts as 4 x 4 bits), dequantization as an extra matrix product, an eighth of the
outputs for the baselines and an eighth of the inputs by 1/128 of the outputs for MixPE.
"""

import math
from dataclasses import dataclass
from typing import Any

__all__ = ["PUBLISHED_TIMES", "published_rows"]

BATCH = 64
PATCHES = 196

PUBLISHED_TIMES = {
    "MixPE-W4A8": (0.15, 0.12, 0.10, 0.10),
    "ANT": (0.61, 0.47, 0.40, 0.40),
    "BitFusion": (0.70, 0.67, 0.68, 0.68),
    "INT8": (0.82, 0.82, 0.86, 0.86),
    "MixPE-W4A16": (0.53, 0.32, 0.19, 0.19),
    "FP16": (1.0, 1.0, 1.0, 1.0),
}
"""Time over that of FP16, for each of `MODELS`."""

MODELS = ("ViT-B", "ViT-H", "OPT-6.7B", "Llama2-13B")
#: Hidden and feed-forward width, layers, and whether there is a patch embedding. The 13B model has the
#: shape of OPT-13B.
_SHAPES = (
    (768, 3072, 12, True),
    (1280, 5120, 32, True),
    (4096, 16384, 32, False),
    (5120, 20480, 40, False),
)


@dataclass(frozen=True)
class _Array:
    """Published array: outputs of `inputs` x `outputs` numbers of the widest precision at once.

    `factor` is how many more of each operand fit in the layers of a transformer; `whole` is the share of
    blocks in which nothing is narrower (the authors leave 2 of the 12 blocks of ViT-B in 8 bits for ANT; that share is
    taken for all models).
    """

    inputs: int
    outputs: int
    factor: int
    after: bool
    whole: float = 0.0


_ARRAYS = {
    "MixPE-W4A8": _Array(64, 64, 2, True),
    "ANT": _Array(32, 32, 2, False, 2 / 12),
    "BitFusion": _Array(32, 40, 1, False),
    "INT8": _Array(32, 32, 1, False),
    "MixPE-W4A16": _Array(32, 32, 2, True),
    "FP16": _Array(32, 28, 1, False),
}


def _cycles(array: _Array, factor: int, rows: int, inner: int, outputs: int) -> float:
    tiles = math.ceil(rows / (array.inputs * factor)) * math.ceil(
        outputs / (array.outputs * factor)
    )
    return tiles * inner


def _layer(array: _Array, factor: int, inner: int, outputs: int) -> float:
    """A matrix product and its dequantization."""
    cycles = _cycles(array, factor, BATCH, inner, outputs)
    if array.after:
        return cycles + _cycles(array, 1, BATCH, inner // 8, outputs // 128)
    return cycles + _cycles(array, 1, BATCH, inner, outputs // 8)


def _time(array: _Array, shape: tuple[int, int, int, bool]) -> float:
    hidden, inner, layers, patches = shape
    sizes = ((hidden, 3 * hidden), (hidden, hidden), (hidden, inner), (inner, hidden))

    def block(factor: int) -> float:
        return sum(_layer(array, factor, k, n) for k, n in sizes)

    blocks = (1 - array.whole) * block(array.factor) + array.whole * block(1)
    # The embedding of patches is a convolution of 16 x 16 x 3, never quantized to 4 bits.
    embedding = _cycles(array, 1, BATCH * PATCHES, 768, hidden) if patches else 0.0
    return embedding + layers * blocks


def published_rows() -> list[dict[str, Any]]:
    """A row for each design: time over FP16 published and computed, for each model and on average."""
    reference = [_time(_ARRAYS["FP16"], shape) for shape in _SHAPES]
    rows = []
    for name, published in PUBLISHED_TIMES.items():
        times = [
            _time(_ARRAYS[name], shape) / base
            for shape, base in zip(_SHAPES, reference, strict=True)
        ]
        mean, mean_published = sum(times) / len(times), sum(published) / len(published)
        row: dict[str, Any] = {
            "design": name,
            "array": f"{_ARRAYS[name].inputs}x{_ARRAYS[name].outputs}",
        }
        for model, time, other in zip(MODELS, times, published, strict=True):
            row[f"{model} modelled"], row[f"{model} published"] = time, other
        row |= {
            "mean modelled": mean,
            "mean published": mean_published,
            "difference": mean / mean_published - 1,
        }
        rows.append(row)
    return rows
