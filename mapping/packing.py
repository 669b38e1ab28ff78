"""The memory image: every tensor of a model in the order and the format in which the machine streams it."""

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from hw.spec.layout import pack_scales, pack_weights
from hw.spec.program import release
from hw.spec.wires import WiredMatrix, Wires
from mapping.attention_mask import HeadMasks
from mapping.calibration import calibration_tokens, input_norms
from mapping.checkpoint import group_order, in_order, sort_inputs, stored_matrix, stored_order
from mapping.formats import ORDER_SUFFIX, MatrixFormat, WeightFormat
from mapping.frontend.config import ModelConfig
from mapping.frontend.model import Model
from mapping.frontend.opt import BIAS, POSITION_OFFSET, POSITIONS
from mapping.lowering.joined import FIRST, SECOND
from mapping.lowering.parameters import ParameterGroup
from mapping.lowering.plan import Plan, Segment
from mapping.lowering.tiles import MatrixPlan, Piece
from mapping.quantize import QuantizedMatrix, quantize_matrix
from mapping.rope import rope_tables

_AT_ONCE = 2
"""Tensors that are packed at once."""
_RELEASE = 16
"""Tensors after which what is written leaves the computer's memory, if images are in a file."""
_ROWS = 1024
"""Rows of a table that are written at once."""


def compress_model(model: Model, plan: Plan) -> dict[str, tuple[QuantizedMatrix, ...]]:
    """Quantized weight matrices by tensor name, arranged for all cores together: each piece of each part of the plan's."""
    norms = _norms(model, plan)
    matrices: dict[str, tuple[QuantizedMatrix, ...]] = {}
    for segment in plan.segments:
        for layer in range(segment.first, segment.first + segment.layers):
            for name, matrix in segment.matrices.items():
                tensor = f"layers.{layer}.{name}"
                matrices[tensor] = _compress(model, tensor, matrix, plan, norms)
    matrices["lm_head"] = _compress(model, "lm_head", plan.head_matrix, plan, norms)
    return matrices


def _norms(model: Model, plan: Plan) -> dict[str, np.ndarray]:
    """Root mean square of the inputs of each matrix, if the recipe wants it; of synthetic weights it is not known."""
    if plan.setting.recipe.pruning == "magnitude" or model.synthetic:
        return {}
    return input_norms(model, calibration_tokens(model, "pruning: activations"))


def _compress(
    model: Model, tensor: str, matrix: MatrixPlan, plan: Plan, norms: dict[str, np.ndarray]
) -> tuple[QuantizedMatrix, ...]:
    places = list(_pieces(matrix, plan))
    if matrix.name.endswith(ORDER_SUFFIX):
        return _permutation(model, tensor, matrix, plan)
    order = stored_order(model, tensor, plan.setting.recipe)
    format = places[0][1].format

    def arranged(weight: np.ndarray) -> np.ndarray:
        weight = in_order(weight, tensor, order)
        return arrange(sort_inputs(weight, model, tensor, format), matrix.name, plan, format)

    if format.stored:
        whole = stored_matrix(model, tensor, arranged, format)
        return tuple(
            replace(whole, values=whole.values[rows], scales=whole.scales[rows])
            for rows, _ in places
        )
    weight, sizes = model.tensor(tensor), None
    if tensor in norms:
        # Inputs are arranged as those of any output are.
        sizes = arranged(np.broadcast_to(norms[tensor], weight.shape))[0]
    weight = arranged(weight)

    def quantize(rows: np.ndarray, piece: Piece) -> QuantizedMatrix:
        columns = slice(piece.first, piece.first + piece.columns)
        own = None if sizes is None else sizes[columns]
        return quantize_matrix(weight[rows, columns], piece.format, own)

    return tuple(quantize(rows, piece) for rows, piece in places)


