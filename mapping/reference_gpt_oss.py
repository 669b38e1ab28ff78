"""The float reference of gpt-oss, in plain NumPy; it is checked against an outside implementation.

Published definition: the reference implementation of gpt-oss. RMSNorm, grouped-query attention with a
learned sink logit a head and windows in every other layer, YaRN, a mixture of experts in which the router
picks first and its softmax runs over the picked, and a clamped SwiGLU.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hw.spec.errors import InputError
from mapping.frontend.gpt_oss import require_gpt_oss
from mapping.frontend.model import Model
from mapping.frontend.weights import EMBEDDING, HEAD
from mapping.rope import rope_tables, rotate

Floats = npt.NDArray[np.floating]
Logits = npt.NDArray[np.float32]
Precision = type[np.float32] | type[np.float64]
TokenIds = Sequence[int] | npt.NDArray[np.integer]

_KEPT_PARAMETERS = 1 << 26


class GptOssReference:
    """A gpt-oss forward pass over a whole text.

    Parameters
    ----------
    model : Model
        Configuration and weights.
    precision : type
        ``np.float32`` or ``np.float64``, of every operation.

    Raises
    ------
    InputError
        If the model is of another family.
    ValueError
        If the precision is another.
    """

    def __init__(self, model: Model, *, precision: Precision = np.float32) -> None:
        self.config = require_gpt_oss(model.config, "the reference of gpt-oss models")
        if precision not in (np.float32, np.float64):
            raise ValueError(f"precision must be np.float32 or np.float64, not {precision}")
        self.model = model
        self.precision: Precision = precision
        self._keep = model.parameters <= _KEPT_PARAMETERS
        self._kept: dict[str, Floats] = {}

    def logits(self, token_ids: TokenIds) -> Logits:
        """Return the logits after each token of a text.

        Parameters
        ----------
        token_ids : sequence of int, length T
            The text from its beginning.

        Returns
        -------
        float32 array of shape [T, vocabulary]

        Raises
        ------
        InputError
            If there are no tokens, more than the model has positions, or ids outside its vocabulary.
        """
        tokens = check_tokens(token_ids, self.config.vocabulary_size, self.config.maximum_positions)
        cosine, sine = rope_tables(self.config, np.arange(len(tokens)))
        rotation = cosine.astype(self.precision), sine.astype(self.precision)
        stream = self._weight(EMBEDDING)[tokens]
        for layer in range(self.config.layers):
            prefix = f"layers.{layer}."
            x = self._norm(stream, prefix + "input_layernorm")
            stream = stream + self._attention(layer, x, rotation)
            x = self._norm(stream, prefix + "post_attention_layernorm")
            stream = stream + self._experts(prefix + "mlp.", x)
        x = self._norm(stream, "norm")
        return (x @ self._weight(HEAD).T).astype(np.float32, copy=False)

    def _weight(self, name: str) -> Floats:
        if name in self._kept:
            return self._kept[name]
        weight = np.asarray(self.model.tensor(name), self.precision)
        if self._keep:
            self._kept[name] = weight
        return weight

    def _linear(self, x: Floats, name: str) -> Floats:
        return x @ self._weight(name).T + self._weight(name + ".bias")

    def _norm(self, x: Floats, name: str) -> Floats:
        mean_square = np.mean(x * x, axis=-1, keepdims=True)
        scaled = x / np.sqrt(mean_square + self.precision(self.config.rms_norm_eps))
        return scaled * self._weight(name)

    def _attention(self, layer: int, x: Floats, rotation: tuple[Floats, Floats]) -> Floats:
        config, prefix, tokens = self.config, f"layers.{layer}.self_attn.", len(x)

        def heads_of(name: str) -> Floats:
            return self._linear(x, prefix + name).reshape(tokens, -1, config.head_dim)

        queries = rotate(heads_of("q_proj"), *rotation).swapaxes(0, 1)
        keys = rotate(heads_of("k_proj"), *rotation).swapaxes(0, 1)
        values = heads_of("v_proj").swapaxes(0, 1)
        # Query heads that share a key head are neighbours: [kv_heads, heads per kv head, T, D].
        grouped = queries.reshape(config.kv_heads, config.heads_per_kv_head, tokens, -1)
        scores = grouped @ keys[:, None].swapaxes(-1, -2)
        scores = scores.reshape(config.heads, tokens, tokens)
        scores = scores * self.precision(config.head_dim**-0.5)
        distance = np.arange(tokens)[:, None] - np.arange(tokens)
        hidden = distance < 0
        if config.windowed_layers[layer]:
            hidden |= distance >= config.window
        scores[:, hidden] = -np.inf
        sinks = self._weight(prefix + "sinks")[:, None, None]
        highest = np.maximum(scores.max(axis=-1, keepdims=True), sinks)
        powers = np.exp(scores - highest)
        powers /= powers.sum(axis=-1, keepdims=True) + np.exp(sinks - highest)
        powers = powers.reshape(config.kv_heads, -1, tokens, tokens)
        output = (powers @ values[:, None]).reshape(config.heads, tokens, -1)
        return self._linear(output.swapaxes(0, 1).reshape(tokens, -1), prefix + "o_proj")

    def _experts(self, prefix: str, x: Floats) -> Floats:
        config = self.config
        scores = self._linear(x, prefix + "router")
        # A stable sort of the negatives: of equal scores the expert with the lower number comes first.
        chosen = np.argsort(-scores, axis=-1, kind="stable")[:, : config.experts_per_token]
        shares = np.take_along_axis(scores, chosen, axis=-1)
        shares = np.exp(shares - shares.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        matrices = {
            name: self._weight(f"{prefix}experts.{name}")
            for name in ("gate_up_proj", "gate_up_proj_bias", "down_proj", "down_proj_bias")
        }
        result = np.zeros_like(x)
        for expert in np.unique(chosen):
            rows, ranks = np.nonzero(chosen == expert)
            both = x[rows] @ matrices["gate_up_proj"][expert].T
            both += matrices["gate_up_proj_bias"][expert]
            hidden = clamped_swiglu(both, config.swiglu_alpha, config.swiglu_limit)
            output = hidden @ matrices["down_proj"][expert].T + matrices["down_proj_bias"][expert]
            result[rows] += shares[rows, ranks, None] * output
        return result


def check_tokens(
    token_ids: TokenIds, vocabulary_size: int, maximum_positions: int
) -> npt.NDArray[np.int64]:
    """Return token ids as an array.

    Raises
    ------
    InputError
        If there are none, too many, or some outside the vocabulary.
    """
    tokens = np.asarray(token_ids)
    if tokens.ndim != 1 or tokens.size == 0 or not np.issubdtype(tokens.dtype, np.integer):
        raise InputError("token ids: expected a list of at least one whole number")
    wrong = tokens[(tokens < 0) | (tokens >= vocabulary_size)]
    if wrong.size:
        raise InputError(
            f"token ids: expected values below the vocabulary of {vocabulary_size}, found {wrong[0]}"
        )
    if tokens.size > maximum_positions:
        raise InputError(
            f"token ids: expected at most {maximum_positions} positions, found {tokens.size}"
        )
    return tokens.astype(np.int64)


def clamped_swiglu(both: Floats, alpha: float, limit: float) -> Floats:
    """Return gate * sigmoid(alpha * gate) * (up + 1) of alternating gates and ups, clamped first."""
    gate = np.minimum(both[..., ::2], limit)
    up = np.clip(both[..., 1::2], -limit, limit)
    decayed = np.exp(-np.abs(alpha * gate))
    sigmoid = np.where(gate >= 0, 1.0, decayed).astype(both.dtype) / (1 + decayed)
    return gate * sigmoid * (up + 1)
