"""OPT: what of its configurations is accepted, and where its weights are found."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hw.spec.errors import InputError
from mapping.export import export_model
from mapping.frontend.config import ModelConfig, parse_config
from mapping.frontend.model import load_model
from mapping.frontend.opt import opt_shapes, opt_stored_name

MINIMAL: dict[str, Any] = {
    "architectures": ["OPTForCausalLM"],
    "hidden_size": 72,
    "ffn_dim": 100,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "vocab_size": 97,
}


def parse(**changes: Any) -> ModelConfig:
    return parse_config(MINIMAL | changes, "trial", "config.json")


def test_defaults_are_those_of_the_reference_implementation() -> None:
    config = parse()
    assert config.opt
    assert (config.heads, config.kv_heads, config.head_dim) == (6, 6, 12)
    assert (config.intermediate_size, config.maximum_positions) == (100, 2048)
    assert (config.rms_norm_eps, config.activation) == (1e-5, "relu")
    assert config.tie_word_embeddings
    assert not parse(tie_word_embeddings=False).tie_word_embeddings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"do_layer_norm_before": False}, "do_layer_norm_before: expected true"),
        ({"word_embed_proj_dim": 36}, "word_embed_proj_dim: expected hidden_size 72.*found 36"),
        ({"enable_bias": False}, "enable_bias: expected true"),
        ({"layer_norm_elementwise_affine": False}, "layer_norm_elementwise_affine: expected true"),
        ({"_remove_final_layer_norm": True}, "_remove_final_layer_norm: expected false"),
        ({"activation_function": "gelu"}, "activation_function: expected 'relu', found 'gelu'"),
        ({"num_attention_heads": 7}, "num_attention_heads: expected a divisor"),
        ({"num_attention_heads": 8}, "num_attention_heads: expected a divisor"),
        ({"ffn_dim": None}, "ffn_dim: expected a whole number"),
        ({"num_hidden_layers": 1 << 20}, "num_hidden_layers: expected a whole number"),
        ({"bos_token_id": 97}, "bos_token_id: expected token ids below"),
    ],
)
def test_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^config.json: {message}") as refusal:
        parse(**changes)
    assert "\n" not in str(refusal.value)


def test_names_in_a_checkpoint() -> None:
    names = {
        "embed_tokens": "model.decoder.embed_tokens.weight",
        "embed_positions": "model.decoder.embed_positions.weight",
        "layers.10.input_layernorm_bias": "model.decoder.layers.10.self_attn_layer_norm.bias",
        "layers.0.self_attn.o_proj": "model.decoder.layers.0.self_attn.out_proj.weight",
        "layers.0.self_attn.q_proj_bias": "model.decoder.layers.0.self_attn.q_proj.bias",
        "layers.2.post_attention_layernorm": "model.decoder.layers.2.final_layer_norm.weight",
        "layers.2.mlp.up_proj": "model.decoder.layers.2.fc1.weight",
        "layers.2.mlp.down_proj_bias": "model.decoder.layers.2.fc2.bias",
        "norm_bias": "model.decoder.final_layer_norm.bias",
        "lm_head": "lm_head.weight",
    }
    assert {name: opt_stored_name(name) for name in names} == names
    stored = [opt_stored_name(name) for name in opt_shapes(parse())]
    assert len(set(stored)) == len(stored)


def test_a_missing_bias_is_named(fixtures_folder: Path, edit_json: Callable[..., None], tmp_path: Path) -> None:  # fmt: skip
    folder = Path(shutil.copytree(fixtures_folder / "opt_f32", tmp_path / "opt"))
    edit_json(folder / "config.json", num_hidden_layers=3)
    with pytest.raises(InputError, match=r"model.decoder.layers.2.self_attn_layer_norm.weight"):
        load_model(folder)


def test_packed_folders_and_export_are_refused(fixtures_folder: Path, edit_json: Callable[..., None], tmp_path: Path) -> None:  # fmt: skip
    folder = Path(shutil.copytree(fixtures_folder / "opt_f32", tmp_path / "opt"))
    with pytest.raises(InputError, match="found OPT"):
        export_model(load_model(folder), "awq-gemm", tmp_path / "out")
    packed = {"quant_method": "gptq", "bits": 4, "group_size": 8, "sym": True, "desc_act": False}
    edit_json(folder / "config.json", quantization_config=packed)
    with pytest.raises(InputError, match="quantization_config: expected plain weights of an OPT"):
        load_model(folder)


def test_known_configuration() -> None:
    model = load_model("opt-6.7b")
    assert model.synthetic
    assert model.tensor_shapes["embed_positions"] == (2050, 4096)
    small = model.tensor("layers.0.self_attn.q_proj_bias")
    assert 0 < np.abs(small).mean() < 0.2
