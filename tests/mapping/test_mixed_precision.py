"""Mixed precision and calibration: the mean that was asked for, spent where it helps, on what a text shows."""

import dataclasses
import itertools
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

import mapping.calibration as calibration
from hw.spec.errors import InputError
from hw.spec.machine_file import load_machine
from mapping.calibration import calibration_tokens, input_norms, loss_on
from mapping.compiler import compile_model, plan_model
from mapping.estimate import estimate, weight_bits_per_parameter
from mapping.formats import BlockFormats, MatrixFormat, WeightFormat
from mapping.frontend.model import MODELS_FOLDER, Model, load_model
from mapping.frontend.weights import tensor_shapes
from mapping.losses import dequantized_weights
from mapping.mixed_precision import Unit, choose, default_losses, settle_recipe
from mapping.recipe import Recipe, load_recipe, recipe_from_dict

CANDIDATES = [WeightFormat(bits, 64) for bits in (2, 3, 4, 5)]
HEAD = (("lm_head", WeightFormat(8, None)),)


@pytest.fixture
def pydoc(monkeypatch: pytest.MonkeyPatch) -> Model:
    monkeypatch.setattr(calibration, "CALIBRATION_TOKENS", 320)
    monkeypatch.setattr(calibration, "LOSS_TOKENS", 256)
    return load_model("pydoc-llama")


def mean_bits(recipe: Recipe, model_name: str) -> float:
    """Mean over all weights but the embeddings, by the sizes of formats written out."""
    config = load_model(model_name).config
    shapes = tensor_shapes(config)
    shapes["lm_head"] = shapes.pop("embed_tokens")
    bits = weights = 0.0
    for name, shape in shapes.items():
        if len(shape) < 2:
            continue
        format = recipe.format_of(name)
        parts = format.parts if isinstance(format, BlockFormats) else ((1.0, format),)
        for share, part in parts:
            stored = 3 if part.kept == 8 and part.bits == 4 else part.bits
            bits += share * math.prod(shape) * (stored + 16 / (part.group or shape[1]))
        weights += math.prod(shape)
    return bits / weights


@pytest.mark.parametrize("seed", range(20))
def test_the_choice_is_as_good_as_any_of_whole_matrices(seed: int) -> None:
    generator = np.random.default_rng(seed)
    units = [Unit((f"m{i}",), int(generator.integers(1, 50)) * 64, 64) for i in range(5)]
    losses = {}
    for unit in units:
        sensitivity = 10 ** generator.uniform(-2, 1)
        # Convex in the bits, as errors are.
        losses[unit] = [sensitivity * 4.0**-c.bits for c in CANDIDATES]
    total = sum(unit.weights for unit in units)
    average = generator.uniform(2.3, 5.2)
    chosen = choose(losses, CANDIDATES, average * total, "here", total)

    def level(format: MatrixFormat) -> list[tuple[float, int]]:
        parts = format.parts if isinstance(format, BlockFormats) else ((1.0, format),)
        return [(share, CANDIDATES.index(part)) for share, part in parts]

    bits = sum(
        share * CANDIDATES[i].bits_per_weight(64) * u.weights
        for u, f in chosen
        for share, i in level(f)
    )
    found = sum(share * losses[u][i] for u, f in chosen for share, i in level(f))
    assert bits <= average * total * (1 + 1e-9)
    if average < 5.25:
        # A share of a matrix below one in a hundred stays unused.
        assert bits > (average - 0.03) * total
    best = math.inf
    for indices in itertools.product(range(4), repeat=5):
        taken = sum(
            CANDIDATES[i].bits_per_weight(64) * u.weights
            for u, i in zip(units, indices, strict=True)
        )
        if taken <= bits:
            best = min(best, sum(losses[u][i] for u, i in zip(units, indices, strict=True)))
    assert found <= best * (1 + 1e-9)


