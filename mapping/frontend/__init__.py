"""From a Hugging Face folder, or the name of a known configuration, to a `Model`."""

from mapping.frontend.config import ModelConfig
from mapping.frontend.model import Model, list_models, load_model, synthetic_model

__all__ = ["Model", "ModelConfig", "list_models", "load_model", "synthetic_model"]
