"""Loading models: folders, known configurations, tokenizers, and folders of the wrong kind."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import tokenizers
from tokenizers import models, pre_tokenizers

from hw.spec.errors import InputError
from mapping.frontend import Model, list_models, load_model, synthetic_model
from mapping.frontend.weights import stored_name, tensor_shapes

EditJson = Callable[..., None]

PUBLISHED_PARAMETERS = {
    "gpt-oss-120b": 116_829_156_672,
    "gpt-oss-20b": 20_914_757_184,
    "llama-2-7b": 6_738_415_616,
    "llama-3-8b": 8_030_261_248,
    "llama-3.2-1b": 1_235_814_400,
    "opt-6.7b": 6_658_473_984,
    "tinyllama-1.1b": 1_100_048_384,
}


def test_known_configurations_have_their_published_sizes() -> None:
    sizes = {known.name: known.parameters for known in list_models() if known.synthetic}
    assert sizes == PUBLISHED_PARAMETERS


def test_bundled_models_load() -> None:
    for known in list_models():
        if not known.synthetic:
            model = load_model(known.name)
            assert not model.synthetic
            assert model.parameters == known.parameters
            text = 'Return the "with" statement.\n'
            assert model.tokenizer.decode(model.tokenizer.encode(text)) == text


def test_synthetic_weights_follow_the_seed_alone() -> None:
    name = "layers.3.self_attn.k_proj"
    weight = load_model("tinyllama-1.1b").tensor(name)
    assert load_model("tinyllama-1.1b").synthetic
    assert weight.shape == (256, 2048)
    assert weight.dtype == np.float32
    assert weight.std() == pytest.approx(2048**-0.5, rel=0.01)
    np.testing.assert_array_equal(load_model("tinyllama-1.1b").tensor(name), weight)
    other = load_model("tinyllama-1.1b", seed=1).tensor(name)
    assert abs(np.corrcoef(other.ravel(), weight.ravel())[0, 1]) < 0.01
    neighbour = load_model("tinyllama-1.1b").tensor("layers.2.self_attn.k_proj")
    assert abs(np.corrcoef(neighbour.ravel(), weight.ravel())[0, 1]) < 0.01


@pytest.mark.parametrize("name", ["tied_f32", "grouped_odd_f16", "llama3_sharded_bf16"])
def test_every_tensor_of_a_folder(name: str, fixtures_folder: Path) -> None:
    model = load_model(fixtures_folder / name)
    assert not model.synthetic
    for tensor, shape in model.tensor_shapes.items():
        assert model.tensor(tensor).shape == shape
    head = model.tensor("lm_head")
    tied = np.array_equal(head, model.tensor("embed_tokens"))
    assert tied == model.config.tie_word_embeddings
    with pytest.raises(ValueError, match="a weight must be one of this model's"):
        model.tensor("layers.99.mlp.up_proj")


def test_weights_are_read_when_asked_for(folder: Path) -> None:
    model = load_model(folder)
    path = folder / "model.safetensors"
    entry = model._weights._files.entries["model.norm.weight"]  # type: ignore[attr-defined] # spoils it
    content = bytearray(path.read_bytes())
    content[entry.begin : entry.begin + 4] = b"\0\0\xc0\x7f"
    path.write_bytes(content)
    model.tensor("embed_tokens")
    with pytest.raises(
        InputError, match=r"tensor 'model.norm.weight': expected finite .* at \[0\]"
    ):
        model.tensor("norm")


def resave(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "model.safetensors"
    weights = safetensors.numpy.load_file(path)
    change(weights)
    safetensors.numpy.save_file(weights, path)


def test_refuses_missing_weight(folder: Path) -> None:
    resave(folder, lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(InputError, match="'model.layers.1.mlp.up_proj.weight': expected in the"):
        load_model(folder)


def test_refuses_wrong_shape(folder: Path) -> None:
    name = "model.layers.0.self_attn.k_proj.weight"
    resave(folder, lambda weights: weights.update({name: weights[name].T.copy()}))
    with pytest.raises(InputError, match=r"k_proj.weight': shape: expected \[12, 20\], found"):
        load_model(folder)


def test_refuses_weights_it_would_ignore(folder: Path) -> None:
    name = "model.layers.0.self_attn.q_proj.bias"
    resave(folder, lambda weights: weights.update({name: np.zeros(24, np.float32)}))
    with pytest.raises(InputError, match="q_proj.bias': expected only the weights of Llama"):
        load_model(folder)


def test_ignores_stored_rotary_tables(folder: Path) -> None:
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    resave(folder, lambda weights: weights.update({name: np.zeros(3, np.float32)}))
    load_model(folder)


def test_tied_head_may_be_stored_if_it_is_the_same(folder: Path, edit_json: EditJson) -> None:
    edit_json(folder / "config.json", tie_word_embeddings=True)
    with pytest.raises(InputError, match="'lm_head.weight': .*set it to false"):
        load_model(folder).tensor("lm_head")
    embedding = stored_name("embed_tokens")
    resave(folder, lambda weights: weights.update({"lm_head.weight": weights[embedding]}))
    load_model(folder).tensor("lm_head")


def test_refuses_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="'no-such-model': expected a folder or one of .*llama-2-7b"
    ):
        load_model("no-such-model")
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(InputError, match="expected a folder with config.json, found a file"):
        load_model(tmp_path / "model.gguf")
    with pytest.raises(
        InputError, match="expected a Hugging Face folder with config.json, found none"
    ):
        load_model(tmp_path)


def test_refuses_adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="adapter_config.json: .*LoRA adapter: merge it"):
        load_model(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth"])
def test_refuses_pickled_weights(name: str, folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(
        InputError, match="weights: .*only pickled weights.*safe_serialization=True"
    ):
        load_model(folder)


def test_refuses_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="weights: expected model.safetensors or .*, found none"):
        load_model(folder)


def test_refuses_tokenizer_model_alone(folder: Path) -> None:
    (folder / "tokenizer.model").write_bytes(b"\n\0")
    with pytest.raises(InputError, match="found only tokenizer.model: convert with AutoTokenizer"):
        load_model(folder)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"architectures": 1, "architectures": 2}', "\xff"]
)
def test_refuses_broken_config(text: str, folder: Path) -> None:
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"config.json: "):
        load_model(folder)


def test_refuses_config_linked_from_outside(folder: Path) -> None:
    (folder / "config.json").rename(folder.parent / "config.json")
    (folder / "config.json").symlink_to("../config.json")
    with pytest.raises(InputError, match="configuration: .*a link that leads out of it"):
        load_model(folder)


def test_generation_config_says_what_ends_a_text(folder: Path) -> None:
    assert load_model(folder).config.eos_token_ids == (2,)
    path = folder / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": [3, 4]}))
    assert load_model(folder).config.eos_token_ids == (3, 4)
    path.write_text(json.dumps({"eos_token_id": [3, 47]}))
    with pytest.raises(InputError, match="eos_token_id: expected token ids below 47"):
        load_model(folder)


def write_tokenizer(folder: Path, words: list[str]) -> None:
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=words[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(folder / "tokenizer.json"))


def test_tokenizer(folder: Path) -> None:
    write_tokenizer(folder, ["?", "one", "two", "three"])
    tokenizer = load_model(folder).tokenizer
    assert tokenizer.encode("three two one none") == [3, 2, 1, 0]
    assert tokenizer.decode([3, 1]) == "three one"
    assert tokenizer.token(2) == "two"


def test_tokenizer_with_more_tokens_than_the_model(folder: Path) -> None:
    write_tokenizer(folder, [f"word{index}" for index in range(48)])
    tokenizer = load_model(folder).tokenizer
    assert tokenizer.encode("word46") == [46]
    with pytest.raises(InputError, match="token 'word47': expected an id below .* 47, found 47"):
        tokenizer.encode("word46 word47")


def test_refuses_missing_or_broken_tokenizer(folder: Path) -> None:
    with pytest.raises(InputError, match="tokenizer.json: expected the tokenizer"):
        _ = load_model(folder).tokenizer
    with pytest.raises(InputError, match="tinyllama-1.1b: expected a model with a tokenizer"):
        _ = load_model("tinyllama-1.1b").tokenizer
    (folder / "tokenizer.json").write_text('{"model": 1}')
    with pytest.raises(InputError, match="tokenizer.json: expected a tokenizer of the tokenizers"):
        _ = load_model(folder).tokenizer


def test_synthetic_model_of_any_configuration(fixtures_folder: Path) -> None:
    config = load_model(fixtures_folder / "grouped_odd_f16").config
    model = synthetic_model(config, seed=3)
    assert isinstance(model, Model)
    assert {name: model.tensor(name).shape for name in model.tensor_shapes} == tensor_shapes(config)
