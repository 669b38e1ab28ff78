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

Instead of `weights` a recipe can ask for a mean, scales and indices counted, of `candidates`, which are spread over the
matrices by their sensitivity (`mapping.mixed_precision`); overrides stay as they are and count:

    average_bits: 3.5
    candidates: [{bits: 3, group: 32}, {bits: 4, group: 32}]
    granularity: kind   # matrices that get equal formats: kind (of all layers), or matrix (each has its own)

`attention_mask` makes attention block-sparse in prefill (`mapping.attention_mask`): of each block of queries, keys of the first
blocks and of a diagonal band of blocks, the query's own the last of them, count; decoding attends to everything:

    attention_mask: {block: 64, first_blocks: 1, band_blocks: 2}

Either number may be a list, which is dealt to the query heads of every layer in turn: `band_blocks: [1, 2, 4, 8]`.

`pruning: activations` calibrates: weights are pruned, and their scales chosen, by magnitude times the root mean square of
their input on `calibration.txt` in the model's folder; the default is `pruning: magnitude`.
"""

import fnmatch
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hw.spec.errors import InputError
from mapping.attention_mask import HeadMasks, parse_mask
from mapping.formats import (
    BlockFormats,
    MatrixFormat,
    WeightFormat,
    parse_format,
    parse_matrix_format,
)
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
_FIELDS = {
    "name",
    "description",
    "weights",
    "overrides",
    "activations",
    "kv_cache",
    "average_bits",
    "candidates",
    "granularity",
    "pruning",
    "attention_mask",
}


@dataclass(frozen=True)
class Recipe:
    """A named choice of formats.

    Attributes
    ----------
    weights : WeightFormat or BlockFormats
        Of every matrix that no override names.
    overrides : tuple of (pattern, format)
        Shell patterns over tensor names, later ones win.
    average_bits : float or None
        Mean bits of a weight that matrices without an override are to have together with the others.
    candidates : tuple of WeightFormat
        Formats that `average_bits` is made of.
    granularity : str
        `kind` or `matrix`: what gets one format then.
    pruning : str
        `magnitude` or `activations`.
    attention_mask : HeadMasks or None
        Of the prompt's tokens.
    """

    name: str
    weights: MatrixFormat
    overrides: tuple[tuple[str, MatrixFormat], ...] = ()
    average_bits: float | None = None
    candidates: tuple[WeightFormat, ...] = ()
    granularity: str = "kind"
    pruning: str = "magnitude"
    attention_mask: HeadMasks | None = None

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
    for section, (known, otherwise) in _CHOICES.items():
        if content.get(section, otherwise) not in known:
            expected = " or ".join(map(repr, known))
            raise InputError(
                f"{where}: {section}: expected {expected}, found {shown(content[section])}"
            )
    average_bits, candidates = _mixed(content, where)
    mask = None
    if "attention_mask" in content:
        mask = parse_mask(content["attention_mask"], f"{where}: attention_mask")
    return Recipe(
        content.get("name", Path(where).stem),
        candidates[-1]
        if candidates
        else parse_matrix_format(content.get("weights"), f"{where}: weights"),
        tuple(pairs),
        average_bits,
        candidates,
        *(content.get(section, otherwise) for section, (_, otherwise) in _CHOICES.items()),
        attention_mask=mask,
    )


_CHOICES = {
    "granularity": (("kind", "matrix"), "kind"),
    "pruning": (("magnitude", "activations"), "magnitude"),
}


def _mixed(content: dict[str, Any], where: str) -> tuple[float | None, tuple[WeightFormat, ...]]:
    """`average_bits` and `candidates`, which go together and stand instead of `weights`."""
    if "average_bits" not in content:
        for section in ("candidates", "granularity"):
            if section in content:
                raise InputError(f"{where}: {section}: expected with average_bits only")
        return None, ()
    if "weights" in content:
        raise InputError(f"{where}: weights: expected candidates instead, with average_bits")
    average, candidates = content["average_bits"], content.get("candidates")
    if not isinstance(average, int | float) or isinstance(average, bool) or not 0 < average <= 16:
        raise InputError(
            f"{where}: average_bits: expected a number of at most 16, found {shown(average)}"
        )
    if not isinstance(candidates, list) or len(candidates) < 2:
        raise InputError(
            f"{where}: candidates: expected a list of two or more formats, found {shown(candidates)}"
        )
    formats = (parse_format(c, f"{where}: candidates[{i}]") for i, c in enumerate(candidates))
    return float(average), tuple(formats)
