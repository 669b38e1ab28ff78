"""The shape of a gpt-oss model: mixture of experts, alternating windows, attention sinks, YaRN."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hw.spec.errors import InputError
from mapping.frontend.config import Fields, ModelConfig
from mapping.frontend.files import shown
from mapping.frontend.safetensors_file import Shape

GPT_OSS = "GptOssForCausalLM"

MXFP4_BLOCK = 32
"""Inputs that share one power-of-two scale (OCP Microscaling formats 1.0)."""

_LAYER_KINDS = ("sliding_attention", "full_attention")
_LARGEST_EXPERTS = 4096


@dataclass(frozen=True, kw_only=True)
class GptOssConfig(ModelConfig):
    """A decoder-only transformer of the gpt-oss family.

    `rope_scaling` is None or has `kind` ``"yarn"`` with `factor`, `beta_fast`, `beta_slow`, `truncate`,
    `attention_factor` and `original_max_position_embeddings`. `intermediate_size` is that of one expert.

    Members
    -------
    experts, experts_per_token : int
        Feed-forward networks of a layer, and how many of them the router picks for a token.
    window : int
        Positions that a windowed layer attends to, its own among them.
    windowed_layers : tuple[bool, ...]
        Which layers are windowed.
    swiglu_alpha, swiglu_limit : float
        Slope of the gate's sigmoid; clamp of gate (above) and up (both sides).
    """

    experts: int
    experts_per_token: int
    window: int
    windowed_layers: tuple[bool, ...]
    swiglu_alpha: float
    swiglu_limit: float

    def attended(self, layer: int, positions: int) -> int:
        """Positions that layer ``layer`` attends to when there are ``positions``."""
        return min(positions, self.window) if self.windowed_layers[layer] else positions


def parse_gpt_oss(fields: Fields, name: str) -> GptOssConfig:
    """Return the configuration in a checked `config.json` of a gpt-oss model.

    Raises
    ------
    InputError
        If a field is missing or of the wrong kind, or what this project cannot run is asked for.
    """
    _refuse_unsupported(fields)
    heads, kv_heads = fields.whole("num_attention_heads"), fields.whole("num_key_value_heads")
    if heads % kv_heads:
        raise fields.refuse("num_key_value_heads", f"a divisor of num_attention_heads {heads}")
    head_dim = fields.whole("head_dim", default=64)
    if head_dim % 2:
        raise fields.refuse("head_dim", "an even number of elements to rotate in pairs")
    layers = fields.whole("num_hidden_layers", limit=1024)
    experts = fields.whole("num_local_experts", limit=_LARGEST_EXPERTS)
    chosen_key = "experts_per_token" if "experts_per_token" in fields.raw else "num_experts_per_tok"
    chosen = fields.whole(chosen_key)
    if chosen > experts:
        raise fields.refuse(chosen_key, f"at most num_local_experts {experts}")
    vocabulary_size = fields.whole("vocab_size")
    theta, scaling = _parse_yarn(fields)
    return GptOssConfig(
        name=name,
        architecture=GPT_OSS,
        hidden_size=fields.whole("hidden_size"),
        intermediate_size=fields.whole("intermediate_size"),
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocabulary_size=vocabulary_size,
        rms_norm_eps=fields.positive("rms_norm_eps", default=1e-5),
        rope_theta=theta,
        rope_scaling=scaling,
        tie_word_embeddings=False,
        maximum_positions=fields.whole("max_position_embeddings", default=131072),
        bos_token_ids=fields.token_ids("bos_token_id", vocabulary_size),
        eos_token_ids=fields.token_ids("eos_token_id", vocabulary_size),
        activation="silu",
        experts=experts,
        experts_per_token=chosen,
        window=fields.whole("sliding_window", default=128),
        windowed_layers=_parse_layer_kinds(fields, layers),
        swiglu_alpha=fields.positive("swiglu_alpha", default=1.702),
        swiglu_limit=fields.positive("swiglu_limit", default=7.0),
    )


def _refuse_unsupported(fields: Fields) -> None:
    if fields.flag("tie_word_embeddings"):
        raise fields.refuse("tie_word_embeddings", "false, as in every published gpt-oss")
    if fields.raw.get("attention_bias", True) is not True:
        raise fields.refuse("attention_bias", "true, as in every published gpt-oss")
    if fields.raw.get("hidden_act", "silu") != "silu":
        raise fields.refuse("hidden_act", "'silu'")
    quantization = fields.raw.get("quantization_config")
    if quantization is not None and (
        not isinstance(quantization, Mapping) or quantization.get("quant_method") != "mxfp4"
    ):
        raise fields.refuse("quantization_config", "quant_method 'mxfp4', or none")


def _parse_layer_kinds(fields: Fields, layers: int) -> tuple[bool, ...]:
    kinds = fields.raw.get("layer_types")
    if kinds is None:
        return tuple(layer % 2 == 0 for layer in range(layers))
    known = isinstance(kinds, list) and all(kind in _LAYER_KINDS for kind in kinds)
    if not known or len(kinds) != layers:
        raise fields.refuse("layer_types", f"{layers} of {', '.join(_LAYER_KINDS)}")
    return tuple(kind == _LAYER_KINDS[0] for kind in kinds)


def _parse_yarn(fields: Fields) -> tuple[float, dict[str, Any] | None]:
    """Return theta and the scaling, from ``rope_scaling`` or the newer ``rope_parameters``."""
    key = "rope_parameters" if fields.raw.get("rope_parameters") is not None else "rope_scaling"
    raw = fields.raw.get(key)
    if raw is None:
        return fields.positive("rope_theta", default=150000.0), None
    if not isinstance(raw, dict):
        raise fields.refuse(key, "an object or null")
    inner = Fields(raw, f"{fields.label}: {key}")
    theta = (inner if "rope_theta" in raw else fields).positive("rope_theta", default=150000.0)
    kind_key = "rope_type" if "rope_type" in raw else "type"
    if raw.get(kind_key) == "default":
        return theta, None
    if raw.get(kind_key) != "yarn":
        raise inner.refuse(kind_key, "'yarn' or 'default'")
    for unknown in ("mscale", "mscale_all_dim"):
        if raw.get(unknown) is not None:
            raise inner.refuse(unknown, "no such field: no gpt-oss has it")
    factor = inner.positive("factor")
    usual = 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0
    truncate = raw.get("truncate", True)
    if not isinstance(truncate, bool):
        raise inner.refuse("truncate", "true or false")
    return theta, {
        "kind": "yarn",
        "factor": factor,
        "beta_fast": inner.positive("beta_fast", default=32.0),
        "beta_slow": inner.positive("beta_slow", default=1.0),
        "truncate": truncate,
        "attention_factor": inner.positive("attention_factor", default=usual),
        "original_max_position_embeddings": inner.whole(
            "original_max_position_embeddings", default=4096
        ),
    }


def gpt_oss_shapes(config: GptOssConfig) -> dict[str, Shape]:
    """Return the shape of every weight, in the order of use; matrices are [outputs, inputs].

    Rows of ``gate_up_proj`` alternate: even rows belong to the gate, odd ones to up.
    """
    hidden, inner, experts = config.hidden_size, config.intermediate_size, config.experts
    shapes: dict[str, Shape] = {"embed_tokens": (config.vocabulary_size, hidden)}
    for layer in range(config.layers):
        prefix = f"layers.{layer}."
        shapes[prefix + "input_layernorm"] = (hidden,)
        for which, rows, columns in (
            ("q", config.query_width, hidden),
            ("k", config.key_width, hidden),
            ("v", config.key_width, hidden),
            ("o", hidden, config.query_width),
        ):
            shapes[f"{prefix}self_attn.{which}_proj"] = (rows, columns)
            shapes[f"{prefix}self_attn.{which}_proj.bias"] = (rows,)
        shapes[prefix + "self_attn.sinks"] = (config.heads,)
        shapes[prefix + "post_attention_layernorm"] = (hidden,)
        shapes[prefix + "mlp.router"] = (experts, hidden)
        shapes[prefix + "mlp.router.bias"] = (experts,)
        shapes[prefix + "mlp.experts.gate_up_proj"] = (experts, 2 * inner, hidden)
        shapes[prefix + "mlp.experts.gate_up_proj_bias"] = (experts, 2 * inner)
        shapes[prefix + "mlp.experts.down_proj"] = (experts, hidden, inner)
        shapes[prefix + "mlp.experts.down_proj_bias"] = (experts, hidden)
    shapes["norm"] = (hidden,)
    shapes["lm_head"] = (config.vocabulary_size, hidden)
    return shapes


def is_expert_matrix(name: str) -> bool:
    """Whether a weight is one of those that gpt-oss stores in MXFP4."""
    return name.endswith((".experts.gate_up_proj", ".experts.down_proj"))


def require_gpt_oss(config: ModelConfig, what: str) -> GptOssConfig:
    """Return the configuration as that of a gpt-oss model.

    Raises
    ------
    InputError
        If it is of another family; ``what`` says what was asked for.
    """
    if not isinstance(config, GptOssConfig):
        raise InputError(
            f"{config.name}: architecture: expected {GPT_OSS} for {what}, "
            f"found {shown(config.architecture)}"
        )
    return config