def _permutation(
    model: Model, tensor: str, matrix: MatrixPlan, plan: Plan
) -> tuple[QuantizedMatrix, ...]:
    """The matrix that sorts the inputs of another by group, as all cores together see it."""
    name = tensor.removesuffix(ORDER_SUFFIX)
    order = group_order(model, name)
    # Where the machine has each input, in the padding of heads.
    places = np.arange(len(order))
    if name.endswith("o_proj"):
        (places,) = np.nonzero(_pad_heads(places[:, None] + 1, plan.config, plan)[:, 0])
    ((_, piece),) = _pieces(matrix, plan)
    values = np.zeros((matrix.rows, matrix.columns), np.int8)
    values[np.arange(len(order)), places[order]] = 1
    values = np.tile(values, (plan.cores, 1))
    return (
        QuantizedMatrix(
            values, np.ones((len(values), 1), np.float32), piece.format, matrix.columns
        ),
    )


def restore(matrix: MatrixPlan, pieces: tuple[QuantizedMatrix, ...], plan: Plan) -> np.ndarray:
    """The arranged matrix that the pieces stand for: float32 [outputs of all cores, inputs]."""
    whole = np.zeros((matrix.rows * plan.cores, matrix.columns), np.float32)
    for (rows, piece), quantized in zip(_pieces(matrix, plan), pieces, strict=True):
        whole[rows, piece.first : piece.first + piece.columns] = quantized.dequantize()
    return whole


def _pieces(matrix: MatrixPlan, plan: Plan) -> Iterator[tuple[np.ndarray, Piece]]:
    """Arranged outputs of each piece, core by core, and the piece."""
    outputs = np.arange(matrix.rows * plan.cores)
    # A core computes a run of outputs; of the output head every `cores`-th.
    if matrix.name == "lm_head":
        outputs = outputs.reshape(-1, plan.cores).T
    outputs = outputs.reshape(plan.cores, matrix.rows)
    for part in matrix.parts:
        first = part.first_block * plan.spec.matrix_rows
        for piece in part.pieces:
            yield outputs[:, first : first + part.rows].ravel(), piece


def arrange(
    weight: np.ndarray, name: str, plan: Plan, format: MatrixFormat | None = None
) -> np.ndarray:
    """A weight matrix as all cores together see it: heads padded, inputs padded with zeros, outputs to those of all cores.

    Inputs that were sorted by group (`format` says so) follow each other without the padding of heads.
    Outputs of the output head that stand for no token are copies of earlier ones of their core: they never win.
    """
    config = plan.config
    rows, columns = plan.matrix_shape(name)
    rows *= plan.cores
    if name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"):
        weight = _pad_heads(weight, config, plan)
    elif name == "self_attn.o_proj" and not (isinstance(format, WeightFormat) and format.order):
        weight = _pad_heads(weight.T, config, plan).T
    if weight.shape == (rows, columns):
        return weight
    padded = np.zeros((rows, columns), weight.dtype)
    padded[: weight.shape[0], : weight.shape[1]] = weight
    if name == "lm_head":
        beyond = np.arange(len(weight), rows)
        padded[beyond] = padded[beyond % plan.cores]
    return padded


def core_part(
    pieces: tuple[QuantizedMatrix, ...], plan: Plan, core: int
) -> tuple[QuantizedMatrix, ...]:
    """The outputs of a compressed matrix that one core computes."""

    def part(piece: QuantizedMatrix) -> QuantizedMatrix:
        rows = len(piece.values) // plan.cores
        own = slice(core * rows, (core + 1) * rows)
        return replace(piece, values=piece.values[own], scales=piece.scales[own])

    return tuple(part(piece) for piece in pieces)


def _pad_heads(weight: np.ndarray, config: ModelConfig, plan: Plan) -> np.ndarray:
    """[heads * head_dim, n] to [heads * padded head, n]: each half of a head is padded on its own."""
    half = config.head_dim // 2
    if half == plan.half:
        return weight
    heads = weight.reshape(-1, 2, half, weight.shape[1])
    padded = np.zeros((heads.shape[0], 2, plan.half, weight.shape[1]), weight.dtype)
    padded[:, :, :half] = heads
    return padded.reshape(-1, weight.shape[1])


