"""How well does a model predict a text? Loss and perplexity, whatever computes the model.

A text is cut into windows that do not overlap, and every window starts from nothing. The last token
of a window is asked for the first token of the next, so each token of the text but the very first is
predicted exactly once; unless windows begin with a prompt of several tokens, of which only the last is
asked for its successor.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hw.spec.errors import InputError

Losses = npt.NDArray[np.float64]
TokenIds = npt.NDArray[np.int64]

LogitsFunction = Callable[[TokenIds], npt.NDArray[np.floating]]
"""From the tokens [T] of one window to logits [T, vocabulary]; knows nothing of earlier windows."""

LossFunction = Callable[[TokenIds, TokenIds], npt.NDArray[np.floating]]
"""From the tokens [T] of one window and those [L] that follow the last L of them to losses [L] in nats."""

Progress = Callable[[int, int], None]
"""Told after each window how many tokens are done, and of how many."""

DEFAULT_CONTEXT = 512


@dataclass(frozen=True)
class Evaluation:
    """How well a text was predicted.

    Members
    -------
    losses : float64 array of shape [tokens]
        Negative log-likelihood of each predicted token in nats, in the order of the text.
    context_length : int
        Longest history a prediction had.
    windows : int
        Number of windows.
    """

    losses: Losses
    context_length: int
    windows: int

    @property
    def tokens(self) -> int:
        """Number of predicted tokens."""
        return self.losses.size

    @property
    def loss(self) -> float:
        """Mean negative log-likelihood, in nats a token."""
        # fsum rounds once, so the mean does not depend on the order of the windows.
        return math.fsum(self.losses) / self.tokens

    @property
    def perplexity(self) -> float:
        """exp of the loss; infinity where that is too large for a float."""
        try:
            return math.exp(self.loss)
        except OverflowError:
            return math.inf


def evaluate_logits(
    token_ids: Sequence[int] | npt.NDArray[np.integer],
    logits: LogitsFunction,
    *,
    context_length: int = DEFAULT_CONTEXT,
    limit: int | None = None,
    prompt: int = 1,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a model that returns logits, such as `FloatReference.logits`.

    Parameters and errors are those of `evaluate_losses`.
    """

    def losses(inputs: TokenIds, targets: TokenIds) -> Losses:
        return negative_log_likelihood(logits(inputs)[len(inputs) - len(targets) :], targets)

    return evaluate_losses(
        token_ids,
        losses,
        context_length=context_length,
        limit=limit,
        prompt=prompt,
        progress=progress,
    )


def evaluate_losses(
    token_ids: Sequence[int] | npt.NDArray[np.integer],
    losses: LossFunction,
    *,
    context_length: int = DEFAULT_CONTEXT,
    limit: int | None = None,
    prompt: int = 1,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a model that returns the loss of each token.

    Parameters
    ----------
    token_ids : sequence of int, length N
        The text; the first token is not predicted.
    losses : callable
        Called once a window, in order.
    context_length : int
        Tokens a window.
    limit : int or None
        Predict at most this many tokens; those of prompts count.
    prompt : int
        Tokens at the beginning of each window of which only the last one's successor is predicted.
    progress : callable or None
        Called after each window.

    Raises
    ------
    InputError
        If the text has fewer than two tokens, or the context length or the limit is not positive, or prompts are
        longer than windows, or no text is left behind them.
    ValueError
        If the callable returns another number of losses than there are targets, or NaN.
    """
    parts = []
    every = list(windows(token_ids, context_length, limit))
    if not 1 <= prompt <= context_length:
        raise InputError(f"prompt: expected 1 to {context_length} tokens, found {prompt}")
    cut = [(inputs, following) for inputs, following in every if inputs.size >= prompt]
    if not cut:
        raise InputError(f"text: expected more tokens than a prompt of {prompt}")
    total, done = sum(inputs.size for inputs, _ in cut), 0
    for inputs, following in cut:
        targets = following[prompt - 1 :]
        part = np.asarray(losses(inputs, targets), np.float64)
        if part.shape != targets.shape:
            raise ValueError(f"losses must have shape {targets.shape}, not {part.shape}")
        if np.isnan(part).any():
            raise ValueError(f"losses must be numbers, found NaN after {done} tokens")
        parts.append(part)
        done += inputs.size
        if progress is not None:
            progress(done, total)
    return Evaluation(np.concatenate(parts), context_length, len(parts))


def windows(
    token_ids: Sequence[int] | npt.NDArray[np.integer],
    context_length: int,
    limit: int | None = None,
) -> Iterator[tuple[TokenIds, TokenIds]]:
    """Yield the tokens of each window, and for each of them the token that follows.

    Raises
    ------
    InputError
        As `evaluate_losses`.
    """
    text = np.asarray(token_ids, np.int64)
    if text.ndim != 1 or text.size < 2:
        raise InputError(f"text: expected at least two tokens, found {text.size}")
    if context_length < 1:
        raise InputError(f"context length: expected at least 1 token, found {context_length}")
    if limit is not None and limit < 1:
        raise InputError(f"limit: expected at least 1 token, found {limit}")
    predicted = text.size - 1 if limit is None else min(limit, text.size - 1)
    for begin in range(0, predicted, context_length):
        end = min(begin + context_length, predicted)
        yield text[begin:end], text[begin + 1 : end + 1]


def negative_log_likelihood(logits: npt.NDArray[np.floating], targets: TokenIds) -> Losses:
    """Return -log softmax(logits) at the targets, in nats, computed in float64.

    Parameters
    ----------
    logits : array of shape [T, vocabulary]
    targets : int64 array of shape [T]

    Raises
    ------
    ValueError
        If there is not one row of logits for each target.
    """
    if logits.ndim != 2 or len(logits) != len(targets):
        raise ValueError(f"logits must have shape [{len(targets)}, vocabulary], not {logits.shape}")
    values = logits.astype(np.float64)
    values -= values.max(axis=-1, keepdims=True)
    normalizer = np.log(np.exp(values).sum(axis=-1))
    return normalizer - np.take_along_axis(values, targets[:, None], axis=-1)[:, 0]
