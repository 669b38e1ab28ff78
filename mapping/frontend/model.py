"""A model as the rest of the project sees it: configuration, weights on demand, tokenizer."""

import dataclasses
import functools
import math
from dataclasses import dataclass
from pathlib import Path

import yaml

from hw.spec.errors import InputError
from mapping.frontend.config import ModelConfig, parse_config
from mapping.frontend.files import read_json_object, resolve_inside, shown
from mapping.frontend.gpt_oss import GptOssConfig
from mapping.frontend.gpt_oss_weights import GptOssFolderWeights, Mxfp4
from mapping.frontend.quantization import find_scheme
from mapping.frontend.quantized_weights import QuantizedFolderWeights
from mapping.frontend.safetensors_file import INDEX_FILE, SINGLE_FILE, Shape
from mapping.frontend.tokenizer import Tokenizer
from mapping.frontend.weights import (
    EMBEDDING,
    HEAD,
    FolderWeights,
    SyntheticWeights,
    Weight,
    WeightSource,
    check_name,
    tensor_shapes,
)

MODELS_FOLDER = Path(__file__).parent.parent / "models"
"""Bundled models are folders here, known configurations are YAML files."""

CONFIG_FILE = "config.json"
TOKENIZER_FILE = "tokenizer.json"


class Model:
    """One model; nothing but headers is read until a weight is asked for.

    Parameters
    ----------
    config : ModelConfig
        The shape of the model.
    weights : WeightSource
        Where its weights come from.
    synthetic : bool
        Whether the weights are random and so have learnt nothing. Reports must say so.
    folder : Path or None
        The folder it was loaded from, if any.

    Members
    -------
    tensor_shapes : dict[str, tuple[int, ...]]
        The shape of every weight; see `mapping.frontend.weights.tensor_shapes` for the names.
    """

    def __init__(
        self,
        config: ModelConfig,
        weights: WeightSource,
        *,
        synthetic: bool,
        folder: Path | None = None,
    ) -> None:
        self.config = config
        self.synthetic = synthetic
        self.folder = folder
        self.tensor_shapes: dict[str, Shape] = tensor_shapes(config)
        self._weights = weights

    @property
    def name(self) -> str:
        """What to call the model in reports."""
        return self.config.name

    @property
    def parameters(self) -> int:
        """How many weights the model has; tied ones count once."""
        return sum(math.prod(shape) for shape in self.tensor_shapes.values())

    def tensor(self, name: str) -> Weight:
        """Return one weight as float32, matrices as [outputs, inputs]; it is read at every call.

        With tied embeddings ``lm_head`` is the same as ``embed_tokens``.

        Raises
        ------
        InputError
            If the file is damaged.
        ValueError
            If the model has no weight of this name.
        """
        if name == HEAD and self.config.tie_word_embeddings:
            name = EMBEDDING
        check_name(name, self.tensor_shapes)
        return self._weights.load(name)

    def mxfp4(self, name: str) -> Mxfp4 | None:
        """Return a weight in the MXFP4 codes that its folder holds, or None if it holds numbers.

        Raises
        ------
        InputError
            If the file is damaged, or a scale is NaN.
        """
        check_name(name, self.tensor_shapes)
        weights = self._weights
        if isinstance(weights, GptOssFolderWeights) and weights.in_mxfp4(name):
            return weights.mxfp4(name)
        return None

    @property
    def quantized(self) -> QuantizedFolderWeights | None:
        """The weights of a folder whose matrices are packed as integers, or None."""
        return self._weights if isinstance(self._weights, QuantizedFolderWeights) else None

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, read at first use.

        Raises
        ------
        InputError
            If the model has none, or its file is damaged.
        """
        if self.folder is None:
            raise InputError(
                f"{self.name}: expected a model with a tokenizer, found a known configuration without "
                "one: give token ids, or a Hugging Face folder"
            )
        path = self.folder / TOKENIZER_FILE
        if not path.exists():
            raise InputError(f"{path}: expected the tokenizer to translate text, found none")
        path = resolve_inside(self.folder, TOKENIZER_FILE, "tokenizer")
        return Tokenizer(path, self.config.vocabulary_size)


@dataclass(frozen=True)
class KnownModel:
    """One line of `list_models`."""

    name: str
    config: ModelConfig
    synthetic: bool
    description: str

    @property
    def parameters(self) -> int:
        """How many weights the model has; tied ones count once."""
        return sum(math.prod(shape) for shape in tensor_shapes(self.config).values())


def load_model(path_or_name: str | Path, *, seed: int = 0) -> Model:
    """Return a model from a Hugging Face folder, or by the name of a known one.

    A folder of that name with a `config.json` comes before a known configuration.

    Parameters
    ----------
    path_or_name : str or Path
        A folder, the name of a bundled model, or the name of a known configuration.
    seed : int
        Seed of the synthetic weights of a known configuration.

    Raises
    ------
    InputError
        If there is no such model, or it is one that cannot be run; the message says what would help.
    """
    path = Path(path_or_name)
    if path.is_dir():
        return load_folder(path)
    if path.exists():
        raise InputError(f"{path}: expected a folder with {CONFIG_FILE}, found a file")
    name = str(path_or_name)
    known = {model.name: model for model in list_models()}
    if name not in known:
        raise InputError(f"{shown(name)}: expected a folder or one of {', '.join(known)}")
    if known[name].synthetic:
        return synthetic_model(known[name].config, seed=seed)
    return load_folder(MODELS_FOLDER / name)


def synthetic_model(config: ModelConfig, *, seed: int = 0) -> Model:
    """Return a model of any configuration with random weights and no tokenizer."""
    return Model(config, SyntheticWeights(config, seed), synthetic=True)


def load_folder(folder: Path) -> Model:
    """Return the model in a Hugging Face folder; headers are checked, weights are not read yet.

    Raises
    ------
    InputError
        As `load_model`.
    """
    _refuse_other_kinds(folder)
    path = resolve_inside(folder, CONFIG_FILE, "configuration")
    raw = read_json_object(path)
    config = parse_config(raw, folder.resolve().name, str(path))
    config = _with_generation_tokens(config, folder)
    if isinstance(config, GptOssConfig):
        weights: WeightSource = GptOssFolderWeights(folder, config)
    elif scheme := find_scheme(folder, raw, path):
        if config.opt:
            raise InputError(
                f"{path}: quantization_config: expected plain weights of an OPT model, found packed ones: "
                "give the original folder and a recipe"
            )
        weights = QuantizedFolderWeights(folder, config, scheme)
    else:
        weights = FolderWeights(folder, config)
    return Model(config, weights, synthetic=False, folder=folder)


def list_models() -> list[KnownModel]:
    """Return the bundled models, then the known configurations, each in order of name."""
    bundled = []
    for path in sorted(MODELS_FOLDER.glob(f"*/{CONFIG_FILE}")):
        config = parse_config(read_json_object(path), path.parent.name, str(path))
        bundled.append(KnownModel(path.parent.name, config, False, "bundled, trained weights"))
    configurations = [_read_configuration(path) for path in sorted(MODELS_FOLDER.glob("*.yaml"))]
    return bundled + configurations


def _read_configuration(path: Path) -> KnownModel:
    """Return the known configuration in one YAML file."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise InputError(f"{path}: expected YAML, found {shown(str(error))}") from error
    if not isinstance(content, dict) or set(content) != {"source", "config"}:
        raise InputError(f"{path}: expected the fields source and config")
    config = parse_config(content["config"], path.stem, f"{path}: config")
    return KnownModel(path.stem, config, True, f"configuration from {content['source']}")


