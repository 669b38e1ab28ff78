"""Mixed precision: which matrices get how many bits when a recipe asks for a mean.

Matrices begin with the smallest of the recipe's candidates and are raised one after another, each time the one whose loss
falls most for the bits it takes (the greedy solution of the knapsack's relaxation); the last one is raised for as many of
its output blocks as are paid for. A matrix's loss with a candidate is predicted: the loss measured on the calibration text
with it alone compressed by one candidate, times the error that the other candidate makes in its outputs over the error
of that one. Without weights (a known configuration) `DEFAULT_SENSITIVITIES` and the error of normal weights stand in.
"""

import fnmatch
import functools
import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hw.spec.errors import InputError
from mapping.calibration import calibration_tokens, input_norms, loss_on
from mapping.formats import BlockFormats, MatrixFormat, WeightFormat
from mapping.frontend.config import ModelConfig
from mapping.frontend.model import Model
from mapping.frontend.opt import POSITIONS
from mapping.frontend.weights import EMBEDDING, tensor_shapes
from mapping.quantize import quantize_matrix
from mapping.recipe import Recipe

DEFAULT_SENSITIVITIES = {
    "self_attn.q_proj": 1.0,
    "self_attn.k_proj": 2.0,
    "self_attn.v_proj": 8.0,
    "self_attn.o_proj": 8.0,
    "mlp.gate_proj": 2.0,
    "mlp.up_proj": 1.0,
    "mlp.down_proj": 2.0,
    "lm_head": 4.0,
}
"""Loss for a relative squared error of a weight, by the kind of its matrix: of `pydoc-llama`, rounded to powers of two."""

_SPLIT_SHARE = 0.01
"""A smaller part of a matrix is not worth instructions of its own."""


@dataclass(frozen=True)
class Unit:
    """Matrices that get the same format.

    Attributes
    ----------
    tensors : tuple of str
    weights, inputs : int
        Weights of all of them, and inputs of each.
    """

    tensors: tuple[str, ...]
    weights: int
    inputs: int


Losses = dict[Unit, list[float]]
"""Predicted loss of each unit with each candidate, in the candidates' order."""


def settle_recipe(recipe: Recipe, config: ModelConfig, model: Model | None = None) -> Recipe:
    """The recipe with a format for every matrix; as it is, unless it asks for a mean.

    Parameters
    ----------
    model : Model, optional
        Measured on its calibration text; without it, or if its weights are synthetic, the documented defaults count.

    Raises
    ------
    InputError
        If the mean is less than the smallest candidates take, or the model has no calibration text.
    """
    if recipe.average_bits is None:
        return recipe
    units, fixed = _units(recipe, config)
    candidates = sorted(recipe.candidates, key=lambda candidate: candidate.bits_per_weight(4096))
    if model is None or model.synthetic:
        losses = default_losses(units, candidates)
    else:
        losses = measured_losses(model, units, candidates, recipe.average_bits)
    total = sum(unit.weights for unit in units) + sum(weights for _, weights, _ in fixed)
    budget = recipe.average_bits * total
    for format, weights, inputs in fixed:
        budget -= format.bits_per_weight(inputs) * weights
    chosen = choose(losses, candidates, budget, f"recipe {recipe.name}", total)
    overrides = tuple((tensor, format) for unit, format in chosen for tensor in unit.tensors)
    return replace(recipe, overrides=(*overrides, *recipe.overrides), average_bits=None)


def _units(
    recipe: Recipe, config: ModelConfig
) -> tuple[list[Unit], list[tuple[MatrixFormat, int, int]]]:
    """What is to be chosen, and format, weights and inputs of each matrix that an override fixes."""
    shapes = tensor_shapes(config)
    names = [
        name
        for name, shape in shapes.items()
        if len(shape) == 2 and name not in (EMBEDDING, POSITIONS)
    ]
    shapes.setdefault("lm_head", shapes[EMBEDDING])
    fixed: list[tuple[MatrixFormat, int, int]] = []
    together: dict[str, list[str]] = {}
    for name in dict.fromkeys([*names, "lm_head"]):
        if any(fnmatch.fnmatchcase(name, pattern) for pattern, _ in recipe.overrides):
            fixed.append((recipe.format_of(name), math.prod(shapes[name]), shapes[name][1]))
        else:
            key = name if recipe.granularity == "matrix" else _kind(name)
            together.setdefault(key, []).append(name)
    units = [
        Unit(tuple(names), sum(math.prod(shapes[name]) for name in names), shapes[names[0]][1])
        for names in together.values()
    ]
    return units, fixed


