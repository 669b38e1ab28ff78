"""The compiler: a model, a machine and a recipe become one program."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from hw.spec.errors import InputError
from hw.spec.instructions import Unit
from hw.spec.machine import MachineSpec
from hw.spec.program import Program, load_program, write_program
from hw.spec.wires import Wires
from mapping.frontend.config import ModelConfig, require_flight
from mapping.frontend.model import Model
from mapping.frontend.weights import tensor_shapes
from mapping.lowering.geometry import Geometry
from mapping.lowering.load import lower_load
from mapping.lowering.matrix import lower_matrix
from mapping.lowering.plan import Plan
from mapping.lowering.store import lower_store
from mapping.lowering.system import lower_system
from mapping.lowering.tiles import CREDITS
from mapping.lowering.vector import lower_vector
from mapping.mixed_precision import settle_recipe
from mapping.packing import fill_memory, wire_matrices
from mapping.passes.pipeline import compile_graph
from mapping.passes.setting import Setting
from mapping.recipe import Recipe

CHUNKS = (64, 32, 16, 8, 4, 2, 0)
"""Tokens that prefill processes at once: as many of these as the target's buffers hold; 0: one after another, by the decode program."""


def plan_model(
    config: ModelConfig, machine: MachineSpec, recipe: Recipe, context: int | None = None
) -> Plan:
    """Lay a model out on a machine.

    Parameters
    ----------
    context : int, optional
        Longest sequence; by default what the model and the target's token buffer allow.

    Raises
    ------
    InputError
        If it does not fit, saying what and by how much; or if a recipe's override names no matrix.
    """
    require_flight(config, "the flight processor")
    recipe = settle_recipe(recipe, config)
    names = [n for n in tensor_shapes(config) if n.endswith("_proj")] + ["lm_head"]
    recipe.check_names(names, f"recipe {recipe.name}")
    if context is None:
        context = min(config.maximum_positions, machine.tokens)
    if context < 2:
        raise InputError(f"context: expected at least 2 tokens, found {context}")
    if context > config.maximum_positions:
        raise InputError(
            f"context: {context} tokens, the model has {config.maximum_positions} positions"
        )
    geometry = Geometry(config, machine)
    for credits in CREDITS:
        setting = Setting(geometry, recipe, credits)
        try:
            graph = compile_graph(setting)
        except InputError:
            continue
        # Nothing is gained by taking tokens together where no weights are streamed.
        for chunk in CHUNKS if not machine.wired_bits else (0,):
            try:
                plan = Plan(graph, setting, context, chunk)
                _check_chunk(plan)
                if chunk:
                    lower(plan)
                return plan
            except InputError:
                continue
    # What does not fit is said of the least that could.
    setting = Setting(geometry, recipe, CREDITS[-1])
    graph = compile_graph(setting)
    plan = Plan(graph, setting, context)
    if plan.hiding is not None or plan.mask is not None:
        raise _no_chunk(plan)
    return plan


def _check_chunk(plan: Plan) -> None:
    """Refuse chunks that do not lie in one block of queries."""
    masks = plan.hiding or plan.mask
    if masks is not None and (not plan.chunk or masks.block % plan.chunk):
        raise _no_chunk(plan)


def _no_chunk(plan: Plan) -> InputError:
    """Why an attention mask cannot be: what the smallest chunk lacks, if that is known."""
    why = "its matrices are wires"
    if not plan.wired:
        try:
            lower(Plan(plan.graph, plan.setting, plan.context, CHUNKS[-2]))
        except InputError as error:
            why = str(error)
    return InputError(
        f"recipe {plan.setting.recipe.name}: attention_mask: expected a target that takes {CHUNKS[-2]} or more tokens of the "
        f"prompt together, found {plan.spec.name}, which takes one ({why})"
    )


def lower(plan: Plan) -> dict[Unit, list[int]]:
    """Instruction words of every unit."""
    room = plan.spec.instructions
    streams = (
        lower_load(plan),
        lower_store(plan),
        lower_matrix(plan),
        lower_vector(plan),
        lower_system(plan),
    )
    return {stream.unit: stream.words(room) for stream in streams}


