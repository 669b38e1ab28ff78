"""Block-sparse attention in prefill: every bit of a compiled program's attention against a dense matrix of what is visible."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pytest

from emulator.machine import Machine
from emulator.numerics import floating, functions
from hw.spec.instructions import Unit
from hw.spec.machine import MachineSpec
from hw.spec.machine_file import load_machine
from mapping.attention_mask import AttentionMask
from mapping.compiler import assemble
from mapping.frontend.config import ModelConfig
from mapping.frontend.model import load_model, synthetic_model
from mapping.lowering.geometry import Geometry
from mapping.lowering.plan import Plan
from mapping.passes.pipeline import compile_graph
from mapping.passes.setting import Setting
from mapping.recipe import load_recipe

CONTEXT = 96
W8A8 = load_recipe("w8a8")
WIDE = {
    "vector_rows": 16384, "activation_rows": 8192, "result_rows": 16384, "matrix_scales": 512, "input_words": 4096,
    "instructions": 1024, "scalars": 256, "store_rows": 2048, "stream_words": 8192,
}  # fmt: skip
"""Room for many tokens at once."""


def shape(heads: int, kv_heads: int, head_dim: int) -> ModelConfig:
    return dataclasses.replace(
        load_model("tinyllama-1.1b").config, hidden_size=32, intermediate_size=48, layers=2, heads=heads,
        kv_heads=kv_heads, head_dim=head_dim, vocabulary_size=80, maximum_positions=256,
    )  # fmt: skip


def wide(target: str, **fields: int) -> MachineSpec:
    return dataclasses.replace(load_machine(target), **WIDE | fields)


def planned(config: ModelConfig, spec: MachineSpec, mask: AttentionMask | None, chunk: int) -> Plan:
    recipe = dataclasses.replace(W8A8, attention_mask=mask)
    setting = Setting(Geometry(config, spec), recipe, 4)
    return Plan(compile_graph(setting), setting, CONTEXT, chunk)


def dense_mask(mask: AttentionMask | None, tokens: int) -> npt.NDArray[np.bool_]:
    """[T, T]: which key (column) each query (row) sees, from a matrix of blocks."""
    causal = np.tri(tokens, dtype=bool)
    if mask is None:
        return causal
    blocks = -(-tokens // mask.block)
    seen = np.tri(blocks, dtype=bool) & ~np.tri(blocks, k=-mask.band_blocks, dtype=bool)
    seen[:, : mask.first_blocks] = True
    return np.kron(seen, np.ones((mask.block, mask.block), bool))[:tokens, :tokens] & causal


Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


class WatchedMachine(Machine):
    """Keeps what the matrix engine multiplies and finds in the attention of prefill while it runs; of one core.

    `queries` are INT8 [tokens, head] with their scales [tokens], by number of the layer (counted through all chunks) and
    query head; `attention` is FP32 [tokens, rows of a block], one product after another.
    """

    def watch(self, plan: Plan) -> None:
        self.plan = plan
        self.queries: dict[tuple[int, int], tuple[Integers, Floats]] = {}
        self.attention: list[Floats] = []

    def _apply(self, unit: Unit, operation: Mapping[str, int]) -> list[int]:
        checksums = super()._apply(unit, operation)
        if unit == Unit.MPE and not operation["scaled"]:
            self._keep(operation)
        return checksums

    def _keep(self, operation: Mapping[str, int]) -> None:
        plan, state, scale = self.plan, self.states[0], operation["scale"]
        rows = np.arange(operation["vectors"])
        regions = plan.matrix_scales.taken
        layer = len(self.attention) // (plan.heads * plan.head_blocks)
        if scale in range(regions["p"][0], sum(regions["p"])):
            begin = operation["result"] + rows * operation["result_pitch"]
            block = begin[:, None] + np.arange(plan.spec.block_rows)
            self.attention.append(state.result[block].reshape(len(rows), -1))
        elif scale in range(regions["q"][0], sum(regions["q"])):
            begin = 4 * (operation["activation"] + rows * operation["activation_pitch"])
            queries = state.activation[begin[:, None] + np.arange(plan.head)].astype(np.int64)
            scales = state.matrix_scales[scale + rows * operation["scale_pitch"]].copy()
            self.queries[layer, (scale - regions["q"][0]) // plan.chunk] = queries, scales


def cached(
    plan: Plan, memory: npt.NDArray[np.uint8], layer: int, head: int, tokens: int
) -> tuple[Integers, Floats, Integers, Floats]:
    """INT8 keys [tokens, head] of a KV head and their scales [tokens], and values and theirs, out of the memory's bytes."""
    flat, rows = memory.reshape(-1).view(np.int8), plan.spec.matrix_rows
    token, element = np.arange(tokens)[:, None], np.arange(plan.head)
    base = plan.cache + layer * plan.cache_stride

    def word(name: str, words: npt.ArrayLike) -> Integers:
        return (base + plan.cache_offsets[name] + np.asarray(words)) * plan.spec.word_bytes

    at = word("key", head * plan.key_head + token // rows * plan.key_block_words + element // 4 * 2)
    keys = flat[at + 4 * (token % rows) + element % 4]
    row = head % plan.value_heads * plan.head + element
    block = head // plan.value_heads * plan.head_blocks + row // rows
    at = word("value", block * plan.value_words + token // 4 * 2)
    values = flat[at + 4 * (row % rows) + token % 4]
    scales = [
        flat[begin : begin + 4 * tokens].view(np.float32)
        for begin in (int(word(f"{name}_scale", head * plan.context_words)) for name in ("key", "value"))
    ]  # fmt: skip
    return keys.astype(np.int64), scales[0], values.astype(np.int64), scales[1]


def golden(
    queries: Integers, query_scale: Floats, cache: tuple[Integers, Floats, Integers, Floats],
    visible: npt.NDArray[np.bool_],
) -> Floats:  # fmt: skip
    """Attention of some queries to all keys of which they see what `visible` [queries, keys] says: FP32 [queries, head]."""
    keys, key_scale, values, value_scale = cache
    scores = floating.multiply(floating.from_integer(queries @ keys.T), query_scale[:, None])
    scores = floating.multiply(scores, key_scale)
    highest = np.where(visible, scores, -np.inf).max(axis=1, keepdims=True)
    powers = functions.exponential2(floating.add(scores, -highest))
    # Fixed point, so that the order of the sum does not matter.
    parts = np.where(visible, floating.to_integer(powers, 48, 30), 0)
    total = floating.from_integer(parts.sum(axis=1, keepdims=True), 30)
    weights = np.where(visible, floating.multiply(powers, value_scale), np.float32(0))
    step = floating.multiply(np.abs(weights).max(axis=1, keepdims=True), np.float32(1 / 127))
    integers = floating.to_integer(floating.multiply(weights, functions.reciprocal(step)), 8)
    scale = floating.multiply(step, functions.reciprocal(total))
    return floating.multiply(floating.from_integer(integers.astype(np.int64) @ values), scale)


def check_prefill(plan: Plan, prompt: list[int], mask: AttentionMask | None) -> None:
    """Run a prompt; attention of every token, layer and head must be that of a dense matrix, bit for bit."""
    program = assemble(synthetic_model(plan.config), plan, plan.setting.recipe)
    machine = WatchedMachine(program)
    machine.watch(plan)
    state, _ = machine.run(prompt, 2)
    tokens, layers = len(prompt) - 1, plan.config.layers
    visible = dense_mask(mask, tokens)
    heads = [
        (together * plan.value_heads + part, block, g)
        for together in range(-(-plan.kv_heads // plan.value_heads))
        for block in range(plan.head_blocks)
        for part in range(min(plan.value_heads, plan.kv_heads - together * plan.value_heads))
        for g in range(plan.groups)
    ]
    rows = plan.spec.matrix_rows
    for begin in range(0, tokens, plan.chunk):
        some = slice(begin, min(tokens, begin + plan.chunk))
        for layer in range(layers):
            number = begin // plan.chunk * layers + layer
            for product, (head, block, g) in enumerate(heads):
                found = machine.attention[number * len(heads) + product]
                queries = machine.queries[number, head * plan.groups + g]
                cache = cached(plan, state.memory, layer, head, tokens)
                own = slice(block * rows, min(plan.head, (block + 1) * rows))
                first = head % plan.value_heads * plan.head
                wanted = golden(*queries, cache, visible[some])[:, own]
                assert found[:, first : first + wanted.shape[1]].tolist() == wanted.tolist(), (
                    f"tokens from {begin}, layer {layer}, head {head}, block {block}"
                )


def prompt_of(tokens: int) -> list[int]:
    return [(7 * i + i // 3) % 80 for i in range(tokens)]


MASKS = [
    None,
    AttentionMask(16, 1, 2),
    AttentionMask(16, 0, 1),
    AttentionMask(16, 2, 1),
    AttentionMask(32, 1, 1),
]


@pytest.mark.parametrize("mask", MASKS, ids=str)
@pytest.mark.parametrize("heads", [(4, 2, 8), (3, 3, 16), (2, 1, 24)], ids=str)
def test_attention_is_that_of_a_dense_matrix(
    heads: tuple[int, int, int], mask: AttentionMask | None
) -> None:
    plan = planned(shape(*heads), wide("small"), mask, 8)
    assert plan.mask == mask
    # The last chunk is ragged; block and chunk end together, or not.
    for tokens in (86, 65, 7):
        check_prefill(plan, prompt_of(tokens), mask)
