"""gpt-oss as its makers publish it, in the folder `original` of each checkpoint: other fields, other names.

Queries, keys and values are rows of one matrix, and MXFP4 tensors end in ``.blocks`` and ``.scales``; bytes,
and so numbers, are those of the Hugging Face folder beside it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mapping.frontend.config import Fields
from mapping.frontend.gpt_oss import GPT_OSS, GptOssConfig

__all__ = ["Rows", "is_original_config", "original_name", "translated_config"]

_OWN_FIELDS = ("num_experts", "initial_context_length")
"""In every original configuration, and in none of Hugging Face."""

_WHOLE = {"embed_tokens": "embedding.weight", "norm": "norm.scale", "lm_head": "unembedding.weight"}
_IN_LAYER = {
    "input_layernorm": "attn.norm.scale",
    "self_attn.o_proj": "attn.out.weight",
    "self_attn.o_proj.bias": "attn.out.bias",
    "self_attn.sinks": "attn.sinks",
    "post_attention_layernorm": "mlp.norm.scale",
    "mlp.router": "mlp.gate.weight",
    "mlp.router.bias": "mlp.gate.bias",
    "mlp.experts.gate_up_proj": "mlp.mlp1_weight",
    "mlp.experts.gate_up_proj_bias": "mlp.mlp1_bias",
    "mlp.experts.down_proj": "mlp.mlp2_weight",
    "mlp.experts.down_proj_bias": "mlp.mlp2_bias",
}
_LAYER = re.compile(r"layers\.(\d+)\.(.+)")
_PART = re.compile(r"self_attn\.([qkv])_proj(\.bias)?")


@dataclass(frozen=True)
class Rows:
    """The rows of a stored tensor that are a weight.

    Members
    -------
    name : str
        Of the stored tensor.
    first : int
        Row where the weight begins.
    total : int or None
        Rows of the stored tensor; None if it is the weight as a whole.
    """

    name: str
    first: int = 0
    total: int | None = None


def is_original_config(raw: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is one of the makers' own, which names no architecture."""
    return "architectures" not in raw and all(key in raw for key in _OWN_FIELDS)


def translated_config(fields: Fields) -> dict[str, Any]:
    """The same configuration with the fields of Hugging Face.

    Raises
    ------
    InputError
        If a field that has to be computed with is of the wrong kind.
    """
    raw = dict(fields.raw)
    original = fields.whole("initial_context_length")
    factor = fields.positive("rope_scaling_factor", default=32.0)
    raw |= {
        "architectures": [GPT_OSS],
        "num_local_experts": raw.pop("num_experts"),
        "max_position_embeddings": round(original * factor),
    }
    if factor > 1:
        raw["rope_scaling"] = {
            "rope_type": "yarn",
            "factor": factor,
            "beta_fast": fields.positive("rope_ntk_beta", default=32.0),
            "beta_slow": fields.positive("rope_ntk_alpha", default=1.0),
            "truncate": False,
            "original_max_position_embeddings": original,
        }
    return raw


def original_name(name: str, config: GptOssConfig) -> Rows:
    """Where the original checkpoint has a weight; expert matrices without ``.blocks`` and ``.scales``."""
    found = _LAYER.fullmatch(name)
    if found is None:
        return Rows(_WHOLE[name])
    prefix, rest = f"block.{found[1]}.", found[2]
    part = _PART.fullmatch(rest)
    if part is None:
        return Rows(prefix + _IN_LAYER[rest])
    queries, keys = config.query_width, config.key_width
    first = {"q": 0, "k": queries, "v": queries + keys}[part[1]]
    return Rows(f"{prefix}attn.qkv{part[2] or '.weight'}", first, queries + 2 * keys)
