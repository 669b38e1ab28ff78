"""Loss and perplexity: every token counted once, windows independent, numbers as defined."""

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from hw.spec.errors import InputError
from mapping.evaluate import (
    TokenIds,
    evaluate_logits,
    evaluate_losses,
    negative_log_likelihood,
    windows,
)
from mapping.frontend import load_model
from mapping.reference import FloatReference

TEXT = np.random.default_rng(5).integers(0, 47, 100)


@pytest.mark.parametrize("context_length", [1, 7, 33, 99, 100, 512])
@pytest.mark.parametrize("limit", [None, 1, 50, 1000])
def test_windows_predict_each_token_once(context_length: int, limit: int | None) -> None:
    cut = list(windows(TEXT, context_length, limit))
    predicted = min(limit or 99, 99)
    assert np.concatenate([inputs for inputs, _ in cut]).tolist() == TEXT[:predicted].tolist()
    assert (
        np.concatenate([targets for _, targets in cut]).tolist() == TEXT[1 : predicted + 1].tolist()
    )
    assert [inputs.size for inputs, _ in cut[:-1]] == [context_length] * (len(cut) - 1)
    assert 1 <= cut[-1][0].size <= context_length


def test_uniform_logits_have_the_perplexity_of_their_number() -> None:
    result = evaluate_logits(TEXT, lambda inputs: np.zeros((inputs.size, 47)), context_length=30)
    assert result.tokens == 99
    assert result.windows == 4
    assert result.loss == pytest.approx(math.log(47), rel=1e-15)
    assert result.perplexity == pytest.approx(47.0, rel=1e-13)


def test_loss_of_known_probabilities() -> None:
    probabilities = np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])
    # Any constant may be added to a row, even one at which exp overflows.
    logits = np.log(probabilities) + np.array([[1e4], [-1e4]])
    found = negative_log_likelihood(logits, np.array([1, 2]))
    np.testing.assert_allclose(found, [math.log(4), -math.log(0.8)], rtol=1e-11)


def test_impossible_tokens_make_the_perplexity_infinite() -> None:
    result = evaluate_losses(TEXT, lambda inputs, targets: np.full(targets.size, 1e4))
    assert result.loss == 1e4
    assert result.perplexity == math.inf


def test_stepping_and_whole_windows_agree(fixtures_folder: Path) -> None:
    model = load_model(fixtures_folder / "linear_untied_f32")
    reference = FloatReference(model, precision=np.float64)

    def step_by_step(inputs: TokenIds) -> npt.NDArray[np.float32]:
        reference.reset()
        return np.stack([reference.step(int(token)) for token in inputs])

    whole = evaluate_logits(TEXT, reference.logits, context_length=16)
    steps = evaluate_logits(TEXT, step_by_step, context_length=16)
    np.testing.assert_allclose(steps.losses, whole.losses, rtol=1e-6)
    # The second window starts from nothing: the first does not influence it.
    alone = evaluate_logits(TEXT[16:33], reference.logits, context_length=16)
    np.testing.assert_allclose(whole.losses[16:32], alone.losses, rtol=1e-12)
    longer = evaluate_logits(TEXT, reference.logits, context_length=99)
    assert np.abs(longer.losses[16:] - whole.losses[16:]).max() > 1e-3


def test_only_what_is_behind_a_prompt_is_predicted(fixtures_folder: Path) -> None:
    reference = FloatReference(load_model(fixtures_folder / "linear_untied_f32"))
    whole = evaluate_logits(TEXT, reference.logits, context_length=30)
    behind = evaluate_logits(TEXT, reference.logits, context_length=30, prompt=12)
    # Windows of 30, 30, 30 and 9 tokens, the last of which is all prompt.
    kept = [loss for begin in (0, 30, 60) for loss in whole.losses[begin + 11 : begin + 30]]
    assert behind.losses.tolist() == kept
    assert behind.windows == 3
    for prompt in (0, 31):
        with pytest.raises(InputError, match=f"prompt: expected 1 to 30 tokens, found {prompt}"):
            evaluate_logits(TEXT, reference.logits, context_length=30, prompt=prompt)
    with pytest.raises(InputError, match="text: expected more tokens than a prompt of 12"):
        evaluate_logits(TEXT[:12], reference.logits, context_length=30, prompt=12)


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    evaluate_losses(
        TEXT,
        lambda inputs, targets: np.zeros(targets.size),
        context_length=40,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(40, 99), (80, 99), (99, 99)]


def test_refuses_bad_input() -> None:
    def losses(inputs: TokenIds, targets: TokenIds) -> npt.NDArray[np.float64]:
        return np.zeros(targets.size)

    with pytest.raises(InputError, match="text: expected at least two tokens, found 1"):
        evaluate_losses([4], losses)
    with pytest.raises(InputError, match="context length: expected at least 1 token, found 0"):
        evaluate_losses(TEXT, losses, context_length=0)
    with pytest.raises(InputError, match="limit: expected at least 1 token, found 0"):
        evaluate_losses(TEXT, losses, limit=0)
    with pytest.raises(ValueError, match=r"losses must have shape \(99,\), not \(98,\)"):
        evaluate_losses(TEXT, lambda inputs, targets: np.zeros(98))
    with pytest.raises(ValueError, match="losses must be numbers, found NaN after 0 tokens"):
        evaluate_losses(TEXT, lambda inputs, targets: np.full(targets.size, np.nan))
    with pytest.raises(ValueError, match=r"logits must have shape \[99, vocabulary\]"):
        evaluate_logits(TEXT, lambda inputs: np.zeros((98, 47)))
