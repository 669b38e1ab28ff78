"""Estimates of LLaMA2-7B beside published figures, and what is wanted beside what is measured."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from emulator.published import FAR, FIGURES, MODEL, Figure
from hw.spec.board import KINDS, load_board, load_fitted
from hw.spec.machine_file import load_machine
from mapping.estimate import LABELS, estimate
from mapping.frontend.model import load_model
from mapping.recipe import load_recipe

__all__ = ["PublishedRow", "published_rows"]

_TOKENS = 2
"""One from prefill, one from decode at just the context of the prompt."""


@dataclass(frozen=True)
class PublishedRow:
    """A figure, and what it is here.

    Attributes
    ----------
    figure : Figure
    value : float
    origin : str
        "emulated", "modelled", "synthesized", ...
    """

    figure: Figure
    value: float
    origin: str

    def to_dict(self) -> dict[str, Any]:
        """For JSON: every cell with its origin."""
        f = self.figure
        return {
            "figure": f.name, "target": f.target, "recipe": f.recipe, "prompt_length": f.prompt_length, "unit": f.unit,
            "published": f.published, "published_source": f.source, "wanted": f.wanted,
            "value": self.value, "origin": self.origin, "met": f.met(self.value),
        }  # fmt: skip


def published_rows(advance: Callable[[int], None] = lambda _: None) -> list[PublishedRow]:
    """Run every estimate that the figures need, each once.

    Parameters
    ----------
    advance : function, optional
        Called with 1 after each figure.

    Raises
    ------
    InputError
        If a target does not hold the model, or its board not the target.
    """
    config = load_model(MODEL).config
    known: dict[tuple[str, str, int], dict[str, Any]] = {}

    def facts(target: str, recipe: str, length: int) -> dict[str, Any]:
        key = (target, recipe, length)
        if key not in known:
            known[key] = estimate(
                config, load_machine(target), load_recipe(recipe), length, _TOKENS,
                load_board(target), load_fitted(target),
            )  # fmt: skip
        return known[key]

    rows = []
    for figure in FIGURES:
        near = facts(figure.target, figure.recipe, figure.prompt_length)
        if figure.key == "slope":
            far = facts(figure.target, figure.recipe, FAR)
            clock = load_machine(figure.target).clock_hz
            cycles = [clock / run["decode_tokens_per_second"] for run in (near, far)]
            value, origin = (cycles[1] - cycles[0]) / (FAR - figure.prompt_length), "emulated"
        elif figure.key == "power":
            value = near["energy_joules_per_token"] * near["decode_tokens_per_second"]
            origin = "modelled"
        elif figure.key == "tokens_per_joule":
            value, origin = 1 / near["energy_joules_per_token"], "modelled"
        elif figure.key in KINDS:
            value, origin = near["resources"][figure.key], near["resources_source"]
        else:
            value, origin = near[figure.key], LABELS[figure.key]
        rows.append(PublishedRow(figure, value, origin))
        advance(1)
    return rows
