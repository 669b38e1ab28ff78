"""Where everything lies: padded shapes, tiles, buffer regions and memory regions of a model on a machine."""

from dataclasses import dataclass, replace

from hw.spec.errors import InputError
from hw.spec.instructions import BUFFER_BITS
from hw.spec.machine import MachineSpec
from hw.spec.weight_format import StepFormat, WeightFormat
from mapping.formats import ORDER_SUFFIX
from mapping.graph.ir import Graph, Node, Operator
from mapping.graph.layers import equal_layers, layer_nodes
from mapping.lowering.geometry import Geometry
from mapping.lowering.joined import FIRST, SECOND, join
from mapping.lowering.parameters import ParameterGroup, parameter_groups
from mapping.lowering.regions import Regions, buffer_regions, round_up
from mapping.lowering.tiles import MatrixPlan, ring_parts
from mapping.passes.setting import Setting

CACHE_STEP = StepFormat(WeightFormat.INT8)
"""Keys and values in the stream of the matrix engine."""
QUERIES = "self_attn.q_proj"
INPUT_CREDITS = 3
"""Groups of loads to the input buffer that may be ahead of the vector unit: one layer's."""

ACTIVATIONS = {
    Operator.RMS_NORM: "norm",
    Operator.LAYER_NORM: "norm",
    Operator.ATTENTION: "attention",
    Operator.SILU_MULTIPLY: "ffn",
    Operator.RELU: "ffn",
    Operator.SORT: "sorted",
}
"""Region of the activation buffer that the operator before a matrix product writes."""


@dataclass(frozen=True)
class Segment:
    """Consecutive layers of equal formats: one loop in every unit.

    Attributes
    ----------
    first, layers : int
    nodes : tuple of Node
        Of the first of them.
    matrices : dict of str to MatrixPlan
    streams : dict of str to MatrixPlan
        The matrices as they are streamed: two of them may be one, by the name of the first.
    offsets : dict of str to int
        Words from the layer's first word to each group of vectors, and to each matrix that is not hardwired.
    stride : int
        Words from layer to layer.
    base : int
        First word of the segment's first layer.
    """

    first: int
    layers: int
    nodes: tuple[Node, ...]
    matrices: dict[str, MatrixPlan]
    streams: dict[str, MatrixPlan]
    offsets: dict[str, int]
    stride: int
    base: int


