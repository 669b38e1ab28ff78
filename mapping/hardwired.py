"""From a model's configuration to what the 16-chip machine has to know of it."""

import math

from emulator.hardwired_system.model import SystemModel
from mapping.frontend.config import ModelConfig
from mapping.frontend.gpt_oss import require_gpt_oss
from mapping.frontend.weights import EMBEDDING, tensor_shapes


def system_model(config: ModelConfig) -> SystemModel:
    """Return the widths and counts of a gpt-oss model.

    Raises
    ------
    InputError
        If the model is of another family.
    """
    config = require_gpt_oss(config, "the hardwired system")
    return SystemModel(
        name=config.name,
        layers=config.layers,
        hidden=config.hidden_size,
        heads=config.heads,
        kv_heads=config.kv_heads,
        head_dim=config.head_dim,
        vocabulary=config.vocabulary_size,
        experts=config.experts,
        experts_per_token=config.experts_per_token,
        inner=config.intermediate_size,
        windowed=config.windowed_layers,
        window=config.window,
        maximum_positions=config.maximum_positions,
    )


def hardwired_weights(config: ModelConfig) -> int:
    """Weights that become wires: all matrices that multiply; an embedding that is only read does not."""
    shapes = dict(tensor_shapes(config))
    if not config.tie_word_embeddings:
        del shapes[EMBEDDING]
    matrices = {
        name: shape
        for name, shape in shapes.items()
        if len(shape) > 1 and not name.endswith("bias")
    }
    return sum(math.prod(shape) for shape in matrices.values())