def pack_matrix(pieces: tuple[QuantizedMatrix, ...], matrix: MatrixPlan, plan: Plan) -> np.ndarray:
    """Words of one core's outputs of a matrix: part by part, for each tile its scales, then its weights."""
    spec = plan.spec
    image = np.zeros((matrix.words, spec.word_bytes), np.uint8)
    left = iter(pieces)
    for part in matrix.parts:
        own = [next(left) for _ in part.pieces]
        streams = [pack_weights(piece.values, piece.format.step, spec) for piece in own]
        weights = _by_block(streams, part.blocks)
        scales = _by_block([pack_scales(piece.scales, spec) for piece in own], part.blocks)
        for tile in range(part.tiles):
            at = part.offset + tile * part.tile_words
            blocks = slice(tile * part.tile_blocks, (tile + 1) * part.tile_blocks)
            for rows, words in (
                (scales[blocks], part.block_scale_words),
                (weights[blocks], part.block_words),
            ):
                found = rows.reshape(-1, spec.word_bytes)
                image[at : at + len(found)] = found
                at += part.tile_blocks * words
    return image


def _by_block(streams: list[np.ndarray], blocks: int) -> np.ndarray:
    """Words of pieces, block by block one piece behind the other: [blocks, words, word_bytes]."""
    parts = [stream.reshape(blocks, -1, stream.shape[1]) for stream in streams]
    return np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]


