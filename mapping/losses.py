"""Loss of a model on a text three times: in float, compressed but in float, and bit-exact on the machine."""

from collections.abc import Callable

import numpy as np

from emulator.machine import Machine
from hw.spec.program import Program
from mapping.checkpoint import sort_inputs
from mapping.evaluate import Evaluation, evaluate_logits, evaluate_losses, negative_log_likelihood
from mapping.formats import ORDER_SUFFIX
from mapping.frontend.model import Model
from mapping.lowering.plan import Plan
from mapping.packing import arrange, compress_model, restore
from mapping.reference import FloatReference

Progress = Callable[[int, int], None]
_LEVELS = 127
_INT8_POINTS = frozenset({
    "attention_input",
    "queries",
    "keys",
    "values",
    "attention_output",
    "feed_forward_input",
    "feed_forward_hidden",
    "head_input",
})
"""Points of the float reference that become INT8, with one scale a row."""


def float_loss(
    model: Model,
    ids: list[int],
    context: int,
    limit: int | None,
    progress: Progress | None,
    prompt: int = 1,
) -> Evaluation:
    """Loss of the float model, which knows no attention mask."""
    reference = FloatReference(model)
    return evaluate_logits(
        ids, reference.logits, context_length=context, limit=limit, prompt=prompt, progress=progress
    )


def compressed_loss(
    model: Model,
    plan: Plan,
    ids: list[int],
    context: int,
    limit: int | None,
    progress: Progress | None,
    prompt: int = 1,
) -> Evaluation:
    """Loss with the recipe's weights, its attention mask, and INT8 activations and KV cache, otherwise computed in float."""
    reference = FloatReference(
        model,
        overrides=dequantized_weights(model, plan),
        activation_hook=fake_quantize,
        attention_mask=plan.setting.recipe.attention_mask,
        masked=prompt,
    )
    return evaluate_logits(
        ids, reference.logits, context_length=context, limit=limit, prompt=prompt, progress=progress
    )


def exact_loss(
    program: Program,
    ids: list[int],
    context: int,
    limit: int | None,
    progress: Progress | None,
    prompt: int = 1,
) -> Evaluation:
    """Loss of the compiled program, bit for bit as the hardware computes its logits."""
    machine = Machine(program, check=False, trace=False)
    vocabulary = program.information["vocabulary_size"]
    first = program.information["logits"]
    part = -(-vocabulary // program.machine.cores)
    rows = -(-part // program.machine.lanes)

    def losses(inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        logits = np.empty((len(targets), vocabulary))
        forced = [int(token) for token in (*inputs[prompt:], targets[-1])]
        steps = machine.steps([int(i) for i in inputs[:prompt]], len(targets), forced=forced)
        for step, _ in enumerate(steps):
            if step >= prompt:
                # Of the output head a core has every `cores`-th row.
                parts = [
                    state.result[first : first + rows].reshape(-1)[:part]
                    for state in machine.states
                ]
                logits[step - prompt] = np.stack(parts, axis=1).reshape(-1)[:vocabulary]
        return negative_log_likelihood(logits, targets)

    return evaluate_losses(
        ids, losses, context_length=context, limit=limit, prompt=prompt, progress=progress
    )


def dequantized_weights(model: Model, plan: Plan) -> dict[str, np.ndarray]:
    """The recipe's weight matrices as float, in the model's own shapes."""
    plans = {
        f"layers.{layer}.{name}": matrix
        for segment in plan.segments
        for layer in range(segment.first, segment.first + segment.layers)
        for name, matrix in segment.matrices.items()
    } | {"lm_head": plan.head_matrix}
    weights: dict[str, np.ndarray] = {}
    for tensor, pieces in compress_model(model, plan).items():
        if tensor.endswith(ORDER_SUFFIX):
            continue
        shape = model.tensor(tensor).shape
        # Where each weight went when heads were padded and ordered: arrange its number instead of it.
        numbers = np.arange(1, shape[0] * shape[1] + 1).reshape(shape)
        format = plans[tensor].pieces[0].format
        sorted_numbers = sort_inputs(numbers, model, tensor, format)
        places = arrange(sorted_numbers, plans[tensor].name, plan, format)
        restored = np.zeros(shape[0] * shape[1], np.float32)
        whole = restore(plans[tensor], pieces, plan)
        restored[places[places > 0] - 1] = whole[places > 0]
        weights[tensor] = restored.reshape(shape)
    return weights


def fake_quantize(point: str, values: np.ndarray) -> np.ndarray:
    """Round to 127 levels of the largest magnitude of each token (and head), as the machine does.

    Probabilities stay as they are: their scale depends on the values' scales, which the reference does not know.
    """
    if point.rpartition(".")[2] not in _INT8_POINTS:
        return values
    scale = np.abs(values).max(axis=-1, keepdims=True) / _LEVELS
    safe = np.where(scale == 0, 1, scale)
    return np.rint(values / safe) * scale
