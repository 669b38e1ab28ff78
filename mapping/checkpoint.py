"""Checkpoints that are quantized already: their own formats as a recipe, and their integers as the machine streams them.

A stored weight is integer * scale. The machine multiplies integers of 2, 3, 4, 5 or 8 bits, and FP4, and scales sums of
groups by FP16 numbers, so that every integer and every scale of an AWQ, GPTQ, QServe or MXFP4 checkpoint is kept:

- codes of 0 to 15 less a zero point: INT4 if all zero points are 8, else INT5;
- QServe: the 8-bit integers of its first level, with a scale an output;
- MXFP4: FP4 with groups of 32, whose scales are powers of two.

A target that lacks the format gets the narrowest that it has and that holds the integers, at worst INT8.

In activation order (GPTQ's `desc_act`) the inputs of a group are no neighbours, but the matrix engine needs them to be.
The inputs of `down_proj` are sorted for nothing: the outputs of `gate_proj` and `up_proj`, from which they come, are put into the
same order. Those of the others come from the residual stream, which has one order for all layers, or from attention heads,
which are wholes: they are sorted on the machine, by a product of the INT8 activations with a permutation, which is exact
(`mapping.passes.order_inputs`), one for all matrices of a layer that read the same in the same order.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from hw.spec.errors import InputError
from hw.spec.machine import MachineSpec
from mapping.formats import MatrixFormat, narrowest_format
from mapping.frontend.model import Model
from mapping.frontend.quantized_weights import QuantizedFolderWeights
from mapping.quantize import QuantizedMatrix
from mapping.recipe import Recipe, WeightFormat, load_recipe

RECIPE = "checkpoint"
"""Name of the recipe that keeps what a folder holds."""

DOWN = "mlp.down_proj"
_READS = {
    "self_attn.q_proj": "attention norm",
    "self_attn.k_proj": "attention norm",
    "self_attn.v_proj": "attention norm",
    "mlp.gate_proj": "feed-forward norm",
    "mlp.up_proj": "feed-forward norm",
}
"""Matrices of a layer that read the same vector."""
Arrange = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class ChosenRecipe:
    """A recipe, and what a user should know of it."""

    recipe: Recipe
    notes: tuple[str, ...] = ()


def choose_recipe(name_or_path: str | None, model: Model, machine: MachineSpec) -> ChosenRecipe:
    """The recipe of a command line; None is that of the checkpoint, if the model is quantized.

    Raises
    ------
    InputError
        If there is no such recipe, or none was given and the model's weights are not quantized.
    """
    if name_or_path not in (None, RECIPE):
        return ChosenRecipe(load_recipe(name_or_path or ""))
    weights = model.quantized
    if weights is None:
        raise InputError(
            f"{model.name}: --recipe: expected a recipe because the weights of the model are not quantized, "
            f"found {'none' if name_or_path is None else RECIPE}"
        )
    return _checkpoint_recipe(weights, machine)


def _checkpoint_recipe(weights: QuantizedFolderWeights, machine: MachineSpec) -> ChosenRecipe:
    layout = weights.scheme.layout
    group = None if layout == "qserve" else weights.scheme.group
    if layout == "mxfp4" and "FP4" in machine.weight_formats:
        kept = WeightFormat(4, group, "mxfp4", stored=True)
    else:
        kept = narrowest_format(*weights.integer_range(), group, machine)
    orders = _orders(weights)
    overrides = tuple((n, replace(kept, order=orders.get(n, ""))) for n in weights.packed)
    # What the checkpoint holds as numbers, usually the output head, is rounded to INT8.
    return ChosenRecipe(Recipe(RECIPE, WeightFormat(8, None), overrides), weights.notes)


def _orders(weights: QuantizedFolderWeights) -> dict[str, str]:
    """Matrices whose inputs the machine sorts, and the one of the layer (without it) whose permutation each shares."""
    orders: dict[str, str] = {}
    known: dict[tuple[str, bytes], str] = {}
    for name in weights.packed:
        if name.endswith(DOWN) or weights.ordered(name):
            continue
        layer, kind = _split(name)
        reads = _READS.get(kind, kind)
        key = f"{layer}.{reads}", weights.groups(name).tobytes()
        orders[name] = known.setdefault(key, kind)
    return orders


def _split(tensor: str) -> tuple[str, str]:
    """`layers.3` and `mlp.up_proj`."""
    *layer, part, name = tensor.split(".")
    return ".".join(layer), f"{part}.{name}"


def group_order(model: Model, tensor: str) -> np.ndarray:
    """Order that sorts the inputs of a packed matrix by group."""
    weights = model.quantized
    if weights is None:
        raise ValueError(f"{tensor}: not packed")
    return np.argsort(weights.groups(tensor), kind="stable")


def sort_inputs(weight: np.ndarray, model: Model, tensor: str, format: MatrixFormat) -> np.ndarray:
    """A matrix with its inputs as the machine sorts them, if its format names an order."""
    if not isinstance(format, WeightFormat) or not format.order:
        return weight
    return weight[:, group_order(model, tensor)]


def stored_order(model: Model, tensor: str, recipe: Recipe) -> np.ndarray | None:
    """Order that sorts the inputs of a layer's `down_proj` by group, for it and its producers; None: as they are."""
    layer, _, name = tensor.rpartition("mlp.")
    down = f"{layer}{DOWN}"
    weights = model.quantized
    if not name or weights is None or down not in weights.packed or weights.ordered(down):
        return None
    format = recipe.format_of(down)
    if not isinstance(format, WeightFormat) or not format.stored:
        return None
    return group_order(model, down)