def fill_memory(model: Model, plan: Plan, images: np.ndarray) -> None:
    """Write the memory images of all cores up to the KV cache, one tensor after another.

    Two tensors at a time are read, compressed and packed, so that little more than those is held.

    Parameters
    ----------
    images : uint8 [cores, words, word_bytes]
        All zero.
    """

    def put(base: int, rows: np.ndarray, stride: int, core: slice = slice(None)) -> None:
        """Rows of FP32, each padded to `stride` words, for every core or for some."""
        for first in range(0, len(rows), _ROWS):
            part = rows[first : first + _ROWS]
            words = np.zeros((len(part), stride * plan.word_elements), np.float32)
            words[:, : part.shape[1]] = part
            at = base + first * stride
            packed = words.view(np.uint8).reshape(-1, plan.spec.word_bytes)
            images[core, at : at + len(packed)] = packed

    norms = _norms(model, plan)

    def matrix(tensor: str, matrix: MatrixPlan, base: int) -> None:
        pieces = _compress(model, tensor, matrix, plan, norms)
        for core, image in enumerate(images):
            words = pack_matrix(core_part(pieces, plan, core), matrix, plan)
            image[base : base + len(words)] = words

    def both(prefix: str, segment: Segment, base: int) -> None:
        """A core's outputs of two matrices, one behind the other."""
        one, two = (
            _compress(model, prefix + name, segment.matrices[name], plan, norms)
            for name in (FIRST, SECOND)
        )
        for core, image in enumerate(images):
            ((first,), (second,)) = core_part(one, plan, core), core_part(two, plan, core)
            values = np.concatenate([first.values, second.values])
            scales = np.concatenate([first.scales, second.scales])
            together = replace(first, values=values, scales=scales)
            words = pack_matrix((together,), segment.streams[FIRST], plan)
            image[base : base + len(words)] = words

    def parts(base: int, rows: np.ndarray, stride: int) -> None:
        """Rows of the hidden size: of each its part to every core."""
        for core in range(plan.cores):
            own = slice(core * plan.hidden_outputs, (core + 1) * plan.hidden_outputs)
            put(base, rows[:, own], stride, slice(core, core + 1))

    def vectors(prefix: str, group: ParameterGroup, base: int) -> None:
        for name, offset in group.offsets.items():
            for core, part in enumerate(_core_vectors(model.tensor(prefix + name), name, plan)):
                words = -(-part.size // plan.word_elements)
                put(base + offset, part[None], words, slice(core, core + 1))

    def hiding(masks: HeadMasks) -> None:
        for core in range(plan.cores):
            heads = range(core * plan.heads, (core + 1) * plan.heads)
            rows = masks.hiding(heads, plan.mask, plan.context, plan.chunk_context)
            rows = rows.reshape(-1, plan.chunk_context)
            put(plan.hiding_base, rows, plan.hiding_words, slice(core, core + 1))

    jobs: list[Callable[[], None]] = [
        lambda: parts(plan.embedding, model.tensor("embed_tokens"), plan.embedding_stride),
        lambda: (parts if plan.config.opt else put)(
            plan.positions, _position_rows(model, plan), plan.position_words
        ),
        functools.partial(vectors, "", plan.parameters["norm"], plan.norm),
    ]
    if plan.hiding is not None:
        jobs.append(functools.partial(hiding, plan.hiding))
    if not plan.wired:
        jobs.append(functools.partial(matrix, "lm_head", plan.head_matrix, plan.head_base))
    for segment in plan.segments:
        for index in range(segment.layers):
            layer = segment.base + index * segment.stride
            for name, offset in segment.offsets.items():
                prefix = f"layers.{segment.first + index}."
                if plan.joined and name == FIRST:
                    jobs.append(functools.partial(both, prefix, segment, layer + offset))
                elif name in segment.matrices:
                    jobs.append(
                        functools.partial(
                            matrix, prefix + name, segment.matrices[name], layer + offset
                        )
                    )
                else:
                    group = plan.parameters[name]
                    jobs.append(functools.partial(vectors, prefix, group, layer + offset))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        # The first error ends it.
        for number, done in enumerate([pool.submit(job) for job in jobs]):
            try:
                done.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
            if number % _RELEASE == 0:
                release(images)


def wire_matrices(model: Model, plan: Plan) -> Wires:
    """Weights of the hardwired matrices, padded with zeros to what the machine reads and writes."""
    matrices, wired = compress_model(model, plan), []
    for shape, (name, _) in zip(plan.machine().wired_matrices, plan.wired_tensors(), strict=True):
        (quantized,) = matrices[name]
        rows, columns = quantized.values.shape
        values = np.zeros((shape.outputs, shape.inputs), np.int8)
        values[:rows, :columns] = quantized.values
        scales = np.zeros(shape.outputs, np.float16)
        scales[:rows] = quantized.scales[:, 0]
        wired.append(WiredMatrix(name, values, scales))
    return Wires(tuple(wired))


def _core_vectors(vector: np.ndarray, name: str, plan: Plan) -> np.ndarray:
    """A gain or bias as every core has it, [cores, elements]: a norm's of its part, a matrix's of its own outputs."""
    matrix = name.removesuffix(BIAS)
    if matrix == name or "." not in matrix:
        outputs = plan.hidden_outputs
    else:
        outputs, _ = plan.matrix_shape(matrix)
    if matrix in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"):
        vector = _pad_heads(vector[:, None], plan.config, plan)[:, 0]
    padded = np.zeros(plan.cores * outputs, np.float32)
    padded[: vector.size] = vector
    return padded.reshape(plan.cores, outputs)


def _position_rows(model: Model, plan: Plan) -> np.ndarray:
    """For each position its learned vector, or cos, cos, -sin, sin, each padded to half a head."""
    if plan.config.opt:
        rows = np.zeros((plan.context, plan.config.hidden_size), np.float32)
        learned = model.tensor(POSITIONS)[POSITION_OFFSET:][: plan.context]
        rows[: len(learned)] = learned
        return rows
    cosine, sine = rope_tables(plan.config, np.arange(plan.context))
    rows = np.zeros((plan.context, 4, plan.half), np.float32)
    half = plan.config.head_dim // 2
    for i, table in enumerate((cosine, cosine, -sine, sine)):
        rows[:, i, :half] = table
    return rows.reshape(plan.context, -1)