def _kind(tensor: str) -> str:
    return tensor if tensor == "lm_head" else tensor.split(".", 2)[2]


def choose(
    losses: Losses, candidates: list[WeightFormat], budget: float, where: str, total: int
) -> list[tuple[Unit, MatrixFormat]]:
    """The format of each unit: losses as small as a greedy choice makes them, bits at most `budget` together.

    Raises
    ------
    InputError
        If the first candidate is too large for it.
    """

    def bits(unit: Unit, index: int) -> float:
        return candidates[index].bits_per_weight(unit.inputs) * unit.weights

    left = budget - sum(bits(unit, 0) for unit in losses)
    if left < 0:
        raise InputError(
            f"{where}: average_bits: the smallest candidates take {-left / total:.3f} bits a weight more than that"
        )
    level = dict.fromkeys(losses, 0)
    split: dict[Unit, MatrixFormat] = {}
    while True:
        best: tuple[float, Unit, int] | None = None
        for unit, now in level.items():
            for index in range(now + 1, len(candidates)) if unit not in split else ():
                cost = bits(unit, index) - bits(unit, now)
                gain = losses[unit][now] - losses[unit][index]
                # The output head's tiles are looped over by the vector unit: it keeps one format.
                affordable = cost <= left or "lm_head" not in unit.tensors
                if gain > 0 < cost and affordable and (best is None or gain / cost > best[0]):
                    best = gain / cost, unit, index
        if best is None:
            break
        _, unit, index = best
        cost = bits(unit, index) - bits(unit, level[unit])
        if cost > left:
            share = left / cost
            if share >= _SPLIT_SHARE:
                parts = ((share, candidates[index]), (1 - share, candidates[level[unit]]))
                split[unit] = BlockFormats("outputs", parts)
            break
        left -= cost
        level[unit] = index
    return [(unit, split.get(unit, candidates[index])) for unit, index in level.items()]


def default_losses(units: list[Unit], candidates: list[WeightFormat]) -> Losses:
    """Losses without weights: a documented sensitivity of each kind times the error of normal weights."""
    return {
        unit: [
            DEFAULT_SENSITIVITIES.get(_kind(unit.tensors[0]), 1.0) * unit.weights * normal_error(c)
            for c in candidates
        ]
        for unit in units
    }


@functools.cache
def normal_error(format: WeightFormat) -> float:
    """Squared error of a format for normal weights of variance one."""
    inputs = format.group or 1024
    weights = np.random.default_rng(0).standard_normal((-(-32768 // inputs), inputs))
    weights = weights.astype(np.float32)
    return float(np.square(quantize_matrix(weights, format).dequantize() - weights).mean())


def measured_losses(
    model: Model, units: list[Unit], candidates: list[WeightFormat], average_bits: float
) -> Losses:
    """Losses on the model's calibration text."""
    tokens = calibration_tokens(model, "average_bits")
    norms = input_norms(model, tokens)
    plain = loss_on(model, tokens)
    below = [i for i, c in enumerate(candidates) if c.bits_per_weight(4096) <= average_bits]
    probe = below[-1] if below else 0
    losses: Losses = {}
    for unit in units:
        replaced: dict[str, npt.NDArray[np.float32]] = {}
        errors = [0.0] * len(candidates)
        for tensor in unit.tensors:
            weight = model.tensor(tensor)
            for index, candidate in enumerate(candidates):
                found = quantize_matrix(weight, candidate, norms[tensor]).dequantize()
                errors[index] += float(np.square((found - weight) * norms[tensor]).sum())
                if index == probe:
                    replaced[tensor] = found
        increase = max(loss_on(model, tokens, replaced) - plain, 1e-5)
        losses[unit] = [increase * error / errors[probe] for error in errors]
    return losses
