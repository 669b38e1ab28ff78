"""Compression recipes: which number format each weight matrix gets."""

import fnmatch
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hw.spec import weight_format as hw_format
from hw.spec.errors import InputError
from hw.spec.weight_format import StepFormat
from mapping.frontend.files import shown

RECIPES = Path(__file__).resolve().parent / "recipes"
_FIELDS = {"name", "description", "weights", "overrides", "activations", "kv_cache"}


@dataclass(frozen=True)
class WeightFormat:
    """Number format of a weight matrix.

    Attributes
    ----------
    bits : int
        2, 3, 4, 5 or 8; two's complement, symmetric.
    group : int or None
        Elements along the input that share a scale; None: the whole row (one scale a channel).
    kind : str
        `integer`, or `fp4` (E2M1).
    kept : int
        Weights kept of every 16 along the input (8, 4, 2), or 0: all.
    bitmap : bool
        Which are kept is said by bitmaps, not by indices.
    """

    bits: int
    group: int | None
    kind: str = "integer"
    kept: int = 0
    bitmap: bool = False

    def __str__(self) -> str:
        kept = f" {self.kept}:16 by {'bitmap' if self.bitmap else 'index'}" if self.kept else ""
        return f"{self.step.weight.name}{kept}, groups of {self.group or 'a row'}"

    @property
    def step(self) -> StepFormat:
        """The format as the matrix engine streams it."""
        name = "FP4" if self.kind == "fp4" else f"INT{self.bits}"
        return StepFormat(hw_format.WeightFormat[name], self.kept, self.bitmap)


@dataclass(frozen=True)
class Recipe:
    """A named choice of formats.

    Attributes
    ----------
    weights : WeightFormat
        Of every matrix that no override names.
    overrides : tuple of (pattern, WeightFormat)
        Shell patterns over tensor names, later ones win.
    """

    name: str
    weights: WeightFormat
    overrides: tuple[tuple[str, WeightFormat], ...] = ()

    def format_of(self, tensor: str) -> WeightFormat:
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
    pairs: list[tuple[str, WeightFormat]] = []
    for i, override in enumerate(overrides):
        place = f"{where}: overrides[{i}]"
        if not isinstance(override, dict) or not isinstance(override.get("tensor"), str):
            raise InputError(f"{place}: expected tensor (a name or pattern), bits and group")
        rest = {key: value for key, value in override.items() if key != "tensor"}
        pairs.append((override["tensor"], _weight_format(rest, place)))
    return Recipe(
        content.get("name", Path(where).stem),
        _weight_format(content.get("weights"), f"{where}: weights"),
        tuple(pairs),
    )


def _weight_format(content: Any, where: str) -> WeightFormat:
    if not isinstance(content, dict) or set(content) != {"bits", "group"}:
        raise InputError(f"{where}: expected bits and group, found {shown(content)}")
    bits, group = content["bits"], content["group"]
    if type(bits) is not int or bits not in (4, 8):
        raise InputError(f"{where}: bits: expected 4 or 8, found {shown(bits)}")
    if group == "channel":
        return WeightFormat(bits, None)
    if (
        not isinstance(group, int)
        or isinstance(group, bool)
        or group < 8
        or group % 8
        or group > 4096
    ):
        raise InputError(
            f"{where}: group: expected 'channel' or a multiple of 8 up to 4096, found {shown(group)}"
        )
    return WeightFormat(bits, group)
