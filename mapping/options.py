"""Options that commands of the compiler share."""

from typing import TYPE_CHECKING, Any

import click

from emulator.console import note

if TYPE_CHECKING:
    from hw.spec.machine import MachineSpec
    from mapping.frontend.model import Model
    from mapping.recipe import Recipe


def target_option(command: Any) -> Any:
    """Add `--target`."""
    return click.option("--target", required=True, help="Bundled target, or a target's YAML file.")(
        command
    )


def recipe_option(command: Any) -> Any:
    """Add `--recipe`."""
    return click.option(
        "--recipe",
        help="Bundled recipe, or a recipe's YAML file; needless for a folder that is quantized: its own formats.",
    )(command)


def choose_recipe_of(recipe: str | None, model: "Model", machine: "MachineSpec") -> "Recipe":
    """The recipe of a command line; what a user should know of it is told."""
    from mapping.checkpoint import choose_recipe
    from mapping.mixed_precision import settle_recipe

    chosen = choose_recipe(recipe, model, machine)
    for line in chosen.notes:
        note(line)
    return settle_recipe(chosen.recipe, model.config, model)


def note_mask(recipe: "Recipe", prompt_length: int) -> None:
    """Tell what the recipe's attention mask leaves of a prompt."""
    if recipe.attention_mask is not None:
        note(recipe.attention_mask.describe(prompt_length))
