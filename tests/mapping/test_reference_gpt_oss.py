"""The float reference of gpt-oss against logits of an outside implementation, stored and live."""

import json
from pathlib import Path

import numpy as np
import pytest

from hw.spec.errors import InputError
from mapping.frontend import load_model
from mapping.reference_gpt_oss import GptOssReference


@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_stored_logits(precision: type[np.float32], fixtures_folder: Path) -> None:
    folder = fixtures_folder.parent / "gpt_oss_mxfp4"
    expected = np.load(folder / "expected.npz")
    found = GptOssReference(load_model(folder), precision=precision).logits(expected["token_ids"])
    tolerance = 1e-5 * np.abs(expected["logits"]).max()
    np.testing.assert_allclose(found, expected["logits"], rtol=1e-5, atol=tolerance)


@pytest.mark.parametrize(
    "token_ids, complaint",
    [
        ([], "at least one"),
        ([3, 73], "below the vocabulary of 73, found 73"),
        ([0] * 257, "at most 256 positions, found 257"),
        ([0.5], "whole number"),
    ],
)
def test_bad_tokens(token_ids: list[int], complaint: str, fixtures_folder: Path) -> None:
    reference = GptOssReference(load_model(fixtures_folder.parent / "gpt_oss_mxfp4"))
    with pytest.raises(InputError, match=complaint):
        reference.logits(token_ids)


@pytest.mark.slow
@pytest.mark.parametrize("truncate", [False, True])
def test_long_texts_against_transformers(truncate: bool, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    config = transformers.GptOssConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=32,
        vocab_size=151,
        num_local_experts=12,
        num_experts_per_tok=4,
        sliding_window=128,
        max_position_embeddings=4096,
        attn_implementation="eager",
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 150000.0,
            "factor": 8.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": truncate,
            "original_max_position_embeddings": 512,
        },
    )
    outside = transformers.GptOssForCausalLM(config).float().eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in outside.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            small = name.endswith(("bias", "sinks"))
            scale = 0.5 if small else 1.5 * parameter.shape[-1] ** -0.5
            parameter.copy_(1 + 0.3 * noise if "norm" in name else scale * noise)
    outside.save_pretrained(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    assert raw["architectures"] == ["GptOssForCausalLM"]
    tokens = torch.randint(config.vocab_size, (1, 1500), generator=generator)
    with torch.no_grad():
        expected = outside(tokens).logits[0].numpy()
    found = GptOssReference(load_model(tmp_path), precision=np.float64).logits(tokens[0].numpy())
    # A router's near-tie may fall the other way in float32; such a token differs as a whole.
    wrong = np.abs(found - expected).max(axis=1) > 2e-3 * np.abs(expected).max()
    assert wrong.mean() < 0.01
