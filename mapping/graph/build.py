"""From a configuration to the graph of one forward step."""

import math

from mapping.frontend.config import ModelConfig, require_flight
from mapping.frontend.opt import BIAS, POSITIONS
from mapping.frontend.weights import EMBEDDING, HEAD, tensor_shapes
from mapping.graph.ir import (
    POSITIONS as SEEN,
)
from mapping.graph.ir import (
    TOKENS,
    Attribute,
    Extent,
    Graph,
    Node,
    Operator,
    Role,
    Tensor,
)
from mapping.graph.verify import verify_graph

TOKEN_IDS = "token_ids"
ROPE_TABLE = "rope_table"
LOGITS = "logits"
NEXT_TOKEN = "next_token"


class _Builder:
    """Collects nodes and the tensors they compute."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self.nodes: list[Node] = []
        self.tensors: list[Tensor] = []
        self.layer: int | None = None

    def declare(self, name: str, shape: tuple[Extent, ...], role: Role) -> str:
        self.tensors.append(Tensor(name, shape, role))
        return name

    def add(
        self,
        name: str,
        operator: Operator,
        inputs: tuple[str, ...],
        width: int | None,
        **attributes: Attribute,
    ) -> str:
        """Append a node and return the tensor it computes: [tokens, width], or [tokens] for None."""
        if self.layer is not None:
            name = f"layers.{self.layer}.{name}"
        shape: tuple[Extent, ...] = (TOKENS,) if width is None else (TOKENS, width)
        self.nodes.append(Node(name, operator, inputs, tuple(attributes.items()), self.layer))
        return self.declare(name, shape, Role.ACTIVATION)


def build_graph(config: ModelConfig) -> Graph:
    """Return the graph of one step: token ids in, logits and the most likely next tokens out.

    Every weight of `tensor_shapes` is a tensor of the same name. With tied embeddings the logits read
    ``embed_tokens``. The result has passed `verify_graph`.
    """
    require_flight(config, "a graph")
    builder = _Builder(config)
    builder.declare(TOKEN_IDS, (TOKENS,), Role.INPUT)
    if not config.opt:
        builder.declare(ROPE_TABLE, (config.maximum_positions, config.head_dim), Role.TABLE)
    for name, shape in tensor_shapes(config).items():
        builder.declare(name, shape, Role.WEIGHT)
    stream = builder.add(
        "embedding", Operator.EMBEDDING, (TOKEN_IDS, EMBEDDING), config.hidden_size
    )
    if config.opt:
        stream = builder.add("position", Operator.POSITION, (stream, POSITIONS), config.hidden_size)
    for layer in range(config.layers):
        builder.layer = layer
        stream = _attention_block(builder, stream)
        stream = _feed_forward_block(builder, stream)
    builder.layer = None
    final = _norm(builder, "final_norm", stream, "norm")
    head = EMBEDDING if config.tie_word_embeddings else HEAD
    builder.add(LOGITS, Operator.LINEAR, (final, head), config.vocabulary_size)
    builder.add(NEXT_TOKEN, Operator.ARGMAX, (LOGITS,), None)
    graph = Graph(config.name, tuple(builder.tensors), tuple(builder.nodes), (LOGITS, NEXT_TOKEN))
    verify_graph(graph)
    return graph


def _norm(builder: _Builder, name: str, stream: str, gain: str) -> str:
    config = builder.config
    operator, inputs = Operator.RMS_NORM, (stream, gain)
    if config.opt:
        operator, inputs = Operator.LAYER_NORM, (stream, gain, gain + BIAS)
    return builder.add(name, operator, inputs, config.hidden_size, epsilon=config.rms_norm_eps)


def _linear(builder: _Builder, name: str, x: str, matrix: str, outputs: int) -> str:
    inputs = (x, matrix, matrix + BIAS) if builder.config.opt else (x, matrix)
    return builder.add(name, Operator.LINEAR, inputs, outputs)


def _attention_block(builder: _Builder, stream: str) -> str:
    """Append the first half of a layer and return the new residual stream."""
    config = builder.config
    prefix = f"layers.{builder.layer}."
    weights = prefix + "self_attn."
    cache = (config.kv_heads, SEEN, config.head_dim)
    key_cache = builder.declare(prefix + "key_cache", cache, Role.CACHE)
    value_cache = builder.declare(prefix + "value_cache", cache, Role.CACHE)
    queries, keys = config.query_width, config.key_width

    x = _norm(builder, "attention_norm", stream, prefix + "input_layernorm")
    q = _linear(builder, "query", x, weights + "q_proj", queries)
    k = _linear(builder, "key", x, weights + "k_proj", keys)
    v = _linear(builder, "value", x, weights + "v_proj", keys)
    if not config.opt:
        q = builder.add("query_rope", Operator.ROPE, (q, ROPE_TABLE), queries, heads=config.heads)
        k = builder.add("key_rope", Operator.ROPE, (k, ROPE_TABLE), keys, heads=config.kv_heads)
    x = builder.add(
        "attention",
        Operator.ATTENTION,
        (q, k, v, key_cache, value_cache),
        queries,
        heads=config.heads,
        kv_heads=config.kv_heads,
        scale=1.0 / math.sqrt(config.head_dim),
    )
    x = _linear(builder, "attention_projection", x, weights + "o_proj", config.hidden_size)
    return builder.add("attention_add", Operator.ADD, (stream, x), config.hidden_size)


def _feed_forward_block(builder: _Builder, stream: str) -> str:
    """Append the second half of a layer and return the new residual stream."""
    config = builder.config
    prefix = f"layers.{builder.layer}."
    weights = prefix + "mlp."
    inner = config.intermediate_size

    x = _norm(builder, "feed_forward_norm", stream, prefix + "post_attention_layernorm")
    if config.opt:
        up = _linear(builder, "up", x, weights + "up_proj", inner)
        x = builder.add("relu", Operator.RELU, (up,), inner)
    else:
        gate = _linear(builder, "gate", x, weights + "gate_proj", inner)
        up = _linear(builder, "up", x, weights + "up_proj", inner)
        x = builder.add("silu_multiply", Operator.SILU_MULTIPLY, (gate, up), inner)
    x = _linear(builder, "down", x, weights + "down_proj", config.hidden_size)
    return builder.add("feed_forward_add", Operator.ADD, (stream, x), config.hidden_size)