def compile_instructions(plan: Plan) -> Program:
    """A program without weights: all that timing needs."""
    return Program(
        plan.machine(),
        lower(plan),
        np.zeros((*([plan.cores] if plan.cores > 1 else []), 0, plan.spec.word_bytes), np.uint8),
        {"context": plan.context},
    )


def compile_model(
    model: Model, machine: MachineSpec, recipe: Recipe, context: int | None = None
) -> Program:
    """The whole program: instructions, packed weights, and what a host needs to know."""
    recipe = settle_recipe(recipe, model.config, model)
    return assemble(model, plan_model(model.config, machine, recipe, context), recipe)


def assemble(model: Model, plan: Plan, recipe: Recipe) -> Program:
    """The program of a plan."""
    images = np.zeros((plan.cores, plan.cache, plan.spec.word_bytes), np.uint8)
    fill_memory(model, plan, images)
    memory = images[0] if plan.cores == 1 else images
    machine, wires = _machine(model, plan)
    information = _information(model, recipe, plan, wires)
    return Program(machine, lower(plan), memory, information, wires)


def compile_to_file(
    model: Model, machine: MachineSpec, recipe: Recipe, path: Path, context: int | None = None
) -> Program:
    """As `compile_model`, straight into a program file: weights are read, packed and written tensor by tensor.

    Raises
    ------
    InputError
        As `plan_model`; or if a weight is damaged. Nothing is left at `path` then.
    """
    recipe = settle_recipe(recipe, model.config, model)
    plan = plan_model(model.config, machine, recipe, context)
    made, wires = _machine(model, plan)
    information = _information(model, recipe, plan, wires)
    with write_program(path, made, lower(plan), plan.cache, information, wires) as images:
        fill_memory(model, plan, images)
    return load_program(path)


def _machine(model: Model, plan: Plan) -> tuple[MachineSpec, Wires | None]:
    """The machine, and what is hardwired in it; refuses one that was made for other weights."""
    spec = plan.spec
    if not plan.wired:
        return spec, None
    wires = wire_matrices(model, plan)
    if spec.wired_shapes and spec.wired_shapes != wires.shapes:
        raise InputError(
            f"target {spec.name}: wired_shapes: {model.name} needs {len(wires.shapes)} matrices, {' '.join(wires.shapes[:3])} ..., "
            f"the target has {len(spec.wired_shapes)}, {' '.join(spec.wired_shapes[:3])} ..."
        )
    if spec.wired_digest and spec.wired_digest != wires.digest:
        raise InputError(
            f"target {spec.name}: wired_digest: the target's wires have {spec.wired_digest}, "
            f"{model.name} with this recipe has {wires.digest}"
        )
    return plan.machine(wires.digest), wires


def _information(model: Model, recipe: Recipe, plan: Plan, wires: Wires | None) -> dict[str, Any]:
    config = model.config
    bits = [m.weight_bits * s.layers for s in plan.segments for m in s.matrices.values()]
    information: dict[str, Any] = {
        "model": model.name,
        "synthetic": model.synthetic,
        "parameters": model.parameters,
        "recipe": recipe.name,
        "chunk": plan.chunk,
        "context": min(plan.context, config.maximum_positions),
        "vocabulary_size": config.vocabulary_size,
        "stop_tokens": list(config.eos_token_ids)[:4],
        "weight_bits": sum(bits),
        "matrices": list(plan.segments[0].matrices),
        "logits": plan.result.taken["logits"][0],
        "regions": {name: list(region) for name, region in plan.memory.taken.items()},
    }
    if recipe.attention_mask is not None:
        information["attention_mask"] = asdict(recipe.attention_mask)
    if wires is not None:
        information["wires"] = [matrix.name for matrix in wires.matrices]
        information["hardwired_weights"] = sum(m.rows * m.columns for _, m in plan.wired_tensors())
    if model.folder is not None and (model.folder / "tokenizer.json").is_file():
        information["tokenizer"] = (model.folder / "tokenizer.json").read_text()
    return information
