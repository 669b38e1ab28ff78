"""OPT: its configuration, and the names of its weights in a checkpoint (Zhang et al. 2022, arXiv 2205.01068).

Inside, weights go by the names of their Llama counterparts, so that recipes, calibration and packing know one set of
names: ``self_attn.o_proj`` is OPT's ``self_attn.out_proj``, ``mlp.up_proj`` its ``fc1`` and ``mlp.down_proj`` its ``fc2``.
"""

import re

from mapping.frontend.config import OPT, Fields, ModelConfig

POSITIONS = "embed_positions"
"""The table of learned positions: [maximum_positions + POSITION_OFFSET, hidden]."""
POSITION_OFFSET = 2
"""Row of the first position of a text; the rows before it were padding of the training code."""
BIAS = "_bias"
"""How the name of a bias ends, of a matrix as of a norm."""

_EPSILON = 1e-5
"""Of every LayerNorm; configurations do not say it."""
_LARGEST_LAYERS = 1024

_STORED = {
    "input_layernorm": "self_attn_layer_norm",
    "post_attention_layernorm": "final_layer_norm",
    "norm": "final_layer_norm",
    "self_attn.o_proj": "self_attn.out_proj",
    "mlp.up_proj": "fc1",
    "mlp.down_proj": "fc2",
}
_LAYER = re.compile(r"(layers\.\d+\.)(.*)")


def parse_opt(fields: Fields, name: str) -> ModelConfig:
    """Return the configuration in a `config.json` of OPT.

    Raises
    ------
    InputError
        If a field is missing or of the wrong kind, or what this project cannot run is asked for: the norm behind a
        block, embeddings of another width, or a model without biases (OPT-350m, Galactica).
    """
    hidden = fields.whole("hidden_size")
    heads = fields.whole("num_attention_heads")
    if hidden % heads or hidden // heads % 2:
        raise fields.refuse(
            "num_attention_heads",
            f"a divisor of hidden_size {hidden} that leaves heads of even size",
        )
    for key in ("do_layer_norm_before", "enable_bias", "layer_norm_elementwise_affine"):
        if not fields.flag(key, default=True):
            raise fields.refuse(key, "true: other variants of OPT are not supported")
    for key in ("_remove_final_layer_norm",):
        if fields.flag(key):
            raise fields.refuse(key, "false: other variants of OPT are not supported")
    if fields.whole("word_embed_proj_dim", default=hidden) != hidden:
        raise fields.refuse(
            "word_embed_proj_dim",
            f"hidden_size {hidden}: projected embeddings are not supported",
        )
    if fields.raw.get("activation_function", "relu") != "relu":
        raise fields.refuse("activation_function", "'relu'")
    vocabulary_size = fields.whole("vocab_size", default=50272)
    return ModelConfig(
        name=name,
        architecture=OPT,
        hidden_size=hidden,
        intermediate_size=fields.whole("ffn_dim"),
        layers=fields.whole("num_hidden_layers", limit=_LARGEST_LAYERS),
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        vocabulary_size=vocabulary_size,
        rms_norm_eps=_EPSILON,
        rope_theta=1.0,
        rope_scaling=None,
        tie_word_embeddings=fields.flag("tie_word_embeddings", default=True),
        maximum_positions=fields.whole("max_position_embeddings", default=2048),
        bos_token_ids=fields.token_ids("bos_token_id", vocabulary_size),
        eos_token_ids=fields.token_ids("eos_token_id", vocabulary_size),
        activation="relu",
    )


def opt_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of all weights in the order of use; see `mapping.frontend.weights.tensor_shapes`."""
    hidden, inner = config.hidden_size, config.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {
        "embed_tokens": (config.vocabulary_size, hidden),
        POSITIONS: (config.maximum_positions + POSITION_OFFSET, hidden),
    }

    def norm(name: str) -> None:
        shapes[name] = shapes[name + BIAS] = (hidden,)

    for layer in range(config.layers):
        prefix = f"layers.{layer}."
        norm(prefix + "input_layernorm")
        for name, outputs, inputs in (
            ("self_attn.q_proj", config.query_width, hidden),
            ("self_attn.k_proj", config.key_width, hidden),
            ("self_attn.v_proj", config.key_width, hidden),
            ("self_attn.o_proj", hidden, config.query_width),
            ("mlp.up_proj", inner, hidden),
            ("mlp.down_proj", hidden, inner),
        ):
            if name == "mlp.up_proj":
                norm(prefix + "post_attention_layernorm")
            shapes[prefix + name] = (outputs, inputs)
            shapes[prefix + name + BIAS] = (outputs,)
    norm("norm")
    if not config.tie_word_embeddings:
        shapes["lm_head"] = (config.vocabulary_size, hidden)
    return shapes


def opt_stored_name(name: str) -> str:
    """Return the name that a weight has in a checkpoint of OPT."""
    if name == "lm_head":
        return "lm_head.weight"
    base, end = (name.removesuffix(BIAS), "bias") if name.endswith(BIAS) else (name, "weight")
    layer = _LAYER.fullmatch(base)
    prefix, base = layer.groups() if layer else ("", base)
    return f"model.decoder.{prefix}{_STORED.get(base, base)}.{end}"
