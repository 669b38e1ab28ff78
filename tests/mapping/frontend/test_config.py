"""`config.json`: what is accepted, what it means, and what is refused."""

from typing import Any

import pytest

from hw.spec.errors import InputError
from mapping.frontend.config import ModelConfig, parse_config

MINIMAL: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 72,
    "intermediate_size": 100,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "vocab_size": 97,
}

LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def parse(**changes: Any) -> ModelConfig:
    raw = {key: value for key, value in (MINIMAL | changes).items() if value is not ...}
    return parse_config(raw, "trial", "config.json")


def test_defaults_are_those_of_the_reference_implementation() -> None:
    config = parse()
    assert (config.heads, config.kv_heads, config.head_dim) == (6, 6, 12)
    assert (config.rms_norm_eps, config.rope_theta, config.maximum_positions) == (1e-6, 1e4, 2048)
    assert config.rope_scaling is None
    assert not config.tie_word_embeddings
    assert config.bos_token_ids == config.eos_token_ids == ()


def test_head_dim_need_not_divide_hidden_size() -> None:
    config = parse(num_attention_heads=7, num_key_value_heads=1, head_dim=20)
    assert (config.query_width, config.key_width, config.heads_per_kv_head) == (140, 20, 7)


def test_token_ids_may_be_one_or_several() -> None:
    config = parse(bos_token_id=0, eos_token_id=[5, 96])
    assert (config.bos_token_ids, config.eos_token_ids) == ((0,), (5, 96))


@pytest.mark.parametrize(
    "fields",
    [
        {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4}},
        {"rope_theta": 5e5, "rope_scaling": {"rope_type": "linear", "factor": 4}},
        {"rope_parameters": {"rope_theta": 5e5, "rope_type": "linear", "factor": 4}},
    ],
)
def test_linear_scaling_in_every_spelling(fields: dict[str, Any]) -> None:
    config = parse(**fields)
    assert config.rope_theta == 5e5
    assert config.rope_scaling == {"kind": "linear", "factor": 4.0}


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_llama3_scaling(key: str) -> None:
    config = parse(**{key: LLAMA3 | {"rope_type": "llama3"}})
    assert config.rope_scaling == LLAMA3 | {"kind": "llama3"}


def test_default_rope_parameters_mean_no_scaling() -> None:
    config = parse(rope_parameters={"rope_theta": 777.0, "rope_type": "default"})
    assert (config.rope_theta, config.rope_scaling) == (777.0, None)


def test_mistral_without_window() -> None:
    config = parse(
        architectures=["MistralForCausalLM"],
        hidden_size=96,
        num_attention_heads=16,
        sliding_window=None,
    )
    assert (config.kv_heads, config.maximum_positions) == (8, 131072)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "architecture": (
        {"architectures": ["GPT2LMHeadModel"]},
        r"architectures: .*LlamaForCausalLM, MistralForCausalLM, OPTForCausalLM, GptOssForCausalLM, found \['GPT2LMHeadModel'\]",
    ),
    "no architecture": ({"architectures": ...}, "architectures: expected one of"),
    "two architectures": ({"architectures": ["LlamaForCausalLM"] * 2}, "architectures"),
    "nested architecture": ({"architectures": [{}]}, "architectures"),
    "attention bias": ({"attention_bias": True}, "attention_bias: .*without them"),
    "mlp bias": ({"mlp_bias": True}, "mlp_bias: .*without them"),
    "activation": ({"hidden_act": "gelu"}, "hidden_act: expected 'silu', found 'gelu'"),
    "window": (
        {"architectures": ["MistralForCausalLM"], "sliding_window": 64},
        "sliding_window: expected null",
    ),
    "default window": (
        {"architectures": ["MistralForCausalLM"], "num_key_value_heads": 2},
        "sliding_window: expected null",
    ),
    "missing field": ({"hidden_size": ...}, "hidden_size: .*found nothing"),
    "text": ({"num_hidden_layers": "three"}, "num_hidden_layers: .*found 'three'"),
    "bool": ({"num_hidden_layers": True}, "num_hidden_layers: .*found True"),
    "zero": ({"vocab_size": 0}, "vocab_size: .*found 0"),
    "too many layers": ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
    "kv heads": ({"num_key_value_heads": 4}, "num_key_value_heads: expected a divisor of"),
    "head_dim needed": ({"num_attention_heads": 7}, "head_dim: .*no multiple of 7 heads"),
    "odd head_dim": ({"head_dim": 9}, "head_dim: expected an even number"),
    "odd derived head_dim": ({"hidden_size": 54}, "head_dim: expected an even number"),
    "negative eps": ({"rms_norm_eps": -1e-5}, "rms_norm_eps: expected a positive number"),
    "infinite theta": ({"rope_theta": float("inf")}, "rope_theta: expected a positive number"),
    "long theta": ({"rope_theta": 10**400}, "rope_theta: expected a positive number"),
    "tie": ({"tie_word_embeddings": "yes"}, "tie_word_embeddings: expected true or false"),
    "token id": ({"eos_token_id": 97}, "eos_token_id: expected token ids below vocab_size 97"),
    "token text": ({"bos_token_id": "<s>"}, "bos_token_id: expected a token id"),
    "yarn": (
        {"rope_scaling": {"rope_type": "yarn", "factor": 4}},
        "rope_scaling: rope_type: .*found 'yarn'",
    ),
    "no kind": ({"rope_scaling": {"factor": 4}}, "rope_scaling: type: .*found nothing"),
    "no factor": (
        {"rope_scaling": {"type": "linear"}},
        "rope_scaling: factor: expected a positive",
    ),
    "scaling list": ({"rope_scaling": [1]}, "rope_scaling: expected an object"),
    "llama3 order": (
        {"rope_scaling": LLAMA3 | {"type": "llama3", "high_freq_factor": 1.0}},
        "rope_scaling: high_freq_factor: expected more than low_freq_factor",
    ),
    "partial": ({"partial_rotary_factor": 0.5}, "partial_rotary_factor: expected 1"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refuses(kind: str) -> None:
    changes, message = REFUSED[kind]
    with pytest.raises(InputError, match=f"^config.json: {message}"):
        parse(**changes)
