"""The network: a Llama written as one function over its named weights.

The names, shapes and conventions (rotate-half positions, weights stored
output by input) are those of ``LlamaForCausalLM`` in Hugging Face transformers.
"""

# torch comes with the `reference` extra only: training needs it, using the model does not.
# pyright: reportMissingImports=false

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    Weights = dict[str, Tensor]

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 1024,
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 1024,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "mlp_bias": False,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "use_cache": True,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "torch_dtype": "bfloat16",
}

GROUP: int | None = 32
"""Inputs that share one scale when weights are rounded to four bits; None: all of a row, the output head's too."""

HEAD = "lm_head.weight"
"""The output head, where it is not the embedding itself."""


def become_wires() -> None:
    """Make the network the smaller one of `pydoc-wires`: every linear layer has a scale a row, as wires have."""
    global GROUP
    GROUP = None
    CONFIG.update(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=176,
        num_hidden_layers=2,
        head_dim=16,
        max_position_embeddings=256,
    )


def initial_weights(seed: int) -> "Weights":
    """Return fresh float32 weights under their Hugging Face names."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    hidden, inner, layers = (
        CONFIG[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers")
    )
    queries = CONFIG["num_attention_heads"] * CONFIG["head_dim"]
    keys = CONFIG["num_key_value_heads"] * CONFIG["head_dim"]
    weights: Weights = {}

    def matrix(name: str, rows: int, columns: int, scale: float) -> None:
        weights[name] = torch.randn(rows, columns, generator=generator) * scale

    matrix("model.embed_tokens.weight", CONFIG["vocab_size"], hidden, 0.02)
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        inside, outside = hidden**-0.5, (2 * layers) ** -0.5
        matrix(prefix + "self_attn.q_proj.weight", queries, hidden, inside)
        matrix(prefix + "self_attn.k_proj.weight", keys, hidden, inside)
        matrix(prefix + "self_attn.v_proj.weight", keys, hidden, inside)
        matrix(prefix + "self_attn.o_proj.weight", hidden, queries, queries**-0.5 * outside)
        matrix(prefix + "mlp.gate_proj.weight", inner, hidden, inside)
        matrix(prefix + "mlp.up_proj.weight", inner, hidden, inside)
        matrix(prefix + "mlp.down_proj.weight", hidden, inner, inner**-0.5 * outside)
        weights[prefix + "input_layernorm.weight"] = torch.ones(hidden)
        weights[prefix + "post_attention_layernorm.weight"] = torch.ones(hidden)
    weights["model.norm.weight"] = torch.ones(hidden)
    return weights


def forward(weights: "Weights", tokens: "Tensor") -> "Tensor":
    """Return the logits (batch, position, vocabulary) for ``tokens`` (batch, position)."""
    import torch
    from torch.nn import functional as F

    head_dim, hidden = CONFIG["head_dim"], CONFIG["hidden_size"]
    share = CONFIG["num_attention_heads"] // CONFIG["num_key_value_heads"]
    batch, length = tokens.shape
    rates = CONFIG["rope_theta"] ** (-torch.arange(0, head_dim, 2) / head_dim)
    angles = torch.outer(torch.arange(length), rates).repeat(1, 2)
    cosine, sine = angles.cos(), angles.sin()

    def norm(x: "Tensor", name: str) -> "Tensor":
        return F.rms_norm(x, (hidden,), weights[name], CONFIG["rms_norm_eps"])

    def heads(x: "Tensor", name: str) -> "Tensor":
        return F.linear(x, weights[name]).view(batch, length, -1, head_dim).transpose(1, 2)

    def rotate(x: "Tensor") -> "Tensor":
        first, second = x.chunk(2, dim=-1)
        return x * cosine + torch.cat((-second, first), dim=-1) * sine

    x = F.embedding(tokens, weights["model.embed_tokens.weight"])
    for layer in range(CONFIG["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        y = norm(x, prefix + "input_layernorm.weight")
        q = rotate(heads(y, prefix + "self_attn.q_proj.weight"))
        k = rotate(heads(y, prefix + "self_attn.k_proj.weight")).repeat_interleave(share, 1)
        v = heads(y, prefix + "self_attn.v_proj.weight").repeat_interleave(share, 1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        y = y.transpose(1, 2).reshape(batch, length, -1)
        x = x + F.linear(y, weights[prefix + "self_attn.o_proj.weight"])
        y = norm(x, prefix + "post_attention_layernorm.weight")
        gate = F.silu(F.linear(y, weights[prefix + "mlp.gate_proj.weight"]))
        y = gate * F.linear(y, weights[prefix + "mlp.up_proj.weight"])
        x = x + F.linear(y, weights[prefix + "mlp.down_proj.weight"])
    head = weights.get(HEAD, weights["model.embed_tokens.weight"])
    return F.linear(norm(x, "model.norm.weight"), head)


def loss(weights: "Weights", inputs: "Tensor", targets: "Tensor") -> "Tensor":
    """Return the mean next-token loss in nats."""
    from torch.nn import functional as F

    return F.cross_entropy(forward(weights, inputs).flatten(0, 1), targets.flatten())


def four_bit(weights: "Weights") -> "Weights":
    """Return ``weights`` with every linear layer rounded to symmetric 4-bit groups of `GROUP`.

    Gradients pass through the rounding unchanged (straight-through).
    """
    result = dict(weights)
    linear = {name: weight for name, weight in weights.items() if "_proj" in name}
    if GROUP is None:
        linear[HEAD] = weights["model.embed_tokens.weight"]
    for name, weight in linear.items():
        rounded = round_to(weight, 7, GROUP or weight.shape[1])
        result[name] = weight + (rounded - weight).detach()
    return result


def round_to(weight: "Tensor", top: int, group: int) -> "Tensor":
    """Round each group of inputs to the integers -top..top times its own scale."""
    grouped = weight.detach().unflatten(1, (-1, group))
    scale = (grouped.abs().amax(-1, keepdim=True) / top).clamp_min(1e-12)
    return ((grouped / scale).round().clamp(-top, top) * scale).flatten(1)
