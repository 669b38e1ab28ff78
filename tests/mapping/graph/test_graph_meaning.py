"""The graph computes the model: executed node by node as `Operator` says, it gives the stored logits."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from hw.spec.machine_file import load_machine
from mapping.frontend import Model, load_model
from mapping.frontend.config import ModelConfig
from mapping.graph import Graph, Node, Operator, Role
from mapping.lowering.geometry import Geometry
from mapping.passes.pipeline import run_passes
from mapping.passes.setting import Setting
from mapping.recipe import load_recipe
from mapping.rope import rope_tables

Array = npt.NDArray[Any]


def initial_values(model: Model, graph: Graph, token_ids: Array) -> dict[str, Array]:
    """Everything that no node computes; caches start empty."""
    values: dict[str, Array] = {}
    for tensor in graph.tensors:
        if tensor.role is Role.WEIGHT:
            values[tensor.name] = model.tensor(tensor.name).astype(np.float64)
        elif tensor.role is Role.CACHE:
            values[tensor.name] = np.zeros((model.config.kv_heads, 0, model.config.head_dim))
        elif tensor.role is Role.TABLE:
            assert not model.config.opt
            positions = np.arange(model.config.maximum_positions)
            values[tensor.name] = np.concatenate(rope_tables(model.config, positions), axis=1)
        elif tensor.role is Role.INPUT:
            values[tensor.name] = token_ids
    return values


def rope(node: Node, x: Array, table: Array) -> Array:
    """Rotation as a complex product; positions count from zero."""
    half = table.shape[1] // 2
    turn = table[: len(x), :half] + 1j * table[: len(x), half:]
    heads = x.reshape(len(x), int(node.attribute("heads")), 2, half)
    turned = (heads[:, :, 0] + 1j * heads[:, :, 1]) * turn[:, None]
    return np.stack([turned.real, turned.imag], axis=2).reshape(x.shape)


def attention(node: Node, q: Array, k: Array, v: Array, k_cache: Array, v_cache: Array) -> Array:
    """One head and one token at a time."""
    head_dim = k_cache.shape[2]
    heads, kv_heads = int(node.attribute("heads")), int(node.attribute("kv_heads"))
    keys = np.concatenate([k_cache, k.reshape(len(k), kv_heads, -1).swapaxes(0, 1)], axis=1)
    values = np.concatenate([v_cache, v.reshape(len(v), kv_heads, -1).swapaxes(0, 1)], axis=1)
    result = np.zeros_like(q)
    for token in range(len(q)):
        seen = k_cache.shape[1] + token + 1
        for head in range(heads):
            columns = slice(head * head_dim, (head + 1) * head_dim)
            shared = head * kv_heads // heads
            scores = keys[shared, :seen] @ q[token, columns] * float(node.attribute("scale"))
            weights = np.exp(scores) / np.exp(scores).sum()
            result[token, columns] = weights @ values[shared, :seen]
    return result


def layer_norm(node: Node, x: Array, gain: Array, bias: Array) -> Array:
    deviation = np.sqrt(x.var(axis=1, keepdims=True) + node.attribute("epsilon"))
    return (x - x.mean(axis=1, keepdims=True)) / deviation * gain + bias


def rms_norm(node: Node, x: Array, gain: Array) -> Array:
    return x / np.sqrt((x**2).mean(axis=1, keepdims=True) + node.attribute("epsilon")) * gain


MEANING: dict[Operator, Callable[..., Array]] = {
    Operator.EMBEDDING: lambda node, token_ids, matrix: matrix[token_ids],
    Operator.RMS_NORM: rms_norm,
    Operator.LAYER_NORM: layer_norm,
    Operator.POSITION: lambda node, x, table: x + table[2 : len(x) + 2],
    Operator.LINEAR: lambda node, x, matrix, bias=0.0: np.einsum("tk,nk->tn", x, matrix) + bias,
    Operator.ROPE: rope,
    Operator.ATTENTION: attention,
    Operator.SILU_MULTIPLY: lambda node, gate, up: gate / (1 + np.exp(-gate)) * up,
    Operator.RELU: lambda node, x: np.maximum(x, 0),
    Operator.ADD: lambda node, x, y: x + y,
    # Rounding and division over cores aside, they hand on what they read.
    Operator.QUANTIZE: lambda node, x: x,
    Operator.SORT: lambda node, x: x,
    Operator.EXCHANGE: lambda node, x: x,
    Operator.ARGMAX: lambda node, logits: logits.argmax(axis=1),
}


def compiled_graphs(config: ModelConfig) -> Iterator[tuple[str, Graph]]:
    """The graph as built and after each pass, for one core and for three."""
    for cores in (1, 3):
        spec = dataclasses.replace(load_machine("small"), cores=cores)
        setting = Setting(Geometry(config, spec), load_recipe("w4a8"), 2)
        for done, graph in run_passes(setting):
            yield f"{done}, cores: {cores}", graph


@pytest.mark.parametrize("name", ["grouped_odd_f16", "llama3_sharded_bf16", "tied_f32", "opt_f32"])
def test_executed_graph_gives_the_stored_logits_after_every_pass(
    name: str, fixtures_folder: Path
) -> None:
    model = load_model(fixtures_folder / name)
    with np.load(fixtures_folder / name / "expected.npz") as stored:
        token_ids, expected = stored["token_ids"], stored["logits"]
    for done, graph in compiled_graphs(model.config):
        values = initial_values(model, graph, token_ids)
        for node in graph.nodes:
            operands = [values[name] for name in node.inputs]
            values[node.output] = MEANING[node.operator](node, *operands)
        logits, next_token = (values[name] for name in graph.outputs)
        largest = np.abs(expected).max()
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5 * largest, err_msg=done)
        np.testing.assert_array_equal(next_token, expected.argmax(axis=1), err_msg=done)
