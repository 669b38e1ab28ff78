"""What compression learns from a text: how large each input of each weight matrix is."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from hw.spec.errors import InputError
from mapping.evaluate import evaluate_logits
from mapping.frontend.files import resolve_inside
from mapping.frontend.model import Model
from mapping.reference import FloatReference

CALIBRATION_FILE = "calibration.txt"
"""Text in the model's folder."""
CALIBRATION_TOKENS = 4096
LOSS_TOKENS = 1024
"""Tokens that losses are measured on, of those."""
_WINDOW = 256
_POINTS = {
    "self_attn.q_proj": "attention_input",
    "self_attn.k_proj": "attention_input",
    "self_attn.v_proj": "attention_input",
    "self_attn.o_proj": "attention_output",
    "mlp.gate_proj": "feed_forward_input",
    "mlp.up_proj": "feed_forward_input",
    "mlp.down_proj": "feed_forward_hidden",
}
"""Point of the float reference that is the operand of each matrix of a layer."""


def calibration_tokens(model: Model, why: str) -> list[int]:
    """Token ids of the calibration text in the model's folder; `why` says what needs it.

    Raises
    ------
    InputError
        If there is none.
    """
    if model.folder is None or not (model.folder / CALIBRATION_FILE).is_file():
        raise InputError(
            f"{model.folder or model.name}: {why} needs a text to calibrate on: expected {CALIBRATION_FILE} "
            "in the model's folder, found none"
        )
    path = resolve_inside(model.folder, CALIBRATION_FILE, "calibration text")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: expected UTF-8 text") from None
    tokens = list(model.tokenizer.encode(text))[:CALIBRATION_TOKENS]
    if len(tokens) < 2:
        raise InputError(f"{path}: expected a text of two tokens or more, found {len(tokens)}")
    return tokens


def loss_on(
    model: Model, tokens: list[int], overrides: Mapping[str, npt.NDArray[np.floating]] | None = None
) -> float:
    """Loss in nats a token of the float model on the first `LOSS_TOKENS` of a text, with some weights replaced."""
    reference = FloatReference(model, overrides=overrides)
    window = min(_WINDOW, model.config.maximum_positions)
    return evaluate_logits(tokens[:LOSS_TOKENS], reference.logits, context_length=window).loss


def input_norms(model: Model, tokens: list[int]) -> dict[str, npt.NDArray[np.float32]]:
    """Root mean square over the text of each input of each weight matrix, by tensor name: float32 [inputs]."""
    sums: dict[str, npt.NDArray[np.float64]] = {}

    def add(point: str, values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        rows = np.square(values.reshape(len(values), -1), dtype=np.float64).sum(axis=0)
        if point.rpartition(".")[2] in {"head_input", *_POINTS.values()}:
            sums[point] = sums.get(point, 0) + rows
        return values

    reference = FloatReference(model, activation_hook=add)
    window = min(_WINDOW, model.config.maximum_positions)
    for begin in range(0, len(tokens), window):
        reference.logits(tokens[begin : begin + window])
    points = {"lm_head": "head_input"}
    for layer in range(model.config.layers):
        prefix = f"layers.{layer}."
        points |= {
            prefix + name: prefix + point
            for name, point in _POINTS.items()
            if prefix + name in model.tensor_shapes
        }
    return {
        tensor: np.sqrt(sums[point] / len(tokens)).astype(np.float32)
        for tensor, point in points.items()
    }
