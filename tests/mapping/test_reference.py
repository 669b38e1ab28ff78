"""The float reference against stored logits of an outside implementation, and its hooks."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from hw.spec.errors import InputError
from mapping.attention_mask import AttentionMask, HeadMasks
from mapping.frontend import Model, load_model, synthetic_model
from mapping.reference import HEAD_POINT, LAYER_POINTS, FloatReference, Precision, silu

CHECKPOINTS = (
    "tied_f32",
    "grouped_odd_f16",
    "llama3_sharded_bf16",
    "linear_untied_f32",
    "mistral_f32",
    "opt_f32",
    "opt_odd_untied_f16",
)


@pytest.fixture
def model(fixtures_folder: Path) -> Model:
    return load_model(fixtures_folder / "linear_untied_f32")


@pytest.fixture
def tied(fixtures_folder: Path) -> Model:
    return load_model(fixtures_folder / "tied_f32")


@pytest.fixture
def tokens(fixtures_folder: Path) -> npt.NDArray[np.int64]:
    with np.load(fixtures_folder / "linear_untied_f32" / "expected.npz") as stored:
        return stored["token_ids"]


def assert_agree(found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> None:
    """Within 1e-4 of each logit, or 1e-5 of the largest where a logit is next to nothing."""
    assert found.dtype == np.float32
    floor = 1e-5 * float(np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=floor)


@pytest.mark.parametrize("precision", [np.float32, np.float64])
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_logits_agree_with_transformers(
    name: str, precision: Precision, fixtures_folder: Path
) -> None:
    with np.load(fixtures_folder / name / "expected.npz") as stored:
        token_ids, expected = stored["token_ids"], stored["logits"]
    assert expected.shape == (40, load_model(fixtures_folder / name).config.vocabulary_size)
    reference = FloatReference(load_model(fixtures_folder / name), precision=precision)
    assert_agree(reference.logits(token_ids), expected)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_steps_agree_with_the_whole_text(name: str, fixtures_folder: Path) -> None:
    with np.load(fixtures_folder / name / "expected.npz") as stored:
        token_ids, expected = stored["token_ids"], stored["logits"]
    reference = FloatReference(load_model(fixtures_folder / name))
    assert_agree(reference.prefill(token_ids[:9]), expected[8])
    for position in range(9, 30):
        assert_agree(reference.step(int(token_ids[position])), expected[position])
    reference.logits(token_ids)  # does not disturb the steps
    assert_agree(reference.prefill(token_ids[30:]), expected[-1])
    assert reference.position == 40
    reference.reset()
    assert reference.position == 0
    assert_agree(reference.step(int(token_ids[0])), expected[0])


def test_weights_need_not_be_kept(model: Model, tokens: npt.NDArray[np.int64]) -> None:
    kept = FloatReference(model, keep_weights=True).logits(tokens)
    np.testing.assert_array_equal(FloatReference(model, keep_weights=False).logits(tokens), kept)


def test_override_replaces_one_weight(model: Model, tokens: npt.NDArray[np.int64]) -> None:
    plain = FloatReference(model).logits(tokens)
    head = model.tensor("lm_head")
    doubled = FloatReference(model, overrides={"lm_head": 2 * head}).logits(tokens)
    np.testing.assert_allclose(doubled, 2 * plain, rtol=1e-6)
    # Without attention and feed-forward outputs, a logit depends on its own token alone.
    silent = {
        name: np.zeros(shape, np.float32)
        for name, shape in model.tensor_shapes.items()
        if name.endswith(("o_proj", "down_proj"))
    }
    assert len(silent) == 2 * model.config.layers
    x = model.tensor("embed_tokens")[tokens].astype(np.float64)
    x /= np.sqrt((x * x).mean(axis=1, keepdims=True) + model.config.rms_norm_eps)
    expected = (x * model.tensor("norm")) @ head.T.astype(np.float64)
    found = FloatReference(model, overrides=silent).logits(tokens)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_overrides_of_a_tied_model(tied: Model, tokens: npt.NDArray[np.int64]) -> None:
    plain = FloatReference(tied).logits(tokens)
    embedding = tied.tensor("embed_tokens")
    assert_agree(
        FloatReference(tied, overrides={"lm_head": 2 * embedding}).logits(tokens), 2 * plain
    )
    both = FloatReference(tied, overrides={"embed_tokens": 3 * embedding}).logits(tokens)
    separate = {"embed_tokens": 3 * embedding, "lm_head": 3 * embedding}
    np.testing.assert_array_equal(FloatReference(tied, overrides=separate).logits(tokens), both)
    alone = {"embed_tokens": 3 * embedding, "lm_head": embedding}
    assert_agree(3 * FloatReference(tied, overrides=alone).logits(tokens), both)


def test_refuses_wrong_overrides(model: Model) -> None:
    with pytest.raises(ValueError, match="must name a weight, not 'layers.0.q_proj'"):
        FloatReference(model, overrides={"layers.0.q_proj": np.zeros((24, 20))})
    with pytest.raises(ValueError, match=r"override norm must have shape \(20,\), not \(1, 20\)"):
        FloatReference(model, overrides={"norm": np.zeros((1, 20))})
    with pytest.raises(
        ValueError, match="precision must be np.float32 or np.float64, not .*float16"
    ):
        FloatReference(model, precision=np.float16)  # type: ignore[arg-type] # must fail


def test_hook_sees_every_point(model: Model, tokens: npt.NDArray[np.int64]) -> None:
    seen: dict[str, tuple[int, ...]] = {}

    def hook(point: str, values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        assert point not in seen
        seen[point] = values.shape
        if point.endswith("probabilities"):
            np.testing.assert_allclose(values.sum(axis=-1), 1.0, rtol=1e-5)
            assert not np.triu(values, 1).any()
        return values

    reference = FloatReference(model, activation_hook=hook)
    found = reference.logits(tokens)
    np.testing.assert_array_equal(found, FloatReference(model).logits(tokens))
    expected = [f"layers.{layer}.{point}" for layer in range(2) for point in LAYER_POINTS]
    assert list(seen) == [*expected, HEAD_POINT]
    assert [seen[f"layers.1.{point}"] for point in LAYER_POINTS] == [
        (40, 20),
        (40, 4, 6),
        (40, 2, 6),
        (40, 2, 6),
        (4, 40, 40),
        (40, 24),
        (40, 20),
        (40, 36),
    ]


@pytest.mark.parametrize("point", ["layers.1." + point for point in LAYER_POINTS] + [HEAD_POINT])
def test_hook_changes_what_follows(point: str, model: Model, tokens: npt.NDArray[np.int64]) -> None:
    plain = FloatReference(model).logits(tokens)

    def hook(name: str, values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        return 1.5 * values if name == point else values

    changed = FloatReference(model, activation_hook=hook)
    whole = changed.logits(tokens)
    assert np.abs(whole - plain)[1:].max() > 1e-3
    # A hook that works token by token does the same in steps: the cache holds what it returned.
    steps = np.stack([changed.step(int(token)) for token in tokens])
    assert_agree(steps, whole)


def test_hook_must_keep_the_shape(model: Model) -> None:
    reference = FloatReference(model, activation_hook=lambda point, values: values[:, :1])
    with pytest.raises(ValueError, match="layers.0.attention_input: hook must return shape"):
        reference.step(0)


@pytest.mark.parametrize(
    ("token_ids", "message"),
    [
        ([], "at least one whole number"),
        ([[1, 2]], "at least one whole number"),
        ([0.5], "at least one whole number"),
        ([3, 47], "below the vocabulary of 47, found 47"),
        ([-1], "below the vocabulary of 47, found -1"),
        ([0] * 257, "at most the 256 positions of linear_untied_f32, found 257"),
    ],
)
def test_refuses_bad_tokens(token_ids: list[int], message: str, model: Model) -> None:
    with pytest.raises(InputError, match=f"^token ids: expected .*{message}"):
        FloatReference(model).logits(token_ids)


def test_steps_stop_at_the_last_position(model: Model) -> None:
    reference = FloatReference(model)
    reference.prefill([1] * 256)
    with pytest.raises(InputError, match="at most the 256 positions .* found 257"):
        reference.step(1)
    assert reference.position == 256


def test_silu_does_not_overflow() -> None:
    x = np.array([-1e4, -100.0, -1.0, 0.0, 1.0, 100.0, 1e4], np.float32)
    expected = [0.0, 0.0, -1 / (1 + np.e), 0.0, 1 / (1 + np.exp(-1)), 100.0, 1e4]
    np.testing.assert_allclose(silu(x), expected, rtol=1e-6, atol=1e-30)


def test_synthetic_weights_give_lively_logits(model: Model, tokens: npt.NDArray[np.int64]) -> None:
    logits = FloatReference(synthetic_model(model.config)).logits(tokens)
    assert 0.3 < logits.std() < 3.0


def test_an_attention_mask_hides_blocks_from_the_first_tokens_only(fixtures_folder: Path) -> None:
    """All probabilities of a dense matrix of what is visible, and no others."""
    model = load_model(fixtures_folder / "linear_untied_f32")
    seen: list[np.ndarray] = []

    def look(point: str, values: np.ndarray) -> np.ndarray:
        if point.endswith("probabilities"):
            seen.append(values)
        return values

    tokens, masked = 21, 14
    text = [(5 * i) % model.config.vocabulary_size for i in range(tokens)]
    mask = HeadMasks((AttentionMask(4, 1, 2), AttentionMask(4, 0, 1)))
    blocks = np.arange(tokens) // 4
    near = np.stack([
        (blocks[:, None] - blocks[None] < band) | (blocks[None] < first)
        for first, band in ((1, 2), (0, 1))
    ])
    near[:, masked:] = True
    wanted = (near & np.tri(tokens, dtype=bool))[np.arange(model.config.heads) % 2]
    whole = FloatReference(model, activation_hook=look, attention_mask=mask, masked=masked)
    logits = whole.logits(text)
    assert len(seen) == model.config.layers
    for values in seen:
        assert ((values > 0) == wanted).all()
        np.testing.assert_allclose(values.sum(axis=-1), 1, rtol=1e-5)
    stepped = FloatReference(model, attention_mask=mask, masked=masked)
    alone = [stepped.step(token) for token in text]
    np.testing.assert_allclose(alone, logits, rtol=1e-3, atol=1e-4)
    dense = FloatReference(model).logits(text)
    # The first block that is hidden is the first, of the other heads, from the second on.
    np.testing.assert_allclose(dense[:4], logits[:4], rtol=1e-6)
    assert np.abs(dense[4:] - logits[4:]).max() > 1e-3
