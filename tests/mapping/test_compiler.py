"""The compiler: everything has a place of its own, and what the program computes is the model."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from emulator.machine import Machine
from emulator.timing import TimingEngine
from hw.spec.errors import InputError
from hw.spec.instructions import Unit
from hw.spec.layout import unpack_scales, unpack_weights
from hw.spec.machine_file import load_machine
from hw.spec.machine_limits import check_machine
from hw.spec.program import Program
from hw.spec.targets import list_targets
from mapping.compiler import assemble, compile_instructions, compile_model, lower, plan_model
from mapping.frontend.config import FLIGHT_ARCHITECTURES, ModelConfig
from mapping.frontend.model import KnownModel, Model, list_models, load_model, synthetic_model
from mapping.losses import dequantized_weights, fake_quantize
from mapping.lowering.geometry import Geometry
from mapping.lowering.plan import Plan
from mapping.lowering.regions import Regions
from mapping.lowering.tiles import CREDITS, MatrixPlan
from mapping.packing import compress_model, core_part, pack_matrix, restore
from mapping.passes.pipeline import compile_graph
from mapping.passes.setting import Setting
from mapping.recipe import BlockFormats, Recipe, WeightFormat, list_recipes, load_recipe
from mapping.reference import FloatReference

FIXTURES = Path(__file__).parent / "fixtures"
EVERY_FORMAT = load_recipe(str(Path(__file__).parent / "every_format.yaml"))
CHECKPOINTS = sorted(path.name for path in FIXTURES.iterdir())
CONTEXT = 32

SHAPES: dict[str, dict[str, int]] = {
    "one head": {"heads": 1, "kv_heads": 1, "head_dim": 2, "hidden_size": 1, "intermediate_size": 1, "vocabulary_size": 2},
    "odd": {"heads": 5, "kv_heads": 5, "head_dim": 6, "hidden_size": 33, "intermediate_size": 7, "vocabulary_size": 101},
    "many for one": {"heads": 7, "kv_heads": 1, "head_dim": 10, "hidden_size": 50, "intermediate_size": 130, "vocabulary_size": 257},
    "wide": {"heads": 2, "kv_heads": 2, "head_dim": 64, "hidden_size": 300, "intermediate_size": 900, "vocabulary_size": 500},
    "many layers": {"heads": 4, "kv_heads": 2, "head_dim": 8, "hidden_size": 32, "intermediate_size": 48, "layers": 40},
}  # fmt: skip


def shape(name: str) -> ModelConfig:
    fields: dict[str, Any] = {"layers": 2, "vocabulary_size": 64} | SHAPES[name]
    return ModelConfig(
        name=name, architecture="LlamaForCausalLM", rms_norm_eps=1e-5, rope_theta=1e4, tie_word_embeddings=True,
        maximum_positions=64, bos_token_ids=(0,), eos_token_ids=(), activation="silu", **fields,
    )  # fmt: skip


def mixed_recipe() -> Recipe:
    """Layers of different formats: several segments."""
    overrides = (
        ("layers.0.*", WeightFormat(8, None)),
        ("*.down_proj", WeightFormat(8, 64)),
        ("layers.*.self_attn.o_proj", WeightFormat(4, 16)),
        ("lm_head", WeightFormat(4, 8)),
    )
    return Recipe("mixed", WeightFormat(4, 32), overrides)


RECIPES = {name: load_recipe(name) for name in ("w4a8", "w4a8-g128", "w8a8")} | {
    "mixed": mixed_recipe()
}
"""Those that every target can run."""
COMPRESSED = {
    name: recipe
    for name in list_recipes()
    if name not in RECIPES
    and (recipe := load_recipe(name)).average_bits is None
    and recipe.pruning == "magnitude"
    and "g128" not in str(recipe.weights)
} | {"every format": EVERY_FORMAT}
"""Those of the target that is built with every format."""
ALL_RECIPES = RECIPES | COMPRESSED


def assert_apart(regions: Regions, room: int | None = None) -> None:
    """No two regions share an address, and none is outside."""
    ends = []
    for phase in regions.phases or [set()]:
        others = set().union(*regions.phases) - phase
        end = 0
        for start, length in sorted(regions.taken[n] for n in regions.taken if n not in others):
            assert start >= end and length > 0
            end = start + length
        ends.append(end)
    assert max(ends) == regions.used <= (regions.size if room is None else room)


def assert_whole(matrix: MatrixPlan, plan: Plan) -> None:
    """Parts cover the outputs and pieces the inputs; tiles cover a part once and fit the rings beside each other."""
    spec = plan.spec
    assert matrix.blocks * spec.matrix_rows >= matrix.rows > (matrix.blocks - 1) * spec.matrix_rows
    block = words = rows = 0
    for part in matrix.parts:
        assert (part.first_block, part.offset) == (block, words)
        block, words, rows = block + part.blocks, words + part.words, rows + part.rows
        column = 0
        for piece in part.pieces:
            step = piece.format.step
            assert piece.first == column and piece.first % step.alignment == 0
            column += piece.columns
            assert piece.steps * step.span >= piece.columns > 0
            assert piece.steps % piece.group_steps == 0
        assert column == matrix.columns
        if matrix.wired:
            assert (part.tiles, len(matrix.parts), matrix.words) == (1, 1, 0)
            continue
        # While one tile is multiplied, the next one is loaded.
        assert 2 * part.tile_credits <= plan.credits
        held = part.tile_blocks * plan.credits / part.tile_credits
        assert held * part.block_words <= spec.stream_words
        assert held * part.block_scale_words <= spec.scale_words
        assert (part.tiles - 1) * part.tile_blocks < part.blocks <= part.tiles * part.tile_blocks
    assert (block, rows) == (matrix.blocks, matrix.rows)
    assert matrix.wired or words == matrix.words


def assert_planned(plan: Plan) -> None:
    spec, config = plan.spec, plan.config
    for regions in (
        plan.memory,
        plan.input,
        plan.vector,
        plan.result,
        plan.activation,
        plan.store,
        plan.scalars,
        plan.matrix_scales,
    ):
        assert_apart(regions)
    assert sum(segment.layers for segment in plan.segments) == config.layers
    layer = 0
    for segment in plan.segments:
        assert segment.first == layer
        layer += segment.layers
        ends = {
            name: segment.offsets[name] + matrix.words
            for name, matrix in segment.streams.items()
            if not matrix.wired
        }
        ends |= {
            name: offset + plan.parameters[name].words
            for name, offset in segment.offsets.items()
            if name not in ends
        }
        end = 0
        for name, offset in sorted(segment.offsets.items(), key=lambda item: item[1]):
            assert offset >= end
            end = ends[name]
        assert end <= segment.stride
        for matrix in segment.matrices.values():
            assert_whole(matrix, plan)
    assert_whole(plan.head_matrix, plan)
    assert plan.head >= config.head_dim and plan.head % (2 * spec.granule) == 0
    # An embedding row splits into bursts alike, whatever the token.
    starts = {plan.embedding_stride * token % spec.burst_beats for token in range(257)}
    crossings = {(start + plan.hidden_words - 1) // spec.burst_beats for start in starts}
    assert len(crossings) == 1


@pytest.mark.parametrize(
    "target, recipe",
    [(target, recipe) for target in ("tiny", "small", "large") for recipe in RECIPES]
    + [("tiny-sparse", recipe) for recipe in COMPRESSED],
)
@pytest.mark.parametrize("name", SHAPES)
def test_odd_shapes_are_planned_and_run(name: str, target: str, recipe: str) -> None:
    plan = plan_model(shape(name), load_machine(target), ALL_RECIPES[recipe], 64)
    assert_planned(plan)
    program = compile_instructions(plan)
    cycles = [TimingEngine(program).run(*lengths).cycles for lengths in ((1, 1), (3, 2), (40, 24))]
    assert cycles == sorted(cycles)


@pytest.mark.parametrize("recipe", list_recipes())
@pytest.mark.parametrize("target", list_targets())
@pytest.mark.parametrize(
    "known",
    [known for known in list_models() if known.config.architecture in FLIGHT_ARCHITECTURES],
    ids=lambda known: known.name,
)
def test_every_known_model_on_every_target_fits_or_says_by_how_much(
    known: KnownModel, target: str, recipe: str
) -> None:
    config, spec = known.config, load_machine(target)
    try:
        plan = plan_model(
            config, spec, load_recipe(recipe), min(256, config.maximum_positions, spec.tokens)
        )
    except InputError as refusal:
        masked = f"recipe {recipe}: attention_mask: "
        if str(refusal).startswith(masked):
            # Blocks, or chunks of the prompt, that the target cannot do: which one, and what it would need.
            assert "expected" in str(refusal) and "found" in str(refusal) and target in str(refusal)
            return
        assert str(refusal).startswith(f"target {target}: ")
        assert "the target has" in str(refusal)
        return
    assert_planned(plan)
    words = lower(plan)
    assert all(0 < len(words[unit]) <= spec.instructions for unit in Unit)


def test_a_known_model_of_a_billion_weights_fits_the_large_target() -> None:
    config = load_model("tinyllama-1.1b").config
    program = compile_instructions(
        plan_model(config, load_machine("large"), load_recipe("w4a8"), 2048)
    )
    # One program serves every length, in kilobytes.
    assert program.instruction_bytes < 32_000


PACKED = [(target, recipe) for target in ("tiny", "small") for recipe in RECIPES]
PACKED += [("tiny-sparse", "every format"), ("two cores", "every format")]


@pytest.mark.parametrize("target, recipe", PACKED)
def test_packed_matrices_hold_the_quantized_weights(target: str, recipe: str) -> None:
    model = load_model(FIXTURES / "grouped_odd_f16")
    spec = (
        dataclasses.replace(load_machine("tiny-sparse"), cores=2)
        if target == "two cores"
        else load_machine(target)
    )
    plan = plan_model(model.config, spec, ALL_RECIPES[recipe], CONTEXT)
    for tensor, pieces in compress_model(model, plan).items():
        name = tensor if tensor == "lm_head" else tensor.split(".", 2)[2]
        matrix = plan.head_matrix if name == "lm_head" else plan.segments[0].matrices[name]
        whole = restore(matrix, pieces, plan)
        for core in range(plan.cores):
            image = pack_matrix(core_part(pieces, plan, core), matrix, plan)
            assert len(image) == matrix.words
            found = unpack(image, matrix, plan)
            rows = slice(core * matrix.rows, (core + 1) * matrix.rows)
            if name == "lm_head":
                rows = slice(core, None, plan.cores)
            np.testing.assert_array_equal(found, whole[rows])


def unpack(image: npt.NDArray[np.uint8], matrix: MatrixPlan, plan: Plan) -> npt.NDArray[np.float32]:
    """The weights of a matrix from its words, block by block as the machine reads them."""
    spec = plan.spec
    found = np.zeros((matrix.blocks * spec.matrix_rows, matrix.columns), np.float32)
    for part in matrix.parts:
        for block in range(part.blocks):
            tile, within = divmod(block, part.tile_blocks)
            begin = part.offset + tile * part.tile_words
            scale_at = begin + within * part.block_scale_words
            at = begin + part.tile_blocks * part.block_scale_words + within * part.block_words
            first = (part.first_block + block) * spec.matrix_rows
            for piece in part.pieces:
                inputs = piece.steps * piece.format.step.span
                shape = (spec.matrix_rows, inputs)
                words = image[at : at + piece.block_words]
                values = unpack_weights(words, *shape, piece.format.step, spec)
                groups = piece.block_scale_words
                scales = unpack_scales(
                    image[scale_at : scale_at + groups], spec.matrix_rows, groups, spec
                )
                weights = values * np.repeat(scales.astype(np.float32), inputs // groups, axis=1)
                columns = slice(piece.first, piece.first + piece.columns)
                found[first : first + spec.matrix_rows, columns] = weights[:, : piece.columns]
                at, scale_at = at + piece.block_words, scale_at + groups
    return found[: matrix.rows]


# What the program computes.


@functools.cache
def compiled(name: str, target: str, recipe: str) -> tuple[Model, Plan, Program]:
    model = load_model(FIXTURES / name)
    spec = load_machine(target)
    # The large target has more memory than most computers.
    words = min(spec.memory.words, 1 << 19)
    spec = dataclasses.replace(spec, memory=dataclasses.replace(spec.memory, words=words))
    formats = ALL_RECIPES[recipe]
    if model.config.opt:
        # It has no gate to name.
        named = [override for override in formats.overrides if "gate" not in override[0]]
        formats = dataclasses.replace(formats, overrides=tuple(named))
    plan = plan_model(model.config, spec, formats, CONTEXT)
    return model, plan, compile_model(model, spec, formats, CONTEXT)


@functools.cache
def exact_logits(name: str, target: str, recipe: str, count: int = 20) -> npt.NDArray[np.float32]:
    """Logits along the text of the fixture, as the machine computes them: float32 [count, vocabulary]."""
    _, _, program = compiled(name, target, recipe)
    with np.load(FIXTURES / name / "expected.npz") as stored:
        tokens = [int(token) for token in stored["token_ids"][: count + 1]]
    vocabulary, first = program.information["vocabulary_size"], program.information["logits"]
    rows = -(-vocabulary // program.machine.lanes)
    found = []
    for step, state in enumerate(
        Machine(program, trace=False).steps([tokens[0]], count, forced=tokens[1:])
    ):
        if step:
            found.append(state.result[first : first + rows].reshape(-1)[:vocabulary].copy())
    return np.array(found)


@pytest.mark.parametrize(
    "target, recipe",
    [("small", recipe) for recipe in RECIPES] + [("tiny-sparse", recipe) for recipe in COMPRESSED],
)
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_logits_are_those_of_the_compressed_model(name: str, target: str, recipe: str) -> None:
    model, plan, _ = compiled(name, target, recipe)
    with np.load(FIXTURES / name / "expected.npz") as stored:
        tokens, original = stored["token_ids"][:20], stored["logits"][:20]
    reference = FloatReference(
        model, overrides=dequantized_weights(model, plan), activation_hook=fake_quantize
    )
    expected = reference.logits(tokens)
    found = exact_logits(name, target, recipe)
    spread = float(np.std(expected))
    distance = float(np.sqrt(np.mean(np.square(found - expected))))
    assert distance < 0.06 * spread
    # And to the original model as near as the compression itself is.
    cost = float(np.sqrt(np.mean(np.square(expected - original))))
    assert abs(float(np.sqrt(np.mean(np.square(found - original)))) - cost) < 0.04 * spread


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_every_target_computes_the_same_bits(name: str, recipe: str) -> None:
    small, tiny = exact_logits(name, "small", recipe), exact_logits(name, "tiny", recipe)
    np.testing.assert_array_equal(small.view(np.uint32), tiny.view(np.uint32))


@pytest.mark.parametrize("name", ["grouped_odd_f16", "linear_untied_f32"])
def test_every_target_generates_the_same_tokens(name: str) -> None:
    prompt = [5, 17, 30, 2]
    generated = []
    for target in ("tiny", "small", "large"):
        state, _ = Machine(compiled(name, target, "w8a8")[2], trace=False).run(prompt, 12)
        generated.append(state.tokens[: len(prompt) + 12].tolist())
        assert generated[-1][: len(prompt)] == prompt
    assert generated[0] == generated[1] == generated[2]


@pytest.mark.parametrize("chunk", [0, 2])
@pytest.mark.parametrize("changes", [{}, {"matrix_columns": 2}, {"cores": 2}], ids=str)
@pytest.mark.parametrize("name", ["grouped_odd_f16", "linear_untied_f32"])
def test_lanes_cores_and_chunks_change_no_token_of_a_model_of_every_format(
    name: str, changes: dict[str, int], chunk: int
) -> None:
    prompt = [5, 17, 30, 2, 9, 11, 3, 8, 1, 20, 21]
    model, _, program = compiled(name, "tiny-sparse", "every format")
    plain, _ = Machine(program, trace=False).run(prompt, 9)
    spec = dataclasses.replace(load_machine("tiny-sparse"), **LARGE_BUFFERS | changes)
    setting = Setting(Geometry(model.config, spec), EVERY_FORMAT, CREDITS[0])
    graph = compile_graph(setting)
    if chunk > spec.matrix_columns:
        with pytest.raises(InputError, match="matrix_columns: blocks along inputs meet at most 1"):
            Plan(graph, setting, CONTEXT, chunk)
        return
    plan = Plan(graph, setting, CONTEXT, chunk)
    assert_planned(plan)
    if "cores" in changes:
        # Heads and outputs end elsewhere, and so do the blocks that the recipe's shares are rounded to.
        assert Machine(assemble(model, plan, EVERY_FORMAT), trace=False).run(prompt, 9)[0].end
        return
    state, _ = Machine(assemble(model, plan, EVERY_FORMAT), trace=False).run(prompt, 9)
    assert state.tokens[:20].tolist() == plain.tokens[:20].tolist()


def test_the_output_head_has_one_format_along_its_outputs() -> None:
    halves = BlockFormats("outputs", ((0.5, WeightFormat(8, 32)), (0.5, WeightFormat(4, 32))))
    with pytest.raises(InputError, match="recipe r: lm_head: expected one format along"):
        plan_model(shape("wide"), load_machine("tiny-sparse"), Recipe("r", halves), 32)


def test_a_stop_token_ends_the_run_with_itself() -> None:
    _, _, program = compiled("linear_untied_f32", "tiny", "w8a8")
    state, _ = Machine(program).run([1, 2, 3], 10)
    whole = state.tokens[3:13].tolist()
    stop = whole[4]
    state, _ = Machine(program).run([1, 2, 3], 10, (stop,))
    length = whole.index(stop) + 1
    assert state.tokens[3 : 3 + length].tolist() == whole[:length]
    assert not state.tokens[3 + length :].any()
    assert state.end


def test_prefill_equals_one_token_after_another() -> None:
    _, _, program = compiled("tied_f32", "tiny", "w8a8")
    state, _ = Machine(program).run([7], 9)
    tokens = state.tokens[:10].tolist()
    for split in (2, 5, 8):
        state, _ = Machine(program).run(tokens[:split], 10 - split)
        assert state.tokens[:10].tolist() == tokens


LARGE_BUFFERS = {
    "vector_rows": 16384, "activation_rows": 4096, "result_rows": 16384, "matrix_scales": 512, "input_words": 4096,
    "instructions": 1024, "scalars": 256, "store_rows": 2048, "stream_words": 8192,
}  # fmt: skip
MACHINES: dict[str, dict[str, int]] = {
    "two columns": {"matrix_columns": 2},
    "few lanes": {"vector_lanes": 2, "drain_lanes": 2},
    "words of many heads": {"channels": 16, "vector_lanes": 8, "drain_lanes": 4},
    "two cores": {"cores": 2},
    "three cores": {"cores": 3, "channels": 8, "vector_lanes": 8, "matrix_columns": 2},
}


@pytest.mark.parametrize("chunk", [0, 2, 8])
@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", ["grouped_odd_f16", "linear_untied_f32", "opt_odd_untied_f16"])
def test_lanes_columns_cores_and_chunks_of_prefill_change_no_token(
    name: str, machine: str, chunk: int
) -> None:
    model, recipe = load_model(FIXTURES / name), RECIPES["w4a8"]
    prompt = [5, 17, 30, 2, 9, 11, 3, 8, 1, 20, 21]
    plain, _ = Machine(compiled(name, "small", "w4a8")[2], trace=False).run(prompt, 9)
    spec = dataclasses.replace(load_machine("small"), **LARGE_BUFFERS | MACHINES[machine])
    check_machine(spec, machine)
    setting = Setting(Geometry(model.config, spec), recipe, CREDITS[0])
    plan = Plan(compile_graph(setting), setting, CONTEXT, chunk)
    assert_planned(plan)
    state, _ = Machine(assemble(model, plan, recipe), trace=False).run(prompt, 9)
    assert state.tokens[:20].tolist() == plain.tokens[:20].tolist()


def test_the_program_does_not_depend_on_the_lengths_of_a_run() -> None:
    _, _, program = compiled("tied_f32", "tiny", "w8a8")
    engine = TimingEngine(program)
    for prompt, tokens in ((1, 1), (1, 31), (31, 1), (16, 16)):
        state, _ = Machine(program, trace=False).run([3] * prompt, tokens)
        assert state.end
        assert engine.run(prompt, tokens).cycles > 0


def test_a_program_tells_the_host_what_it_needs() -> None:
    model, plan, program = compiled("grouped_odd_f16", "tiny", "mixed")
    information = program.information
    assert information["vocabulary_size"] == model.config.vocabulary_size
    assert information["context"] == plan.context >= CONTEXT
    assert information["stop_tokens"] == list(model.config.eos_token_ids)
    assert (information["model"], information["recipe"]) == ("grouped_odd_f16", "mixed")
    assert "tokenizer" not in information
    assert set(information["matrices"]) == set(plan.segments[0].matrices)


def test_synthetic_weights_are_said_to_be_so() -> None:
    model = synthetic_model(shape("odd"))
    program = compile_model(model, load_machine("tiny"), load_recipe("w4a8"), 16)
    assert program.information["synthetic"] is True


def test_a_longer_context_takes_more_memory_and_says_when_it_is_too_much() -> None:
    spec = load_machine("tiny")
    config = dataclasses.replace(shape("odd"), maximum_positions=100_000)
    short, long = (plan_model(config, spec, load_recipe("w8a8"), n).memory.used for n in (64, 256))
    assert short < long
    with pytest.raises(
        InputError, match="input_words: the model needs [0-9]+, the target has 2048"
    ):
        plan_model(config, spec, load_recipe("w8a8"), 512)