def test_the_output_head_is_never_split() -> None:
    units = [Unit(("lm_head",), 640, 64), Unit(("m",), 64, 64)]
    losses = {units[0]: [9.0, 3.0, 1.0, 0.5], units[1]: [0.4, 0.1, 0.02, 0.01]}
    for average in np.linspace(2.3, 5, 17):
        chosen = dict(choose(losses, CANDIDATES, average * 704, "here", 704))
        assert isinstance(chosen[units[0]], WeightFormat)


@pytest.mark.parametrize("name", ["flightllm-paper", "mixed-3.5"])
@pytest.mark.parametrize("model", ["llama-2-7b", "tinyllama-1.1b", "llama-3-8b"])
def test_a_known_configuration_gets_the_mean_without_weights(name: str, model: str) -> None:
    recipe = load_recipe(name)
    settled = settle_recipe(recipe, load_model(model).config)
    assert settled.average_bits is None
    assert 3.49 < mean_bits(settled, model) <= 3.5 + 1e-9
    bits = {kind: settled.format_of(f"layers.3.{kind}") for kind in (
        "self_attn.v_proj", "self_attn.q_proj")}  # fmt: skip
    assert bits["self_attn.v_proj"].bits_per_weight(4096) > bits[
        "self_attn.q_proj"
    ].bits_per_weight(4096)
    assert settle_recipe(settled, load_model(model).config) is settled


def test_overrides_stay_and_count() -> None:
    content = {
        "average_bits": 4.2,
        "candidates": [{"bits": bits, "group": 64} for bits in (2, 3, 4, 5)],
        "overrides": [
            {"tensor": "lm_head", "bits": 8, "group": "channel"},
            {"tensor": "layers.0.*", "bits": 8, "group": 64},
        ],
    }
    recipe = recipe_from_dict(content, "mine.yaml")
    settled = settle_recipe(recipe, load_model("tinyllama-1.1b").config)
    assert settled.format_of("lm_head") == WeightFormat(8, None)
    assert settled.format_of("layers.0.mlp.up_proj") == WeightFormat(8, 64)
    assert 4.19 < mean_bits(settled, "tinyllama-1.1b") <= 4.2 + 1e-9
    with pytest.raises(
        InputError,
        match=r"recipe mine: average_bits: the smallest candidates take [0-9.]+ bits a weight more",
    ):
        settle_recipe(
            recipe_from_dict(content | {"average_bits": 2.25}, "mine.yaml"),
            load_model("tinyllama-1.1b").config,
        )


def test_the_bundled_recipes_of_flightllm() -> None:
    artifact = load_recipe("flightllm-artifact")
    config = load_model("llama-2-7b").config
    for name in ("q", "k"):
        format = artifact.format_of(f"layers.7.self_attn.{name}_proj")
        assert isinstance(format, BlockFormats)
        density = sum(share * (part.kept or 16) / 16 for share, part in format.parts)
        assert density == pytest.approx(0.7)
    machine = load_machine("u280")
    # A machine without sparse multiplexers streams pruned weights as zeros.
    for sparse, bits in ((1, 4.09), (0, 4.17)):
        plan = plan_model(config, dataclasses.replace(machine, sparse=sparse), artifact, 640)
        assert weight_bits_per_parameter(plan) == pytest.approx(bits, abs=0.01)
    for name, least in (("flightllm-artifact", 115), ("flightllm-paper", 125)):
        facts = estimate(config, machine, load_recipe(name), 128, 3)
        assert facts["decode_tokens_per_second"] > least
    assert facts["weight_bits_per_parameter"] == pytest.approx(3.5, abs=0.06)


def test_measured_sensitivities_spend_bits_where_they_help(pydoc: Model) -> None:
    content = {
        "average_bits": 3.5,
        "candidates": [{"bits": bits, "group": 64} for bits in (2, 3, 4, 5)],
    }
    recipe = settle_recipe(recipe_from_dict(content, "mine.yaml"), pydoc.config, pydoc)
    assert 3.48 < mean_bits(recipe, "pydoc-llama") <= 3.5 + 1e-9
    kinds = {
        kind: recipe.format_of(f"layers.0.self_attn.{kind}").bits_per_weight(128)
        for kind in ("q_proj", "k_proj", "v_proj", "o_proj")
    }
    assert kinds["v_proj"] + kinds["o_proj"] > kinds["q_proj"] + kinds["k_proj"] + 1
    program = compile_model(pydoc, load_machine("tiny-sparse"), recipe, 32)
    assert program.information["recipe"] == "mine"
    plan = plan_model(pydoc.config, load_machine("tiny-sparse"), recipe, 32)
    # 352 inputs of down_proj become whole groups, 384.
    assert 3.5 < weight_bits_per_parameter(plan) < 3.65


