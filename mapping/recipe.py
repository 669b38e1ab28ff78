"""Compression recipes: which number format each weight matrix gets.

A recipe is a YAML file. `weights` is the format of every matrix, `overrides` a list of others for the tensors that a
shell pattern names, of which later ones win. A format is written as

    bits: 4           # 2, 3, 4, 5 or 8; or kind: fp4 (E2M1), or kind: mxfp4 (with scales that are powers of two)
    group: 32         # inputs that share a scale, or channel
    kept: 8           # sparse: weights kept of every 16 inputs, 8, 4 or 2
    index: auto       # how it is said which: index (4 bits a weight), bitmap (16 bits), or auto, the smaller

or as a list of `blocks`, formats each with its `share` of the matrix, `along` its outputs or its inputs; they begin at
whole blocks of the matrix engine, so that shares are rounded. Targets say in `weight_formats` and `sparse` what
they are built with.
"""

import fnmatch
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hw.spec.errors import InputError
from mapping.formats import BlockFormats, MatrixFormat, WeightFormat, parse_matrix_format
from mapping.frontend.files import shown

__all__ = [
    "BlockFormats",
    "MatrixFormat",
    "Recipe",
    "WeightFormat",
    "list_recipes",
    "load_recipe",
    "recipe_from_dict",
]

RECIPES = Path(__file__).resolve().parent / "recipes"
_FIELDS = {"name", "description", "weights", "overrides", "activations", "kv_cache"}


@dataclass(frozen=True)
class Recipe:
    """A named choice of formats.

    Attributes
    ----------
    weights : WeightFormat or BlockFormats
        Of every matrix that no override names.
    overrides : tuple of (pattern, format)
        Shell patterns over tensor names, later ones win.
    """

    name: str
    weights: MatrixFormat
    overrides: tuple[tuple[str, MatrixFormat], ...] = ()

    def format_of(self, tensor: str) -> MatrixFormat:
        """Format of the weight matrix `tensor`."""
        chosen = self.weights
        for pattern, override in self.overrides:
            if fnmatch.fnmatchcase(tensor, pattern):
                chosen = override
        return chosen

    def check_names(self, tensors: list[str], where: str) -> None:
        """Refuse an override that names no matrix of the model.

        Raises
        ------
        InputError
        """
        for pattern, _ in self.overrides:
            if not any(fnmatch.fnmatchcase(name, pattern) for name in tensors):
                raise InputError(
                    f"{where}: overrides: {pattern!r} names no weight matrix of the model"
                )


def list_recipes() -> list[str]:
    """Names of the bundled recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(name_or_path: str) -> Recipe:
    """Read a bundled recipe by name, or a recipe file by path.

    Raises
    ------
    InputError
        If there is none, or a field is unknown or impossible.
    """
    path = RECIPES / f"{name_or_path}.yaml"
    if not path.is_file():
        path = Path(name_or_path)
        if not path.is_file():
            raise InputError(
                f"{name_or_path}: no such recipe or file (bundled: {', '.join(list_recipes())})"
            )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # ValueError: no UTF-8, or a date that no calendar has.
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    return recipe_from_dict(content, str(path))


def recipe_from_dict(content: Any, where: str) -> Recipe:
    """Check the content of a recipe file."""
    if not isinstance(content, dict):
        raise InputError(f"{where}: expected a mapping, found {type(content).__name__}")
    unknown = [name for name in content if name not in _FIELDS]
    if unknown:
        raise InputError(
            f"{where}: {shown(unknown[0])}: unknown field (known: {', '.join(sorted(_FIELDS))})"
        )
    for section in ("activations", "kv_cache"):
        if content.get(section, {"bits": 8}) != {"bits": 8}:
            raise InputError(
                f"{where}: {section}: expected bits: 8, found {shown(content[section])}"
            )
    for section in ("name", "description"):
        if not isinstance(content.get(section, ""), str):
            raise InputError(f"{where}: {section}: expected text, found {shown(content[section])}")
    overrides = content.get("overrides", [])
    if not isinstance(overrides, list):
        raise InputError(f"{where}: overrides: expected a list, found {type(overrides).__name__}")
    pairs: list[tuple[str, MatrixFormat]] = []
    for i, override in enumerate(overrides):
        place = f"{where}: overrides[{i}]"
        if not isinstance(override, dict) or not isinstance(override.get("tensor"), str):
            raise InputError(f"{place}: expected tensor (a name or pattern), bits and group")
        rest = {key: value for key, value in override.items() if key != "tensor"}
        pairs.append((override["tensor"], parse_matrix_format(rest, place)))
    return Recipe(
        content.get("name", Path(where).stem),
        parse_matrix_format(content.get("weights"), f"{where}: weights"),
        tuple(pairs),
    )
