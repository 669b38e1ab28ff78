"""Block-sparse attention in prefill: every bit of a compiled program's attention against a dense matrix of what is visible."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pytest

from emulator.machine import Machine
from emulator.numerics import floating, functions
from emulator.timing import TimingEngine
from hw.spec.errors import InputError
from hw.spec.instructions import Opcode, Unit, decode
from hw.spec.machine import MachineSpec
from hw.spec.machine_file import load_machine
from hw.spec.program import Program
from mapping.attention_mask import AttentionMask, HeadMasks
from mapping.compiler import assemble, compile_instructions, plan_model
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


def masks(*each: tuple[int, int, int]) -> HeadMasks:
    return HeadMasks(tuple(AttentionMask(*mask) for mask in each))


def planned(config: ModelConfig, spec: MachineSpec, mask: HeadMasks | None, chunk: int) -> Plan:
    recipe = dataclasses.replace(W8A8, attention_mask=mask)
    setting = Setting(Geometry(config, spec), recipe, 4)
    return Plan(compile_graph(setting), setting, CONTEXT, chunk)


def dense_mask(masks: HeadMasks | None, tokens: int, head: int) -> npt.NDArray[np.bool_]:
    """[T, T]: which key (column) each query (row) sees in a head, from a matrix of blocks."""
    causal = np.tri(tokens, dtype=bool)
    if masks is None:
        return causal
    mask = masks.masks[head % len(masks.masks)]
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


def check_prefill(plan: Plan, prompt: list[int], mask: HeadMasks | None) -> None:
    """Run a prompt; attention of every token, layer and head must be that of a dense matrix, bit for bit."""
    program = assemble(synthetic_model(plan.config), plan, plan.setting.recipe)
    machine = WatchedMachine(program)
    machine.watch(plan)
    state, _ = machine.run(prompt, 2)
    tokens, layers = len(prompt), plan.config.layers
    visible = [dense_mask(mask, tokens, head) for head in range(plan.heads)]
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
                wanted = golden(*queries, cache, visible[head * plan.groups + g][some])[:, own]
                assert found[:, first : first + wanted.shape[1]].tolist() == wanted.tolist(), (
                    f"tokens from {begin}, layer {layer}, head {head}, block {block}"
                )


def prompt_of(tokens: int) -> list[int]:
    return [(7 * i + i // 3) % 80 for i in range(tokens)]


MASKS = [
    None,
    masks((16, 1, 2)),
    masks((16, 0, 1)),
    masks((16, 2, 1)),
    masks((32, 1, 1)),
]


@pytest.mark.parametrize("mask", MASKS, ids=str)
@pytest.mark.parametrize("heads", [(4, 2, 8), (3, 3, 16), (2, 1, 24)], ids=str)
def test_attention_is_that_of_a_dense_matrix(
    heads: tuple[int, int, int], mask: HeadMasks | None
) -> None:
    plan = planned(shape(*heads), wide("small"), mask, 8)
    assert plan.hiding is None and plan.mask == (mask and mask.masks[0])
    # The last chunk is ragged; block and chunk end together, or not.
    for tokens in (86, 65, 7):
        check_prefill(plan, prompt_of(tokens), mask)


@pytest.mark.parametrize(
    "target, fields, mask, chunk",
    [
        ("small", {"matrix_columns": 2}, masks((16, 1, 2)), 16),
        ("tiny", {}, masks((4, 1, 3)), 2),
        ("tiny", {}, masks((8, 2, 1)), 8),
    ],
    ids=str,
)
def test_attention_on_other_machines(
    target: str, fields: dict[str, int], mask: HeadMasks, chunk: int
) -> None:
    plan = planned(shape(4, 2, 8), wide(target, **fields), mask, chunk)
    check_prefill(plan, prompt_of(84), mask)


@pytest.mark.parametrize(
    "target, fields, mask, chunk, loaded",
    [
        # Blocks of 4 in blocks of 16 keys: first keys and band begin within a block, and meet.
        ("small", {}, masks((4, 1, 2)), 4, (16, 1, 2)),
        ("small", {}, masks((8, 3, 4)), 8, (16, 2, 3)),
        ("tiny", {}, masks((2, 1, 1)), 2, (4, 1, 1)),
        # As many as there are heads, fewer, and more.
        ("small", {}, masks((16, 0, 1), (16, 2, 2), (16, 1, 3), (16, 0, 4)), 8, (16, 2, 4)),
        ("small", {}, masks((8, 0, 1), (8, 1, 5)), 8, (16, 1, 3)),
        ("small", {}, masks(*((4, i % 3, 1 + i) for i in range(7))), 4, (16, 1, 3)),
        # One that sees everything: all keys are loaded.
        ("small", {}, masks((16, 1, 1), (16, 0, 99)), 8, None),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_hidden_from_a_head_is_as_if_it_were_not_there(
    target: str, fields: dict[str, int], mask: HeadMasks, chunk: int, loaded: tuple[int, int, int] | None
) -> None:  # fmt: skip
    plan = planned(shape(4, 2, 8), wide(target, **fields), mask, chunk)
    assert plan.hiding == mask and plan.mask == (AttentionMask(*loaded) if loaded else None)
    for tokens in (86, 33, 7):
        check_prefill(plan, prompt_of(tokens), mask)


@pytest.mark.parametrize("first, tile", [(1, 2), (2, 2), (3, 1), (4, 2)])
def test_first_keys_are_whole_tiles_or_fewer_than_one(first: int, tile: int) -> None:
    """Long heads, so that a part of the ring holds two blocks of keys."""
    mask = masks((16, first, 1))
    plan = planned(shape(2, 1, 64), wide("small", stream_words=256), mask, 4)
    assert (plan.first_key_blocks, plan.key_tile_blocks) == (first, tile)
    check_prefill(plan, prompt_of(90), mask)


@pytest.mark.parametrize(
    "mask", [masks((16, 1, 1)), masks((8, 0, 1), (8, 1, 1), (8, 0, 3), (8, 2, 2))], ids=str
)
def test_chunks_of_other_cores_are_masked_alike(mask: HeadMasks) -> None:
    """Two cores, each with one KV head: the tokens are those of one core."""
    found = []
    for cores in (1, 2):
        plan = planned(shape(4, 2, 8), wide("small", cores=cores), mask, 8)
        program = assemble(synthetic_model(plan.config), plan, plan.setting.recipe)
        state, _ = Machine(program, trace=False).run(prompt_of(80), 12)
        found.append(state.tokens[:92].tolist())
    assert found[0] == found[1]


def instructions(mask: HeadMasks | None, context: int) -> Program:
    recipe = dataclasses.replace(W8A8, attention_mask=mask)
    return compile_instructions(plan_model(shape(4, 2, 8), wide("small"), recipe, context))


def test_a_mask_that_leaves_nothing_out_changes_no_instruction() -> None:
    def opcodes(program: Program) -> set[int]:
        return {decode(u, word)["opcode"] for u, words in program.instructions.items() for word in words}  # fmt: skip

    # Prompts of up to 127 tokens; token 112 is the first that does not see a block.
    mask = masks((16, 1, 6))
    dense = instructions(None, 112).instructions
    assert instructions(None, 112).information["context"] == 128
    assert Opcode.SKIP not in opcodes(instructions(None, 112))
    assert Opcode.SKIP in opcodes(instructions(mask, 112))
    for band in (7, 20, 1 << 18):
        assert instructions(masks((16, 1, band)), 112).instructions == dense


def test_what_is_skipped_takes_no_time() -> None:
    """The longer the prompt, the more is saved; and a wider band costs more."""
    dense, narrow, wider = (
        TimingEngine(instructions(mask, 256))
        for mask in (None, masks((16, 1, 2)), masks((16, 1, 6)))
    )
    saved = [dense.run(n, 1).cycles - narrow.run(n, 1).cycles for n in (100, 150, 200, 250)]
    assert 0 < saved[0] < saved[1] < saved[2] < saved[3]
    assert narrow.run(250, 1).cycles < wider.run(250, 1).cycles < dense.run(250, 1).cycles
    read = [engine.run(250, 1).bytes_read for engine in (narrow, wider, dense)]
    assert read[0] < read[1] < read[2]


def test_prompts_within_the_first_keys_read_as_much_as_without_a_mask() -> None:
    """First keys of two tiles, the second of which is loaded as far as there are tokens."""
    dense, masked = (
        planned(shape(2, 1, 64), wide("small", stream_words=256), mask, 4)
        for mask in (None, masks((16, 4, 1)))
    )
    assert masked.mask and (masked.first_key_blocks, masked.key_tile_blocks) == (4, 2)
    engines = [TimingEngine(compile_instructions(plan)) for plan in (dense, masked)]
    for tokens in (3, 17, 40, 65):
        read = [engine.run(tokens, 1).bytes_read for engine in engines]
        assert read[0] == read[1], tokens


@pytest.mark.parametrize(
    "target, mask, config, message",
    [
        ("tiny", masks((8, 1, 2)), (4, 2, 8), "takes 2 or more tokens of the prompt together, found tiny, .*matrix_scales"),
        ("hardwired-tiny", masks((16, 1, 1)), (4, 2, 8), "attention_mask: .*wires"),
    ],
    ids=["no chunk", "wires"],
)  # fmt: skip
def test_targets_that_cannot(
    target: str, mask: HeadMasks, config: tuple[int, int, int], message: str
) -> None:
    name = "w4a8-channel" if "hardwired" in target else "w8a8"
    recipe = dataclasses.replace(load_recipe(name), attention_mask=mask)
    with pytest.raises(InputError, match=message):
        plan_model(shape(*config), load_machine(target), recipe, CONTEXT)
