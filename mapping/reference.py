"""The float reference: what a model computes, in plain NumPy, independent of any compiled program.

It is checked against an outside implementation. Compression uses it too: weights can be replaced and
activations passed through a function, which shows what a recipe costs before anything is compiled.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from hw.spec.errors import InputError
from mapping.attention_mask import HeadMasks
from mapping.frontend.config import require_flight
from mapping.frontend.model import Model
from mapping.frontend.opt import BIAS, POSITION_OFFSET, POSITIONS
from mapping.frontend.weights import EMBEDDING, HEAD
from mapping.rope import rope_tables, rotate

Floats = npt.NDArray[np.floating]
Logits = npt.NDArray[np.float32]
Precision = type[np.float32] | type[np.float64]
TokenIds = Sequence[int] | npt.NDArray[np.integer]

ActivationHook = Callable[[str, Floats], Floats]
"""Receives the name of a point and the values there, and returns what to go on with, same shape."""

LAYER_POINTS = (
    "attention_input",
    "queries",
    "keys",
    "values",
    "probabilities",
    "attention_output",
    "feed_forward_input",
    "feed_forward_hidden",
)
"""The points of one layer, named ``layers.<n>.<point>``; see `FloatReference`."""

HEAD_POINT = "head_input"

_KEPT_PARAMETERS = 1 << 28
"""Models up to this size keep their weights in memory, larger ones read them layer by layer."""


class _Cache:
    """Keys and values of one layer for all positions so far; room doubles when it runs out."""

    def __init__(self, kv_heads: int, head_dim: int, dtype: npt.DTypeLike) -> None:
        self.length = 0
        self._room = np.empty((2, kv_heads, 16, head_dim), dtype)

    def append(self, keys: Floats, values: Floats) -> tuple[Floats, Floats]:
        """Add [kv_heads, tokens, head_dim] of each; return views of all, old and new."""
        begin, self.length = self.length, self.length + keys.shape[1]
        if self.length > self._room.shape[2]:
            shape = list(self._room.shape)
            shape[2] = max(2 * shape[2], self.length)
            room = np.empty(shape, self._room.dtype)
            room[:, :, :begin] = self._room[:, :, :begin]
            self._room = room
        self._room[0, :, begin : self.length] = keys
        self._room[1, :, begin : self.length] = values
        return self._room[0, :, : self.length], self._room[1, :, : self.length]


class FloatReference:
    """A forward pass of Llama or OPT in NumPy.

    Queries and keys of OPT are not rotated: their points come behind their biases. Activation points, with T tokens, P positions and heads before the last axis:

    ===================== ======================== ==============================================
    point                 shape                    what it is
    ===================== ======================== ==============================================
    attention_input       [T, hidden]              operand of q_proj, k_proj and v_proj
    queries               [T, heads, head_dim]     after rotation
    keys                  [T, kv_heads, head_dim]  after rotation, on the way into the cache
    values                [T, kv_heads, head_dim]  on the way into the cache
    probabilities         [heads, T, P]            attention weights, each row sums to one
    attention_output      [T, heads * head_dim]    operand of o_proj
    feed_forward_input    [T, hidden]              operand of gate_proj and up_proj
    feed_forward_hidden   [T, intermediate]        operand of down_proj
    head_input            [T, hidden]              operand of the logits; no layer in its name
    ===================== ======================== ==============================================

    Parameters
    ----------
    model : Model
        Configuration and weights.
    precision : type
        ``np.float32`` or ``np.float64``, of every operation.
    overrides : Mapping[str, array]
        Replaces weights by name. With tied embeddings, ``embed_tokens`` replaces both uses and
        ``lm_head`` that of the logits alone.
    activation_hook : callable or None
        Called at every point.
    keep_weights : bool or None
        Whether weights stay in memory once read; None decides by the size of the model.
    attention_mask : HeadMasks or None
        Of the first tokens of every text, those before `masked`; all others attend to everything.
    masked : int
        How many those are.

    Raises
    ------
    ValueError
        If an override has no weight to replace or another shape, or the precision is another.
    """

    def __init__(
        self,
        model: Model,
        *,
        precision: Precision = np.float32,
        overrides: Mapping[str, npt.NDArray[np.floating]] | None = None,
        activation_hook: ActivationHook | None = None,
        keep_weights: bool | None = None,
        attention_mask: HeadMasks | None = None,
        masked: int = 0,
    ) -> None:
        require_flight(model.config, "this reference")
        self.model = model
        self.config = model.config
        if precision not in (np.float32, np.float64):
            raise ValueError(f"precision must be np.float32 or np.float64, not {precision}")
        self.precision: Precision = precision
        self._overrides = dict(overrides or {})
        self._check_overrides()
        self._hook = activation_hook
        self._mask, self._masked = attention_mask, masked
        self._keep = model.parameters <= _KEPT_PARAMETERS if keep_weights is None else keep_weights
        self._kept: dict[str, Floats] = {}
        self._caches = self._new_caches()

    @property
    def position(self) -> int:
        """Tokens that `prefill` and `step` have seen since the last `reset`."""
        return self._caches[0].length

    def reset(self) -> None:
        """Forget every token."""
        self._caches = self._new_caches()

    def logits(self, token_ids: TokenIds) -> Logits:
        """Return the logits after each token of a text of its own; `step` is not affected.

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
        stream = self._forward(self._check_tokens(token_ids, 0), self._new_caches())
        return self._head(stream)

    def prefill(self, token_ids: TokenIds) -> Logits:
        """Continue with several tokens; return the logits [vocabulary] after the last.

        Raises
        ------
        InputError
            As `logits`.
        """
        stream = self._forward(self._check_tokens(token_ids, self.position), self._caches)
        return self._head(stream[-1:])[0]

    def step(self, token_id: int) -> Logits:
        """Continue with one token; return the logits [vocabulary] after it.

        Raises
        ------
        InputError
            As `logits`.
        """
        return self.prefill([token_id])

    def _check_overrides(self) -> None:
        shapes = dict(self.model.tensor_shapes)
        shapes.setdefault(HEAD, shapes[EMBEDDING])
        for name, value in self._overrides.items():
            if name not in shapes:
                raise ValueError(f"an override must name a weight, not {name!r}")
            if value.shape != shapes[name]:
                raise ValueError(
                    f"override {name} must have shape {shapes[name]}, not {value.shape}"
                )

    def _check_tokens(self, token_ids: TokenIds, position: int) -> npt.NDArray[np.int64]:
        tokens = np.asarray(token_ids)
        if tokens.ndim != 1 or tokens.size == 0 or not np.issubdtype(tokens.dtype, np.integer):
            raise InputError("token ids: expected a list of at least one whole number")
        wrong = tokens[(tokens < 0) | (tokens >= self.config.vocabulary_size)]
        if wrong.size:
            raise InputError(
                f"token ids: expected values below the vocabulary of {self.config.vocabulary_size}, "
                f"found {wrong[0]}"
            )
        if position + tokens.size > self.config.maximum_positions:
            raise InputError(
                f"token ids: expected at most the {self.config.maximum_positions} positions of "
                f"{self.config.name}, found {position + tokens.size}"
            )
        return tokens.astype(np.int64)

    def _new_caches(self) -> list[_Cache]:
        config = self.config
        return [
            _Cache(config.kv_heads, config.head_dim, self.precision) for _ in range(config.layers)
        ]

    def _weight(self, name: str) -> Floats:
        if name == HEAD and name not in self._overrides and self.config.tie_word_embeddings:
            name = EMBEDDING
        if name in self._kept:
            return self._kept[name]
        source = self._overrides.get(name)
        weight = np.asarray(self.model.tensor(name) if source is None else source, self.precision)
        if self._keep:
            self._kept[name] = weight
        return weight

    def _at(self, point: str, values: Floats) -> Floats:
        if self._hook is None:
            return values
        result = np.asarray(self._hook(point, values), self.precision)
        if result.shape != values.shape:
            raise ValueError(f"{point}: hook must return shape {values.shape}, not {result.shape}")
        return result

    def _forward(self, tokens: npt.NDArray[np.int64], caches: list[_Cache]) -> Floats:
        """Return the residual stream [T, hidden] after the last layer, before the final norm."""
        begin = caches[0].length
        positions = np.arange(begin, begin + tokens.size)
        stream, rotation = self._weight(EMBEDDING)[tokens], None
        if self.config.opt:
            stream = stream + self._weight(POSITIONS)[positions + POSITION_OFFSET]
        else:
            cosine, sine = rope_tables(self.config, positions)
            rotation = cosine.astype(self.precision), sine.astype(self.precision)
        for layer, cache in enumerate(caches):
            prefix = f"layers.{layer}."
            stream = stream + self._attention(prefix, stream, cache, rotation)
            stream = stream + self._feed_forward(prefix, stream)
        return stream

    def _head(self, stream: Floats) -> Logits:
        x = self._at(HEAD_POINT, self._norm(stream, "norm"))
        return self._linear(x, HEAD).astype(np.float32, copy=False)

    def _linear(self, x: Floats, name: str) -> Floats:
        product = x @ self._weight(name).T
        return product + self._weight(name + BIAS) if self.config.opt and name != HEAD else product

    def _norm(self, x: Floats, name: str) -> Floats:
        if self.config.opt:
            x = x - np.mean(x, axis=-1, keepdims=True)
        mean_square = np.mean(x * x, axis=-1, keepdims=True)
        root = np.sqrt(mean_square + self.precision(self.config.rms_norm_eps))
        scaled = x / root * self._weight(name)
        return scaled + self._weight(name + BIAS) if self.config.opt else scaled

    def _attention(
        self, prefix: str, stream: Floats, cache: _Cache, rotation: tuple[Floats, Floats] | None
    ) -> Floats:
        config = self.config
        x = self._at(prefix + "attention_input", self._norm(stream, prefix + "input_layernorm"))

        def heads_of(name: str) -> Floats:
            return self._linear(x, f"{prefix}self_attn.{name}").reshape(len(x), -1, config.head_dim)

        queries, keys = heads_of("q_proj"), heads_of("k_proj")
        if rotation is not None:
            queries, keys = rotate(queries, *rotation), rotate(keys, *rotation)
        queries = self._at(prefix + "queries", queries)
        keys = self._at(prefix + "keys", keys)
        values = self._at(prefix + "values", heads_of("v_proj"))
        all_keys, all_values = cache.append(keys.swapaxes(0, 1), values.swapaxes(0, 1))

        # Query heads that share a key head are neighbours: [kv_heads, heads per kv head, T, D].
        tokens, positions = len(x), cache.length
        grouped = queries.swapaxes(0, 1).reshape(
            config.kv_heads, config.heads_per_kv_head, tokens, config.head_dim
        )
        scores = grouped @ all_keys[:, None].swapaxes(-1, -2)
        scores *= self.precision(1.0 / math.sqrt(config.head_dim))
        np.copyto(scores, -np.inf, where=self._hidden(positions - tokens, positions))
        probabilities = self._at(
            prefix + "probabilities", softmax(scores).reshape(config.heads, tokens, positions)
        ).reshape(scores.shape)
        output = (probabilities @ all_values[:, None]).reshape(config.heads, tokens, -1)
        output = output.swapaxes(0, 1).reshape(tokens, config.query_width)
        return self._linear(
            self._at(prefix + "attention_output", output), prefix + "self_attn.o_proj"
        )

    def _hidden(self, begin: int, positions: int) -> npt.NDArray[np.bool_]:
        """Which keys [P] the queries from `begin` on do not see: [KV heads, heads per KV head, P - begin, P], or 1 of each."""
        queries, keys = np.arange(begin, positions), np.arange(positions)
        causal = keys > queries[:, None]
        if self._mask is None:
            return causal[None, None]
        heads = self.config.heads
        hidden = np.repeat(causal[None], heads, axis=0)
        masked = queries < self._masked
        hidden[:, masked] = ~self._mask.visible(heads, queries[masked], keys)
        return hidden.reshape(self.config.kv_heads, -1, *causal.shape)

    def _feed_forward(self, prefix: str, stream: Floats) -> Floats:
        x = self._norm(stream, prefix + "post_attention_layernorm")
        x = self._at(prefix + "feed_forward_input", x)
        hidden = self._linear(x, prefix + "mlp.up_proj")
        if self.config.opt:
            hidden = np.maximum(hidden, 0)
        else:
            hidden = silu(self._linear(x, prefix + "mlp.gate_proj")) * hidden
        return self._linear(
            self._at(prefix + "feed_forward_hidden", hidden), prefix + "mlp.down_proj"
        )


def softmax(scores: Floats) -> Floats:
    """Return exp(scores) over its sum along the last axis; rows hold one finite value at least."""
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def silu(x: Floats) -> Floats:
    """Return x / (1 + exp(-x)) without overflow for large negative x."""
    decayed = np.exp(-np.abs(x))
    return x * np.where(x >= 0, 1.0, decayed).astype(x.dtype) / (1 + decayed)
