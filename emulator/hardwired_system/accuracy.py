"""How far the hardwired machine and its variants are from the float reference, on a text."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from emulator.hardwired_system.forward import HardwiredForward, HardwiredModel
from emulator.hardwired_system.variants import Variant

Doubles = npt.NDArray[np.float64]
Reference = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]]


def log_probabilities(logits: npt.NDArray[np.floating]) -> Doubles:
    """Logarithm of the softmax along the last axis."""
    wide = logits.astype(np.float64)
    wide = wide - wide.max(axis=-1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True))


def compare(
    model: HardwiredModel,
    variants: list[Variant],
    reference: Reference,
    tokens: npt.NDArray[np.int64],
    window: int,
    told: Callable[[int], None] = lambda done: None,
) -> list[dict[str, Any]]:
    """Measure each variant on windows of a text.

    Parameters
    ----------
    reference
        Float logits of a window.
    tokens : int64 [n + 1]
        The n tokens but the first are predicted.

    Returns
    -------
    One row for the reference, then one for each variant: loss in nats a token, Kullback-Leibler divergence
    from the reference in nats a token, largest one of a token, and the share of tokens with the same first
    choice.
    """
    count = len(tokens) - 1
    inputs, targets = tokens[:-1], tokens[1:]

    def over_text(logits: Reference) -> Doubles:
        parts = [logits(inputs[start : start + window]) for start in range(0, count, window)]
        told(1)
        return np.concatenate([log_probabilities(part) for part in parts])

    expected = over_text(reference)
    rows = [_row("float reference", "no rounding", expected, expected, targets)]
    for variant in variants:
        found = over_text(HardwiredForward(model, variant.machine).logits)
        rows.append(_row(variant.name, variant.change, found, expected, targets))
    return rows


def _row(
    name: str, what: str, found: Doubles, expected: Doubles, targets: npt.NDArray[np.int64]
) -> dict[str, Any]:
    divergence = (np.exp(expected) * (expected - found)).sum(axis=-1)
    return {
        "name": name,
        "what": what,
        "nll": float(-found[np.arange(len(targets)), targets].mean()),
        "kl_divergence": float(divergence.mean()),
        "largest_kl_divergence": float(divergence.max()),
        "same_first_choice": float((found.argmax(-1) == expected.argmax(-1)).mean()),
    }