def in_order(weight: np.ndarray, tensor: str, order: np.ndarray | None) -> np.ndarray:
    """A matrix with the inputs (`down_proj`) or the outputs (its producers) in this order."""
    if order is None:
        return weight
    return weight[:, order] if tensor.endswith(DOWN) else weight[order]


def stored_matrix(
    model: Model, tensor: str, arrange: Arrange, format: WeightFormat
) -> QuantizedMatrix:
    """Integers and scales of the checkpoint, arranged for the machine.

    Parameters
    ----------
    model : Model
        Its folder holds the matrix packed.
    tensor : str
        Name of the matrix.
    arrange : callable
        Puts a matrix [outputs, inputs] where the machine has it, zeros elsewhere, inputs sorted by group.
    format : WeightFormat
        As `choose_recipe` chose it.

    Raises
    ------
    InputError
        If the matrix is not packed, FP16 does not hold a scale exactly, or the target pads heads so that groups do not stay together.
    """
    weights = model.quantized
    if weights is None or tensor not in weights.packed:
        raise InputError(f"{tensor}: expected a packed matrix, as recipe {RECIPE} has it")
    matrix = weights.stored(tensor)
    scales = arrange(matrix.scales[:, matrix.groups])
    values = arrange(matrix.values)
    outputs, inputs = values.shape
    group = format.group or inputs
    padding = ((0, 0), (0, -inputs % group))
    values = np.pad(values, padding).reshape(outputs, -1, group)
    scales = np.pad(scales, padding).reshape(outputs, -1, group)
    # A group that holds zeros only has no scale; that of another is the scale of its first integer.
    nonzero = values != 0
    first = np.take_along_axis(scales, nonzero.argmax(axis=2)[..., None], axis=2)
    first = np.where(nonzero.any(axis=2, keepdims=True), first, 0)
    if (nonzero & (scales != first)).any():
        raise InputError(
            f"{tensor}: group_size: the target pads heads, so that groups of {group} inputs do not stay together"
        )
    return QuantizedMatrix(
        values.reshape(outputs, -1), _exact_half(first[..., 0], tensor), format, inputs
    )


def _exact_half(scales: np.ndarray, tensor: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        halves = scales.astype(np.float16).astype(np.float32)
    wrong = scales[halves != scales]
    if wrong.size:
        raise InputError(
            f"{tensor}: scales: expected numbers that FP16 holds exactly, found {wrong[0]}: give a recipe to round anew"
        )
    return scales


__all__ = [
    "RECIPE",
    "ChosenRecipe",
    "choose_recipe",
    "group_order",
    "in_order",
    "sort_inputs",
    "stored_matrix",
    "stored_order",
]