def _with_generation_tokens(config: ModelConfig, folder: Path) -> ModelConfig:
    """Let `generation_config.json` say which tokens end a text, where it does.

    Chat models end a turn with a token that their `config.json` does not know of.
    """
    path = folder / "generation_config.json"
    if not path.exists():
        return config
    raw = read_json_object(resolve_inside(folder, path.name, "configuration"))
    token_ids = raw.get("eos_token_id")
    if token_ids is None:
        return config
    values = token_ids if isinstance(token_ids, list) else [token_ids]
    for value in values:
        if type(value) is not int or not 0 <= value < config.vocabulary_size:
            raise InputError(
                f"{path}: eos_token_id: expected token ids below {config.vocabulary_size}, "
                f"found {shown(token_ids)}"
            )
    return dataclasses.replace(config, eos_token_ids=tuple(values))


def _refuse_other_kinds(folder: Path) -> None:
    """Refuse folders of a kind that has to be converted first, and say how."""
    if (folder / "adapter_config.json").exists():
        raise InputError(
            f"{folder}: adapter_config.json: expected a whole model, found a LoRA adapter: merge it "
            "into its base model with merge_and_unload() of the peft library and save that"
        )
    if not (folder / CONFIG_FILE).exists():
        raise InputError(f"{folder}: expected a Hugging Face folder with {CONFIG_FILE}, found none")
    if not (folder / SINGLE_FILE).exists() and not (folder / INDEX_FILE).exists():
        pickles = any(folder.glob("*.bin")) or any(folder.glob("*.pt*"))
        found = "only pickled weights, which can run code when opened" if pickles else "none"
        remedy = (
            ": convert with save_pretrained(folder, safe_serialization=True)" if pickles else ""
        )
        raise InputError(
            f"{folder}: weights: expected {SINGLE_FILE} or {INDEX_FILE}, found {found}{remedy}"
        )
    if (folder / "tokenizer.model").exists() and not (folder / TOKENIZER_FILE).exists():
        raise InputError(
            f"{folder}: tokenizer: expected {TOKENIZER_FILE}, found only tokenizer.model: convert with "
            "AutoTokenizer.from_pretrained(folder).save_pretrained(folder) of the transformers library"
        )