class Plan(Geometry):
    """All shapes and addresses of one model on one machine.

    Parameters
    ----------
    graph : Graph
        After all passes.
    setting : Setting
        What the passes were given.
    context : int
        Longest sequence, prompt and answer together (rounded up here).
    chunk : int
        Tokens that prefill processes at once, a power of two; 0: it runs the decode program without its output head.
    """

    def __init__(self, graph: Graph, setting: Setting, context: int, chunk: int = 0) -> None:
        super().__init__(setting.geometry.config, setting.geometry.spec)
        config, spec, credits = self.config, self.spec, setting.credits
        self.graph, self.setting, self.chunk, self.credits = graph, setting, chunk, credits
        lanes, rows = spec.lanes, spec.matrix_rows
        self.word_elements = spec.word_bytes // 4
        """FP32 elements of a memory word."""
        self.hidden_words = -(-self.hidden_outputs // self.word_elements)
        """Words of a core's part of a hidden vector."""
        self.parameters = parameter_groups(self)
        """Vectors of a layer that are loaded together, by the region of the input buffer."""
        self.parameter_group = {
            member: group for group in self.parameters.values() for member in group.offsets
        }
        self.position_table = "positions" if config.opt else "rope"
        """What is loaded for a token's position: a learned vector, or cosines and sines."""
        block_words = CACHE_STEP.block_words(self.head // CACHE_STEP.span)
        key_room = spec.stream_words // credits // block_words
        if key_room == 0:
            raise InputError(
                f"target {spec.name}: stream_words: a key block needs {credits * block_words}, the target has {spec.stream_words}"
            )
        self.key_block_words = block_words
        self._plan_context(context, key_room)
        self.context_rows = self.context // lanes
        self.context_words = self.context // self.word_elements
        self.chunk_head_rows = max(1, chunk) * self.chunk_context // lanes
        """Rows of the scores of one head, for all tokens that are processed at once."""
        self.value_words = CACHE_STEP.block_words(self.context // CACHE_STEP.span)
        if self.value_words > spec.stream_words // credits:
            raise InputError(
                f"target {spec.name}: stream_words: a context of {self.context} tokens needs {credits * self.value_words}, "
                f"the target has {spec.stream_words}"
            )
        keys = self.kv_heads * self.context // rows * block_words
        self.key_credits = ring_parts(credits, credits * keys / spec.stream_words)
        """Parts of the ring that hold the keys of all heads in decode; 0: each tile of keys takes one."""
        values = self.value_blocks * self.value_words
        self.value_credits = ring_parts(credits, credits * values / spec.stream_words)
        """Parts of the ring that hold the values of all heads in decode; 0: each block of values takes one."""
        if self.context > spec.tokens:
            raise InputError(
                f"target {spec.name}: tokens: the context is {self.context}, the target has {spec.tokens}"
            )
        self._plan_memory()
        self._plan_buffers()

    def _plan_context(self, context: int, key_room: int) -> None:
        """The context and the attention mask of prefill, and tiles of at most `key_room` blocks of keys."""
        spec, rows = self.spec, self.spec.matrix_rows
        tokens = max(rows, spec.granule, self.word_elements)
        # Keys come in tiles of a power of two of blocks, so that tile counts are shifts of POSITION.
        largest = min(key_room, max(1, round_up(context, tokens) // rows))
        self.key_tile_blocks = 1 << (largest.bit_length() - 1)

        def padded() -> int:
            return round_up(context, max(tokens, self.key_tile_blocks * rows))

        masks = self.setting.recipe.attention_mask
        # At least one token is generated.
        prompt = padded() - 1
        cover = masks.cover(rows) if masks is not None else None
        self.mask = cover if cover is not None and cover.skips(prompt) else None
        """What prefill loads and multiplies of keys, if it is not all of them in this context."""
        self.hiding = masks if masks is not None and masks.skips(prompt) else None
        """Masks of the heads, if any hides what is loaded."""
        if self.hiding is not None and set(self.hiding.masks) == {self.mask}:
            self.hiding = None
        first = self.first_key_blocks
        while first > self.key_tile_blocks and first % self.key_tile_blocks:
            # The first tokens of a mask are whole tiles, or fewer than one.
            self.key_tile_blocks //= 2
        self.context = self.chunk_context = padded()
        """Tokens that are attended to at most, by a token of a chunk, too, if there is no mask."""
        if self.mask:
            seen = round_up(self.mask.full_tokens + self.mask.block, tokens)
            self.chunk_context = min(self.context, seen)
        self.hiding_words = self.chunk_context // self.word_elements
        """Words of what hides keys from a head, for a block of queries."""

    @property
    def first_key_blocks(self) -> int:
        """Blocks of keys that a mask always keeps."""
        return self.mask.first_tokens // self.spec.matrix_rows if self.mask else 0

    def _plan_memory(self) -> None:
        spec, config = self.spec, self.config
        memory = self.memory = Regions("memory.words", spec.memory.words)
        burst = spec.burst_beats
        row = self.hidden_words
        # Every embedding row must split into bursts alike, whatever the token: timing does not depend on data.
        self.embedding_stride = (
            1 << (row - 1).bit_length() if row <= burst else round_up(row, burst)
        )
        self.embedding = memory.take(
            "embedding", config.vocabulary_size * self.embedding_stride, burst
        )
        self.position_words = self.hidden_words
        if not config.opt:
            self.position_words = -(-2 * self.head // self.word_elements)
        self.positions = memory.take(self.position_table, self.context * self.position_words, burst)
        self.hiding_base = 0
        if self.hiding is not None:
            blocks = -(-self.context // self.hiding.block)
            words = blocks * self.heads * self.hiding_words
            self.hiding_base = memory.take("attention_mask", words, burst)
        runs = list(equal_layers(self.graph))
        joined = [self._joined(layers) for layers in runs]
        self.joined = all(joined)
        """Gate and up projections are one matrix, in every layer."""
        self.segments = [
            self._segment(layers, whole if self.joined else None)
            for layers, whole in zip(runs, joined, strict=True)
        ]
        self.norm = memory.take("norm", self.parameters["norm"].words, burst)
        self.tail = tuple(
            node
            for node in layer_nodes(self.graph, None)
            if node.operator not in (Operator.EMBEDDING, Operator.POSITION)
        )
        """The nodes behind the last layer."""
        (self.head_matrix,) = _matrices(self.tail).values()
        self._check_head()
        self.head_base = 0
        if not self.wired:
            self.head_base = memory.take("lm_head", self.head_matrix.words, burst)
        self.key_head = self.context // spec.matrix_rows * self.key_block_words
        offsets = Regions("layer", 0)
        heads = self.kv_heads
        self.cache_offsets = {
            "key": offsets.take("key", heads * self.key_head, burst),
            "value": offsets.take("value", self.value_blocks * self.value_words, burst),
            "key_scale": offsets.take("key_scale", heads * self.context_words, burst),
            "value_scale": offsets.take("value_scale", heads * self.context_words, burst),
        }
        self.cache_stride = round_up(offsets.used, burst)
        self.cache = memory.take("kv_cache", config.layers * self.cache_stride, burst)
        memory.check(spec.name)

    def _joined(self, layers: range) -> MatrixPlan | None:
        matrices = _matrices(tuple(layer_nodes(self.graph, layers.start)))
        return join(self.spec, matrices, self.credits)

    def _segment(self, layers: range, joined: MatrixPlan | None) -> Segment:
        """Memory of equal layers: their weights in the order of use."""
        nodes = tuple(layer_nodes(self.graph, layers.start))
        matrices = _matrices(nodes)
        streams = {name: plan for name, plan in matrices.items() if not (joined and name == SECOND)}
        if joined:
            streams[FIRST] = joined
        offsets, places = Regions("layer", 0), dict[str, int]()
        burst = self.spec.burst_beats
        for node in nodes:
            for group in self.groups_of(node):
                if group.name not in places:
                    places[group.name] = offsets.take(group.name, group.words, burst)
            if node.operator is Operator.LINEAR:
                name = node.attribute("matrix")
                if name in streams and not streams[name].wired:
                    places[name] = offsets.take(name, streams[name].words)
        stride = round_up(offsets.used, burst)
        name = f"layers.{layers.start}-{layers.stop - 1}"
        base = self.memory.take(name, len(layers) * stride, burst)
        return Segment(layers.start, len(layers), nodes, matrices, streams, places, stride, base)

    def groups_of(self, node: Node) -> list[ParameterGroup]:
        """Groups of the vectors that a node reads."""
        members = [node.local(name) for name in node.inputs]
        return [self.parameter_group[name] for name in members if name in self.parameter_group]

    @property
    def matrices(self) -> list[MatrixPlan]:
        """Every weight matrix of one layer of each segment, and the output head's."""
        return [m for s in self.segments for m in s.matrices.values()] + [self.head_matrix]

    @property
    def permutations(self) -> list[MatrixPlan]:
        """Those that sort the inputs of others by group."""
        return [m for m in self.matrices if m.name.endswith(ORDER_SUFFIX)]

    def _check_head(self) -> None:
        """Refuse what loops over the output head's tiles, or over passes of a chunk, cannot do."""
        if len(self.head_matrix.parts) > 1:
            raise InputError(
                f"recipe {self.setting.recipe.name}: lm_head: expected one format along the outputs, found several"
            )
        if self.chunk > self.spec.matrix_columns and not all(m.whole_inputs for m in self.matrices):
            raise InputError(
                f"target {self.spec.name}: matrix_columns: blocks along inputs meet at most "
                f"{self.spec.matrix_columns} tokens at once, the chunk has {self.chunk}"
            )

    @property
    def wired(self) -> bool:
        """Weights are wires; only keys and values come from memory."""
        return self.head_matrix.wired

    def wired_number(self, segment: Segment, name: str) -> int:
        """Number of a hardwired matrix in the first layer of a segment.

        That of the output head is 1; then come the last layer's. From layer to layer numbers fall, because a
        count of an instruction can only fall.
        """
        behind = self.config.layers - 1 - segment.first
        return 2 + len(segment.matrices) * behind + list(segment.matrices).index(name)

    def wired_tensors(self) -> list[tuple[str, MatrixPlan]]:
        """Tensors of the hardwired matrices in the order of their numbers."""
        tensors = [("lm_head", self.head_matrix)]
        for segment in reversed(self.segments):
            for layer in reversed(range(segment.first, segment.first + segment.layers)):
                tensors += [(f"layers.{layer}.{name}", m) for name, m in segment.matrices.items()]
        return tensors

    def machine(self, digest: str = "") -> MachineSpec:
        """The machine with this model's hardwired matrices, if it has such; `digest` is the identity of their weights."""
        if not self.wired:
            return self.spec
        shapes = []
        for _, matrix in self.wired_tensors():
            inputs = round_up(matrix.columns, self.spec.activation_row_bytes)
            shapes.append(f"{inputs}x{matrix.blocks * self.spec.matrix_rows}")
        return replace(self.spec, wired_shapes=tuple(shapes), wired_digest=digest)

    def activation_pitch(self, name: str) -> int:
        """Units of 4 elements from a token's activations to the next one's, in a region of the activation buffer."""
        return self.activation_rows[name] * self.spec.lanes // 4

    def _plan_buffers(self) -> None:
        """Regions of the buffers, for as many tokens as are processed at once."""
        spec, lanes, tokens = self.spec, self.spec.lanes, max(1, self.chunk)
        config, heads, kv_heads = self.config, self.heads, self.kv_heads
        part, ffn_part = self.hidden_part // lanes, self.ffn_part // lanes
        words, blocks = self.hidden_words, spec.block_rows
        scores = heads * max(self.context_rows, self.chunk_head_rows)
        begin = {"embedding": tokens * words}
        always = {self.position_table: tokens * self.position_words}
        if config.opt:
            # Added to the embeddings at once; cosines and sines are read in every layer.
            begin, always = begin | always, {}
        if self.hiding is not None:
            always["attention_mask"] = self.heads * self.hiding_words
        groups = {name: group.words for name, group in self.parameters.items()}
        # Embeddings are loaded when SFU is through with the last chunk or token, and scales only when it has made keys
        # of them; the final norm belongs to a token's end.
        end = {
            "norm": groups.pop("norm"),
            "key_scale": kv_heads * self.context_words,
            "value_scale": kv_heads * self.context_words,
        }
        self.input = buffer_regions(spec, "input_words", always | groups, begin, end)
        self.vector_rows = {
            "x": part, "t": part, "head_t": heads * self.head_rows, "head_u": heads * self.head_rows,
            "up": ffn_part,
        }  # fmt: skip
        if not self.config.opt:
            self.vector_rows["gate"] = ffn_part
        lengths = {name: tokens * rows for name, rows in self.vector_rows.items()}
        # SFU, which alone uses the buffer, is through with attention when it comes to the FFN.
        of_ffn = {name: lengths.pop(name) for name in ("gate", "up") if name in lengths}
        of_attention = {name: lengths.pop(name) for name in ("head_t", "head_u")}
        self.vector = buffer_regions(
            spec, "vector_rows", lengths, of_attention | {"scores": scores}, of_ffn
        )
        self.result_rows = {
            "key": round_up(kv_heads * self.head_rows, blocks), "value": round_up(kv_heads * self.head_rows, blocks),
            "query": round_up(heads * self.head_rows, blocks), "attention": heads * self.attention_pitch,
            "attention_projection": round_up(part, blocks), "up": round_up(ffn_part, blocks),
            "down": round_up(part, blocks), "logits": self.head_matrix.blocks * blocks,
        }  # fmt: skip
        if not self.config.opt:
            self.result_rows["gate"] = round_up(ffn_part, blocks)
        if self.joined:
            self.result_rows["gate"] = round_up(2 * ffn_part, blocks)
        lengths = {name: tokens * rows for name, rows in self.result_rows.items()}
        if self.joined:
            # Its results are those of the gate's region from `ffn_part` rows on.
            del lengths["up"]
            self.result_rows["up"] = self.result_rows["gate"]
        lengths["logits"] = self.result_rows["logits"]
        # MPE computes what follows attention from vectors that SFU makes of all of attention's results, and so on.
        of_attention = {name: lengths.pop(name) for name in ("key", "value", "query", "attention")}
        sorting = {}
        if self.permutations:
            self.result_rows["sorted"] = max(m.blocks for m in self.permutations) * blocks
            sorting["sorted"] = tokens * self.result_rows["sorted"]
        self.result = buffer_regions(
            spec, "result_rows", sorting, of_attention | {"scores": scores}, lengths
        )
        self._plan_activations(tokens, scores)
        self._plan_store(tokens)
        entries = max(heads, tokens)
        self.scalars = buffer_regions(spec, "scalars", {
            "amax": tokens, "a": tokens, "b": tokens, "c": tokens, "d": tokens, "e": tokens,
            "head_a": entries, "head_b": entries, "head_c": entries, "head_d": entries,
        })  # fmt: skip
        scales = {"x": tokens, "q": heads * tokens, "p": heads * tokens}
        if self.permutations:
            scales["one"] = tokens
        self.matrix_scales = buffer_regions(spec, "matrix_scales", scales)

    def result_start(self, name: str) -> int:
        """First row of a region of the result buffer."""
        if self.joined and name == "up":
            return self.result.taken["gate"][0] + self.ffn_part // self.spec.lanes
        return self.result.taken[name][0]

    def _plan_activations(self, tokens: int, scores: int) -> None:
        """Activation vectors end at a multiple of the longest group: padding is read (times zero weights), never written."""
        spec, lanes = self.spec, self.spec.lanes
        groups = {piece.group for matrix in self.matrices for piece in matrix.pieces}
        align = spec.activation_row_bytes // lanes

        def padded(elements: int) -> int:
            longest = max(round_up(elements, group) for group in groups)
            return round_up(-(-longest // lanes), align) + align

        self.activation_rows = {
            "norm": padded(self.hidden_rows * lanes),
            "q": self.heads * self.head_rows,
            "attention": padded(self.cores * self.heads * self.head),
            "ffn": padded(self.ffn_rows * lanes),
        }
        if self.permutations:
            # Products with a permutation, and with what it sorts, are never under way together: one region is enough.
            self.activation_rows["sorted"] = padded(max(m.columns for m in self.permutations))
        lengths = {name: tokens * rows for name, rows in self.activation_rows.items()}
        # SFU writes each of these when it has got all products of the one before; queries, while MPE makes more of them.
        lengths["p"] = scores
        turns = [{name: lengths.pop(name)} for name in ("norm", "p", "attention", "ffn")]
        self.activation = buffer_regions(spec, "activation_rows", lengths, *turns)
        if self.activation.used * lanes // 4 > 1 << BUFFER_BITS:
            raise InputError(
                f"target {spec.name}: activations: the model needs {self.activation.used * lanes} elements, "
                f"addresses reach {4 << BUFFER_BITS}"
            )

    def _plan_store(self, tokens: int) -> None:
        spec, kv_heads = self.spec, self.kv_heads
        value_rows = self.value_blocks // self.head_blocks * self.value_heads
        self.store_pitch = {
            "k": kv_heads * self.head,
            "v": max(kv_heads, value_rows) * self.head,
            "key_scale": 4 * kv_heads,
            "value_scale": 4 * kv_heads,
        }
        """Bytes from token to token in the regions of the store buffer."""
        self.store = Regions("store_rows * matrix_rows", spec.store_rows * spec.matrix_rows)
        for name, length in self.store_pitch.items():
            self.store.take(name, tokens * length, max(spec.lanes, spec.matrix_rows, 4))
        self.store.check(spec.name)


def _matrices(nodes: tuple[Node, ...]) -> dict[str, MatrixPlan]:
    """Plans of the matrices of nodes, by name."""
    return {
        node.attribute("matrix"): node.attribute("tiles")
        for node in nodes
        if node.operator is Operator.LINEAR
    }
