"""`lpu estimate`: cycles, speed, resources and energy of a model that needs no weights."""

from typing import Any

import click

from emulator.console import json_option, print_json, print_table
from mapping.options import choose_recipe_of, note_mask, recipe_option, target_option


@click.command("estimate")
@click.argument("model")
@target_option
@recipe_option
@click.option(
    "--prompt-length", type=int, default=128, show_default=True, help="Tokens of the prompt."
)
@click.option("--tokens", type=int, default=128, show_default=True, help="Tokens to generate.")
@json_option
def estimate_command(
    model: str, target: str, recipe: str | None, prompt_length: int, tokens: int, as_json: bool
) -> None:
    """Count the cycles of MODEL without its weights (emulated: exact for the target's memory model).

    Of a target that is a board, the resources of the design are compared with the board's; what does not fit is refused.
    """
    from hw.spec.board import load_board, load_fitted
    from hw.spec.machine_file import load_machine
    from mapping.estimate import estimate
    from mapping.frontend.model import load_model

    loaded, machine = load_model(model), load_machine(target)
    formats = choose_recipe_of(recipe, loaded, machine)
    note_mask(formats, prompt_length)
    board, fitted = load_board(target), load_fitted(target)
    facts = estimate(loaded.config, machine, formats, prompt_length, tokens, board, fitted)
    if as_json:
        print_json(facts)
    else:
        print_estimate(facts, fitted)


def print_estimate(facts: dict[str, Any], fitted: dict[str, str]) -> None:
    """Print each figure with its origin; resources as used of available."""
    labels = facts["labels"]
    hidden = {"labels", "resources", "resources_available", "resources_source", "fitted_parameters"}
    rows = [
        [name.replace("_", " "), shown(value), labels[name]]
        for name, value in facts.items()
        if name not in hidden
    ]
    available = facts.get("resources_available", {})
    for kind, used in facts.get("resources", {}).items():
        share = f" ({used / available[kind]:.0%})" if available[kind] else ""
        text = f"{used:,} of {available[kind]:,}{share}"
        rows.append([kind.upper(), text, f"{labels['resources']}; board: published"])
    for name in facts["fitted_parameters"]:
        why = fitted.get(name.partition(": ")[2], "to 45 W of FlightLLM on the U280")
        rows.append(["fitted", name, why])
    print_table("", ["figure", "value", "origin"], rows)


def shown(value: Any) -> str:
    """A figure as text: thousands separators for whole numbers, four digits for others."""
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    return str(value)
