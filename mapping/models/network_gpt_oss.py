"""The small gpt-oss that is trained here, written as one function over its named weights.

Names, shapes and conventions are those of ``GptOssForCausalLM``, except that expert matrices are kept as
[experts, outputs, inputs], the way MXFP4 stores them.
"""

# torch comes with the `reference` extra only: training needs it, using the model does not.
# pyright: reportMissingImports=false

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    Weights = dict[str, Tensor]

BLOCK = 32
LARGEST_CODE = 6.0
BALANCE = 0.01

CONFIG: dict[str, Any] = {
    "architectures": ["GptOssForCausalLM"],
    "model_type": "gpt_oss",
    "vocab_size": 1024,
    "hidden_size": 96,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 16,
    "num_local_experts": 16,
    "num_experts_per_tok": 4,
    "sliding_window": 32,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "max_position_embeddings": 1024,
    "hidden_act": "silu",
    "swiglu_alpha": 1.702,
    "swiglu_limit": 7.0,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": {
        "rope_type": "yarn",
        "factor": 2.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": False,
        "original_max_position_embeddings": 512,
    },
    "attention_bias": True,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "torch_dtype": "bfloat16",
    "quantization_config": {"quant_method": "mxfp4"},
}


def initial_weights(seed: int) -> "Weights":
    """Return fresh float32 weights under their Hugging Face names."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    c = CONFIG
    hidden, inner, experts = c["hidden_size"], c["intermediate_size"], c["num_local_experts"]
    queries = c["num_attention_heads"] * c["head_dim"]
    keys = c["num_key_value_heads"] * c["head_dim"]
    outside = (2 * c["num_hidden_layers"]) ** -0.5
    weights: Weights = {}

    def matrix(name: str, *shape: int, gain: float = 1.0) -> None:
        scale = gain * shape[-1] ** -0.5
        weights[name] = torch.randn(*shape, generator=generator) * scale

    matrix("model.embed_tokens.weight", c["vocab_size"], hidden)
    for layer in range(c["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        for which, rows, columns in (
            ("q", queries, hidden),
            ("k", keys, hidden),
            ("v", keys, hidden),
            ("o", hidden, queries),
        ):
            gain = outside if which == "o" else 1.0
            matrix(f"{prefix}self_attn.{which}_proj.weight", rows, columns, gain=gain)
            weights[f"{prefix}self_attn.{which}_proj.bias"] = torch.zeros(rows)
        weights[prefix + "self_attn.sinks"] = torch.zeros(c["num_attention_heads"])
        matrix(prefix + "mlp.router.weight", experts, hidden)
        weights[prefix + "mlp.router.bias"] = torch.zeros(experts)
        matrix(prefix + "mlp.experts.gate_up_proj", experts, 2 * inner, hidden)
        weights[prefix + "mlp.experts.gate_up_proj_bias"] = torch.zeros(experts, 2 * inner)
        matrix(prefix + "mlp.experts.down_proj", experts, hidden, inner, gain=outside)
        weights[prefix + "mlp.experts.down_proj_bias"] = torch.zeros(experts, hidden)
        weights[prefix + "input_layernorm.weight"] = torch.ones(hidden)
        weights[prefix + "post_attention_layernorm.weight"] = torch.ones(hidden)
    weights["model.norm.weight"] = torch.ones(hidden)
    matrix("lm_head.weight", c["vocab_size"], hidden)
    return weights


def rotary_tables(length: int) -> "tuple[Tensor, Tensor]":
    """Return cosines and sines (position, half a head) with YaRN."""
    import torch

    yarn, size = CONFIG["rope_scaling"], CONFIG["head_dim"]
    base, original = CONFIG["rope_theta"], yarn["original_max_position_embeddings"]
    rates = base ** (-torch.arange(0, size, 2) / size)
    low, high = (
        size * math.log(original / (beta * 2 * math.pi)) / (2 * math.log(base))
        for beta in (yarn["beta_fast"], yarn["beta_slow"])
    )
    slow = ((torch.arange(size // 2) - max(low, 0)) / (high - max(low, 0))).clamp(0, 1)
    rates = rates * (1 - slow) + rates / yarn["factor"] * slow
    angles = torch.outer(torch.arange(length), rates)
    factor = 0.1 * math.log(yarn["factor"]) + 1
    return angles.cos() * factor, angles.sin() * factor


def forward(weights: "Weights", tokens: "Tensor") -> "tuple[Tensor, Tensor]":
    """Return logits (batch, position, vocabulary) and how unevenly experts are used (1 is even)."""
    import torch
    from torch.nn import functional as F

    hidden, length = CONFIG["hidden_size"], tokens.shape[1]
    tables = rotary_tables(length)
    distance = torch.arange(length)[:, None] - torch.arange(length)
    masks = [(distance >= 0) & (distance < CONFIG["sliding_window"]), distance >= 0]
    x = F.embedding(tokens, weights["model.embed_tokens.weight"])
    uneven = torch.zeros(())
    for layer, kind in enumerate(CONFIG["layer_types"]):
        prefix = f"model.layers.{layer}."
        y = F.rms_norm(x, (hidden,), weights[prefix + "input_layernorm.weight"], 1e-5)
        mask = masks[kind == "full_attention"]
        x = x + _attention(weights, prefix + "self_attn.", y, tables, mask)
        y = F.rms_norm(x, (hidden,), weights[prefix + "post_attention_layernorm.weight"], 1e-5)
        y, imbalance = _experts(weights, prefix + "mlp.", y)
        x, uneven = x + y, uneven + imbalance / CONFIG["num_hidden_layers"]
    x = F.rms_norm(x, (hidden,), weights["model.norm.weight"], 1e-5)
    return F.linear(x, weights["lm_head.weight"]), uneven


def _attention(
    weights: "Weights", prefix: str, x: "Tensor", tables: "tuple[Tensor, Tensor]", mask: "Tensor"
) -> "Tensor":
    import torch
    from torch.nn import functional as F

    batch, length, _ = x.shape
    cosine, sine = tables

    def heads(which: str) -> "Tensor":
        name = f"{prefix}{which}_proj"
        y = F.linear(x, weights[name + ".weight"], weights[name + ".bias"])
        return y.view(batch, length, -1, CONFIG["head_dim"]).transpose(1, 2)

    def rotate(y: "Tensor") -> "Tensor":
        first, second = y.chunk(2, dim=-1)
        return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)

    share = CONFIG["num_attention_heads"] // CONFIG["num_key_value_heads"]
    q, k = rotate(heads("q")), rotate(heads("k")).repeat_interleave(share, 1)
    v = heads("v").repeat_interleave(share, 1)
    scores = q @ k.transpose(-1, -2) * CONFIG["head_dim"] ** -0.5
    scores = scores.float().masked_fill(~mask, float("-inf"))
    sinks = weights[prefix + "sinks"].view(1, -1, 1, 1).expand(batch, -1, length, 1)
    y = torch.cat([scores, sinks], dim=-1).softmax(-1)[..., :-1].to(v.dtype) @ v
    y = y.transpose(1, 2).reshape(batch, length, -1)
    return F.linear(y, weights[prefix + "o_proj.weight"], weights[prefix + "o_proj.bias"])


def _experts(weights: "Weights", prefix: str, x: "Tensor") -> "tuple[Tensor, Tensor]":
    """All experts on all tokens, for there are few; only the chosen ones count."""
    import torch
    from torch.nn import functional as F

    limit = CONFIG["swiglu_limit"]
    router = weights[prefix + "router.weight"], weights[prefix + "router.bias"]
    scores = F.linear(x, *router).float()
    values, chosen = scores.topk(CONFIG["num_experts_per_tok"], dim=-1)
    shares = torch.zeros_like(scores).scatter(-1, chosen, values.softmax(-1))
    used = (shares > 0).float().mean((0, 1)) / CONFIG["num_experts_per_tok"]
    imbalance = CONFIG["num_local_experts"] * (used * scores.softmax(-1).mean((0, 1))).sum()
    both = torch.einsum("btd,eod->bteo", x, weights[prefix + "experts.gate_up_proj"])
    both = both + weights[prefix + "experts.gate_up_proj_bias"]
    gate, up = both[..., ::2].clamp(max=limit), both[..., 1::2].clamp(-limit, limit)
    inner = gate * torch.sigmoid(CONFIG["swiglu_alpha"] * gate) * (up + 1)
    inner = inner * shares[..., None]
    y = torch.einsum("bteo,edo->btd", inner, weights[prefix + "experts.down_proj"])
    return y + shares @ weights[prefix + "experts.down_proj_bias"], imbalance


def loss(weights: "Weights", inputs: "Tensor", targets: "Tensor", balance: float) -> "Tensor":
    """Return the mean next-token loss in nats, plus ``balance`` times the unevenness of experts."""
    from torch.nn import functional as F

    logits, uneven = forward(weights, inputs)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten()) + balance * uneven


def is_matrix(name: str) -> bool:
    """Whether a weight is that of a linear layer, which hardware holds in MXFP4."""
    linear = name.endswith(("_proj.weight", "router.weight", "lm_head.weight"))
    return linear or name.endswith(("gate_up_proj", "down_proj"))


def in_mxfp4(weights: "Weights") -> "Weights":
    """Return ``weights`` with every linear layer rounded to MXFP4; gradients pass through."""
    result = dict(weights)
    for name, weight in weights.items():
        if is_matrix(name):
            result[name] = weight + (round_mxfp4(weight)[0] - weight).detach()
    return result


def round_mxfp4(weight: "Tensor") -> "tuple[Tensor, Tensor, Tensor]":
    """Return the nearest MXFP4 values, their codes, and the exponents of blocks of 32 inputs."""
    import torch

    grid = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    blocks = weight.detach().float().unflatten(-1, (-1, BLOCK))
    largest = blocks.abs().amax(-1, keepdim=True).clamp_min(2.0**-100)
    exponents = torch.floor(torch.log2(largest)) - 2
    scaled = (blocks / 2**exponents).clamp(-LARGEST_CODE, LARGEST_CODE)
    codes = torch.bucketize(scaled.abs(), (grid[1:] + grid[:-1]) / 2)
    signed = torch.where(scaled < 0, -grid[codes], grid[codes])
    codes = codes + 8 * (scaled < 0)
    return (signed * 2**exponents).flatten(-2), codes.flatten(-2), exponents.squeeze(-1)
