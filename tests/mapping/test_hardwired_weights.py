"""A small gpt-oss as wires: rounding to MXFP4, and the machine's arithmetic beside the float reference."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import lpu
from emulator.hardwired_system import numerics
from emulator.hardwired_system.accuracy import compare
from emulator.hardwired_system.forward import HardwiredForward, HardwiredModel
from emulator.hardwired_system.machine import Partition, Reduction, SystemMachine
from emulator.hardwired_system.variants import Variant, numeric_variants
from hw.spec.errors import InputError
from mapping.frontend import load_model
from mapping.frontend.model import MODELS_FOLDER
from mapping.hardwired import hardwired_weights, system_model
from mapping.hardwired_weights import hardwired_model, to_mxfp4
from mapping.reference_gpt_oss import GptOssReference

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])


@pytest.fixture(scope="module")
def wires() -> HardwiredModel:
    return hardwired_model(load_model("pydoc-gpt-oss"))


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    text = (MODELS_FOLDER / "pydoc-llama" / "heldout.txt").read_text(encoding="utf-8")
    ids = load_model("pydoc-gpt-oss").tokenizer.encode(text[:4000])
    return np.array(ids, np.int64)


def test_rounding_to_mxfp4_is_to_the_nearest() -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((40, 64)).astype(np.float32)
    weight *= np.ldexp(1, rng.integers(-9, 9, (40, 1)))
    weight[0, :32] = 0
    found = to_mxfp4(weight)
    values = found.values()
    scale = np.repeat(np.ldexp(1.0, found.exponents), 32, axis=1)
    every = np.concatenate([-E2M1, E2M1])[:, None, None] * scale
    nearest = np.abs(every - weight).min(axis=0)
    np.testing.assert_array_equal(np.abs(values - weight), nearest.astype(np.float32))
    largest = np.abs(weight).reshape(40, 2, 32).max(axis=2)
    with np.errstate(divide="ignore"):
        expected = np.floor(np.log2(largest)) - 2
    np.testing.assert_array_equal(found.exponents[1:], expected[1:])


def test_rounding_again_changes_nothing() -> None:
    weight = np.random.default_rng(1).standard_normal((8, 96)).astype(np.float32)
    once = to_mxfp4(weight).values()
    np.testing.assert_array_equal(to_mxfp4(once).values(), once)


def test_the_bundled_model_loses_nothing_as_wires(wires: HardwiredModel) -> None:
    model = load_model("pydoc-gpt-oss")
    for number, layer in enumerate(wires.layers):
        for linear, name in (
            (layer.queries, f"layers.{number}.self_attn.q_proj"),
            (layer.router, f"layers.{number}.mlp.router"),
        ):
            held = np.ldexp(linear.wires.weights.astype(np.float64), linear.wires.exponent)
            np.testing.assert_array_equal(held, model.tensor(name))
        expert = layer.down[3].wires
        stored = model.tensor(f"layers.{number}.mlp.experts.down_proj")[3]
        np.testing.assert_array_equal(
            np.ldexp(expert.weights.astype(float), expert.exponent), stored
        )


def test_inputs_that_are_no_whole_blocks() -> None:
    weight = np.random.default_rng(2).standard_normal((3, 40)).astype(np.float32)
    found = to_mxfp4(weight)
    assert found.codes.shape == (3, 64)
    assert not found.codes[:, 40:].any()


@pytest.mark.parametrize(
    "variant",
    [v for v in numeric_variants() if v.machine.partial_sum_bits >= 8],
    ids=lambda v: v.name,
)
def test_near_the_float_reference(
    wires: HardwiredModel, tokens: np.ndarray, variant: Variant
) -> None:
    reference = GptOssReference(load_model("pydoc-gpt-oss"))
    exact, found = compare(wires, [variant], reference.logits, tokens[:97], 96)
    assert exact["kl_divergence"] == 0
    assert 0 < found["kl_divergence"] < 2e-3
    assert abs(found["nll"] - exact["nll"]) < 0.02


def test_four_bits_are_worse_than_sixteen(wires: HardwiredModel, tokens: np.ndarray) -> None:
    reference = GptOssReference(load_model("pydoc-gpt-oss"))
    machine = SystemMachine(reduction=Reduction.SCATTERED, activation_bits=8)
    narrow = dataclasses.replace(machine, partial_sum_bits=4)
    variants = [Variant("16", "", machine), Variant("4", "", narrow)]
    _, sixteen, four = compare(wires, variants, reference.logits, tokens[:97], 96)
    assert four["kl_divergence"] > 4 * sixteen["kl_divergence"]


def test_a_forgotten_sink_shows(wires: HardwiredModel, tokens: np.ndarray) -> None:
    """The measure can fail: without its sinks the model is another."""
    reference = GptOssReference(load_model("pydoc-gpt-oss"))
    layers = tuple(
        dataclasses.replace(layer, sinks=np.full_like(layer.sinks, -30)) for layer in wires.layers
    )
    spoiled = dataclasses.replace(wires, layers=layers)
    _, found = compare(
        spoiled, [Variant("spoiled", "", SystemMachine())], reference.logits, tokens[:97], 96
    )
    assert found["kl_divergence"] > 4e-3


@pytest.mark.parametrize("partition", Partition)
@pytest.mark.parametrize("reduction", Reduction)
def test_a_beginning_does_not_depend_on_what_follows(
    wires: HardwiredModel, tokens: np.ndarray, partition: Partition, reduction: Reduction
) -> None:
    """To the bit: sums have no order, and messages scales of one token."""
    machine = SystemMachine(partition=partition, reduction=reduction, partial_sum_bits=12)
    forward = HardwiredForward(wires, machine)
    whole = forward.logits(tokens[:45])
    for length in (1, 7, 33):
        np.testing.assert_array_equal(forward.logits(tokens[:length]), whole[:length])


def test_another_grid_another_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint with random codes, on two by two chips; the reference has the same rounded weights."""
    folder = Path(__file__).parent / "gpt_oss_mxfp4"
    model = load_model(folder)
    token_ids = np.load(folder / "expected.npz")["token_ids"]
    machine = SystemMachine(rows=2, columns=2, partial_sum_bits=32, activation_bits=32, kv_bits=32)
    forward = HardwiredForward(hardwired_model(model), machine)
    found = {8: forward.logits(token_ids)}
    # With inputs of 21 bits instead of 8, queries and probabilities of 16 bits are what is left.
    monkeypatch.setattr(numerics, "INPUT_LIMIT", 1 << 20)
    found[21] = forward.logits(token_ids)
    read = model.tensor

    def rounded(name: str) -> np.ndarray:
        weight = read(name)
        wired = name.endswith(("_proj", "router", "lm_head"))
        return to_mxfp4(weight).values() if wired else weight

    monkeypatch.setattr(model, "tensor", rounded)
    expected = GptOssReference(model).logits(token_ids)
    # By token: one whose router nearly ties may go to another expert.
    for bits, limit in ((8, 0.1), (21, 5e-4)):
        error = np.abs(found[bits] - expected).mean(axis=1) / np.abs(expected).mean()
        assert np.median(error) < limit


