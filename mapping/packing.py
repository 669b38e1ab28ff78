"""The memory image: every tensor of a model in the order and the format in which the machine streams it."""

from dataclasses import replace

import numpy as np

from hw.spec.layout import pack_scales, pack_weights
from mapping.frontend.config import ModelConfig
from mapping.frontend.model import Model
from mapping.lowering.plan import Plan
from mapping.lowering.tiles import MatrixPlan
from mapping.quantize import QuantizedMatrix, quantize_matrix
from mapping.rope import rope_tables


def compress_model(model: Model, plan: Plan) -> dict[str, QuantizedMatrix]:
    """Quantized weight matrices by tensor name, in the model's own shapes."""
    matrices: dict[str, QuantizedMatrix] = {}
    for segment in plan.segments:
        for layer in range(segment.first, segment.first + segment.layers):
            for name, matrix in segment.matrices.items():
                tensor = f"layers.{layer}.{name}"
                matrices[tensor] = _compress(model, tensor, name, matrix, plan)
    matrices["lm_head"] = _compress(model, "lm_head", "lm_head", plan.head_matrix, plan)
    return matrices


def _compress(
    model: Model, tensor: str, name: str, matrix: MatrixPlan, plan: Plan
) -> QuantizedMatrix:
    return quantize_matrix(arrange(model.tensor(tensor), name, plan), matrix.format)


def arrange(weight: np.ndarray, name: str, plan: Plan) -> np.ndarray:
    """A weight matrix as all cores together see it: heads padded, inputs padded with zeros, outputs to those of all cores.

    Outputs of the output head that stand for no token are copies of earlier ones of their core: they never win.
    """
    config = plan.config
    rows, columns = plan.matrix_shape(name)
    rows *= plan.cores
    if name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"):
        weight = _pad_heads(weight, config, plan)
    elif name == "self_attn.o_proj":
        weight = _pad_heads(weight.T, config, plan).T
    padded = np.zeros((rows, columns), weight.dtype)
    padded[: weight.shape[0], : weight.shape[1]] = weight
    if name == "lm_head":
        beyond = np.arange(len(weight), rows)
        padded[beyond] = padded[beyond % plan.cores]
    return padded


def core_part(matrix: QuantizedMatrix, name: str, plan: Plan, core: int) -> QuantizedMatrix:
    """The outputs of a matrix that one core computes: a run of them; of the output head every `cores`-th."""
    if plan.cores == 1:
        return matrix
    rows = plan.matrix_shape(name)[0]
    part = (
        slice(core, None, plan.cores)
        if name == "lm_head"
        else slice(core * rows, (core + 1) * rows)
    )
    return replace(matrix, values=matrix.values[part], scales=matrix.scales[part])


def _pad_heads(weight: np.ndarray, config: ModelConfig, plan: Plan) -> np.ndarray:
    """[heads * head_dim, n] to [heads * padded head, n]: each half of a head is padded on its own."""
    half = config.head_dim // 2
    heads = weight.reshape(-1, 2, half, weight.shape[1])
    padded = np.zeros((heads.shape[0], 2, plan.half, weight.shape[1]), weight.dtype)
    padded[:, :, :half] = heads
    return padded.reshape(-1, weight.shape[1])


def pack_matrix(quantized: QuantizedMatrix, matrix: MatrixPlan, plan: Plan) -> np.ndarray:
    """Words of a matrix: for each tile its scales, then its weights."""
    spec = plan.spec
    weights = pack_weights(quantized.values, quantized.format.step, spec)
    scales = pack_scales(quantized.scales, spec)
    image = np.zeros((matrix.words, spec.word_bytes), np.uint8)
    for tile in range(matrix.tiles):
        at = tile * matrix.tile_words
        first = tile * matrix.tile_blocks
        last = min(first + matrix.tile_blocks, matrix.blocks)
        part = scales[first * matrix.block_scale_words : last * matrix.block_scale_words]
        image[at : at + len(part)] = part
        at += matrix.tile_blocks * matrix.block_scale_words
        part = weights[first * matrix.block_words : last * matrix.block_words]
        image[at : at + len(part)] = part
    return image


def pack_memory(
    model: Model, plan: Plan, matrices: dict[str, QuantizedMatrix], core: int = 0
) -> np.ndarray:
    """Memory image of one core up to the KV cache: uint8 [words, word_bytes]."""
    image = np.zeros((plan.cache, plan.spec.word_bytes), np.uint8)

    def put(base: int, rows: np.ndarray, stride: int) -> None:
        """Rows of FP32, each padded to `stride` words."""
        words = np.zeros((rows.shape[0], stride * plan.word_elements), np.float32)
        words[:, : rows.shape[1]] = rows
        image[base : base + rows.shape[0] * stride] = words.view(np.uint8).reshape(
            -1, plan.spec.word_bytes
        )

    put(plan.embedding, model.tensor("embed_tokens"), plan.embedding_stride)
    put(plan.rope, _rope_rows(plan), plan.rope_words)
    for segment in plan.segments:
        for index in range(segment.layers):
            base = segment.base + index * segment.stride
            prefix = f"layers.{segment.first + index}."
            for name, offset in segment.offsets.items():
                if name in segment.matrices:
                    part = core_part(matrices[prefix + name], name, plan, core)
                    words = pack_matrix(part, segment.matrices[name], plan)
                    image[base + offset : base + offset + len(words)] = words
                else:
                    put(base + offset, model.tensor(prefix + name)[None], plan.hidden_words)
    put(plan.norm, model.tensor("norm")[None], plan.hidden_words)
    part = core_part(matrices["lm_head"], "lm_head", plan, core)
    words = pack_matrix(part, plan.head_matrix, plan)
    image[plan.head_base : plan.head_base + len(words)] = words
    return image


def _rope_rows(plan: Plan) -> np.ndarray:
    """For each position cos, cos, -sin, sin, each padded to half a head."""
    cosine, sine = rope_tables(plan.config, np.arange(plan.context))
    rows = np.zeros((plan.context, 4, plan.half), np.float32)
    half = plan.config.head_dim // 2
    for i, table in enumerate((cosine, cosine, -sine, sine)):
        rows[:, i, :half] = table
    return rows.reshape(plan.context, -1)
