"""Where the weights of a model come from: a folder of checkpoints, or a seeded generator."""

import math
import re
import zlib
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from hw.spec.errors import InputError
from mapping.frontend.config import ModelConfig
from mapping.frontend.files import shown
from mapping.frontend.gpt_oss import GptOssConfig, gpt_oss_shapes
from mapping.frontend.opt import POSITIONS, opt_shapes, opt_stored_name
from mapping.frontend.safetensors_file import Shape, TensorFolder

Weight = npt.NDArray[np.float32]

EMBEDDING = "embed_tokens"
HEAD = "lm_head"

_IGNORED = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")
"""A table that older exporters stored; it follows from the configuration."""

_PACKED_ENDS = (".qweight", ".weight_packed", ".weight_blocks")
"""How names of packed weights end."""


def tensor_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Return the shape of every weight of a model, in the order of use.

    Names are those of the files without ``model.`` and ``.weight``, such as
    ``layers.0.self_attn.q_proj``; those of OPT are explained in `mapping.frontend.opt`. Matrices are
    [outputs, inputs]. With tied embeddings there is no ``lm_head``.
    """
    if isinstance(config, GptOssConfig):
        return gpt_oss_shapes(config)
    if config.opt:
        return opt_shapes(config)
    hidden, inner = config.hidden_size, config.intermediate_size
    shapes: dict[str, Shape] = {EMBEDDING: (config.vocabulary_size, hidden)}
    for layer in range(config.layers):
        prefix = f"layers.{layer}."
        shapes[prefix + "input_layernorm"] = (hidden,)
        shapes[prefix + "self_attn.q_proj"] = (config.query_width, hidden)
        shapes[prefix + "self_attn.k_proj"] = (config.key_width, hidden)
        shapes[prefix + "self_attn.v_proj"] = (config.key_width, hidden)
        shapes[prefix + "self_attn.o_proj"] = (hidden, config.query_width)
        shapes[prefix + "post_attention_layernorm"] = (hidden,)
        shapes[prefix + "mlp.gate_proj"] = (inner, hidden)
        shapes[prefix + "mlp.up_proj"] = (inner, hidden)
        shapes[prefix + "mlp.down_proj"] = (hidden, inner)
    shapes["norm"] = (hidden,)
    if not config.tie_word_embeddings:
        shapes[HEAD] = (config.vocabulary_size, hidden)
    return shapes


def is_ignored(stored: str) -> bool:
    """Whether a tensor of a checkpoint says nothing that the configuration does not say."""
    return _IGNORED.fullmatch(stored) is not None


def stored_name(name: str) -> str:
    """Return the name that a weight has in a checkpoint."""
    return f"{name}.weight" if name == HEAD else f"model.{name}.weight"


class WeightSource(Protocol):
    """Gives the weights of one model, each computed or read anew when asked for."""

    def load(self, name: str) -> Weight:
        """Return the weight of this name in `tensor_shapes`."""
        ...


class FolderWeights:
    """Weights read from safetensors files, one at a time.

    Parameters
    ----------
    folder : Path
        The model's folder.
    config : ModelConfig
        Says which weights there must be.

    Raises
    ------
    InputError
        If a weight is missing, has another shape or an unsupported type, or if the files hold weights
        that a model of this configuration does not use, which would then be silently left out.
    """

    def __init__(self, folder: Path, config: ModelConfig) -> None:
        self._files = TensorFolder(folder)
        self._shapes = tensor_shapes(config)
        self._stored_name = opt_stored_name if config.opt else stored_name
        for entry in self._files.entries.values():
            if entry.name.endswith(_PACKED_ENDS):
                raise InputError(
                    f"{folder}: quantization_config: expected one that says how {shown(entry.name)} is packed, "
                    "found none"
                )
        for name, shape in self._shapes.items():
            self._files.check(self._stored_name(name), shape)
        known = {self._stored_name(name) for name in (*self._shapes, HEAD)}
        for name, entry in self._files.entries.items():
            if name not in known and not is_ignored(name):
                raise InputError(
                    f"{entry.label}: expected only the weights of {config.architecture}, "
                    "found one that it does not use"
                )

    def load(self, name: str) -> Weight:
        """Return a weight as float32; raises `InputError` if it is damaged."""
        shape = self._shapes[name]
        weight = self._files.load(self._stored_name(name), shape)
        if name == EMBEDDING and HEAD not in self._shapes:
            self._check_tied_head(weight)
        return weight

    def _check_tied_head(self, embedding: Weight) -> None:
        """Check that a head which is stored although it is tied says the same as the embedding."""
        entry = self._files.entries.get(stored_name(HEAD))
        if entry is None:
            return
        if not np.array_equal(self._files.load(entry.name, embedding.shape), embedding):
            raise InputError(
                f"{entry.label}: expected the values of {EMBEDDING} because config.json says "
                "tie_word_embeddings, found others: set it to false"
            )


class SyntheticWeights:
    """Random weights of the right shapes and of plausible size, the same for the same seed.

    Matrices are normal with a variance that keeps activations and logits near one, norms are near one. They
    serve to measure time and size; they have learnt nothing.
    """

    def __init__(self, config: ModelConfig, seed: int) -> None:
        self._shapes = tensor_shapes(config)
        self._seed = seed
        self._residual_scale = 1.0 / math.sqrt(2 * config.layers)

    def load(self, name: str) -> Weight:
        """Return a weight; it depends on the seed, its name and its shape alone."""
        shape = self._shapes[name]
        generator = np.random.default_rng([self._seed, zlib.crc32(name.encode())])
        values = generator.standard_normal(shape, dtype=np.float32)
        if name.endswith(("bias", "sinks")):
            return values * np.float32(0.1)
        if name == POSITIONS:
            return values
        if len(shape) == 1:
            return values * np.float32(0.1) + np.float32(1.0)
        scale = 1.0 / math.sqrt(shape[-1])
        if name.endswith(("o_proj", "down_proj")):
            scale *= self._residual_scale
        values *= np.float32(scale)
        return values


def check_name(name: str, shapes: dict[str, Shape]) -> None:
    """Raise ValueError unless a weight of this name exists."""
    if name not in shapes:
        raise ValueError(f"a weight must be one of this model's, not {shown(name)}")