def test_each_matrix_can_have_a_format_of_its_own() -> None:
    content = {
        "average_bits": 3.5,
        "candidates": [{"bits": bits, "group": 64} for bits in (3, 4)],
        "granularity": "matrix",
    }
    config = load_model("tinyllama-1.1b").config
    recipe = settle_recipe(recipe_from_dict(content, "mine.yaml"), config)
    gates = {recipe.format_of(f"layers.{i}.mlp.gate_proj") for i in range(config.layers)}
    assert {WeightFormat(3, 64), WeightFormat(4, 64)} & gates and len(gates) > 1


def test_defaults_follow_sensitivity_and_size() -> None:
    unit = Unit(("layers.0.self_attn.v_proj", "layers.1.self_attn.v_proj"), 100, 64)
    other = Unit(("layers.0.self_attn.q_proj",), 100, 64)
    losses = default_losses([unit, other], CANDIDATES)
    assert losses[unit] == pytest.approx([8 * loss for loss in losses[other]])
    assert losses[unit] == sorted(losses[unit], reverse=True)


# Calibration.


def test_norms_are_those_of_the_inputs(pydoc: Model) -> None:
    tokens = calibration_tokens(pydoc, "test")
    norms = input_norms(pydoc, tokens)
    rows = pydoc.tensor("embed_tokens")[tokens].astype(np.float64)
    rows /= np.sqrt(np.mean(rows**2, axis=1, keepdims=True) + pydoc.config.rms_norm_eps)
    rows *= pydoc.tensor("layers.0.input_layernorm")
    expected = np.sqrt(np.mean(rows**2, axis=0))
    for name in ("q_proj", "k_proj", "v_proj"):
        np.testing.assert_allclose(norms[f"layers.0.self_attn.{name}"], expected, rtol=1e-4)
    assert set(norms) == {
        *(n for n in tensor_shapes(pydoc.config) if n.endswith("_proj")), "lm_head"
    }  # fmt: skip
    for name, norm in norms.items():
        assert norm.shape == pydoc.tensor(name).shape[1:] and (norm > 0).all()


def test_weights_pruned_by_activations_lose_less(pydoc: Model) -> None:
    text = (MODELS_FOLDER / "pydoc-llama" / "heldout.txt").read_text(encoding="utf-8")
    tokens = list(pydoc.tokenizer.encode(text))[:256]
    sparse, machine = WeightFormat(4, 32, "integer", 4), load_machine("tiny-sparse")
    losses = {}
    for pruning in ("magnitude", "activations"):
        recipe = Recipe("sparse", sparse, HEAD, pruning=pruning)
        plan = plan_model(pydoc.config, machine, recipe, 32)
        losses[pruning] = loss_on(pydoc, tokens, dequantized_weights(pydoc, plan))
    plain = loss_on(pydoc, tokens)
    assert plain + 1 < losses["activations"] < losses["magnitude"] - 0.2


@pytest.mark.parametrize("recipe", ["w4a8-8of16-activations", "mixed-3.5"])
def test_a_model_without_a_calibration_text(recipe: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(MODELS_FOLDER / "pydoc-llama", tmp_path / "model"))
    (folder / "calibration.txt").unlink()
    with pytest.raises(InputError, match=r"needs a text to calibrate on: expected calibration.txt"):
        compile_model(load_model(folder), load_machine("tiny-sparse"), load_recipe(recipe), 32)
    (folder / "calibration.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"calibration.txt: expected UTF-8 text"):
        compile_model(load_model(folder), load_machine("tiny-sparse"), load_recipe(recipe), 32)
