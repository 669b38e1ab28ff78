"""The float reference against the transformers library itself, where that is installed.

The stored logits of `fixtures` cover the same ground for everybody else; here sequences are long enough
for rotary angles to differ, and models come from the library's own constructor.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mapping.frontend import load_model
from mapping.reference import FloatReference

CASES: dict[str, dict[str, Any]] = {
    "long": {"num_key_value_heads": 3, "max_position_embeddings": 2048},
    "llama3": {
        "num_key_value_heads": 1,
        "tie_word_embeddings": True,
        "max_position_embeddings": 2048,
        "rope_theta": 500000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 256,
        },
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_long_texts(case: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(7)
    config = transformers.LlamaConfig(
        hidden_size=90,
        intermediate_size=170,
        num_hidden_layers=2,
        num_attention_heads=3,
        head_dim=34,
        vocab_size=211,
        initializer_range=0.1,
        **CASES[case],
    )
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    outside = transformers.LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    tokens = torch.randint(config.vocab_size, (1, 2000))
    with torch.no_grad():
        expected = outside(tokens).logits[0].numpy()
    found = FloatReference(load_model(tmp_path)).logits(tokens[0].numpy())
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