def test_shapes_of_known_models() -> None:
    shape = system_model(load_model("gpt-oss-120b").config)
    assert (shape.layers, shape.full_layers, shape.experts) == (36, 18, 128)
    vocabulary = 201_088 * 2880
    # All matrices but the embedding table, without biases, norms and sinks.
    assert (
        hardwired_weights(load_model("gpt-oss-120b").config)
        == 36 * (2880 * (4096 + 512 + 512 + 4096 + 128) + 128 * 3 * 2880 * 2880) + vocabulary
    )
    tied = load_model("llama-3.2-1b")
    norms = (2 * 16 + 1) * 2048
    assert hardwired_weights(tied.config) == tied.parameters - norms


def test_models_that_do_not_divide(wires: HardwiredModel) -> None:
    with pytest.raises(
        InputError, match="experts: expected a multiple of 64 for 8 x 8|hidden size"
    ):
        HardwiredForward(wires, SystemMachine(rows=8, columns=8))


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert lpu.main(["hardwire", "accuracy", "--limit", "24", "--window", "12", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["tokens"] == 24
    assert [row["name"] for row in facts["variants"]][:2] == ["float reference", "serial"]
    assert lpu.main(["hardwire", "accuracy", "--limit", "4"]) == 0
    assert "nats a token" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["gpt-oss-120b"], "expected a model of at most"),
        (["pydoc-llama"], "architecture: expected GptOssForCausalLM"),
        (["--limit", "0"], "--limit 0"),
        (["--window", "2000"], "a window of at most 1024"),
        (["--text", "/nowhere.txt"], "/nowhere.txt"),
    ],
)
def test_command_with_bad_input(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lpu.main(["hardwire", "accuracy", *arguments]) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1
