"""Where everything lies: padded shapes, tiles, buffer regions and memory regions of a model on a machine."""

from dataclasses import dataclass, field

from hw.spec.errors import InputError
from hw.spec.machine import MachineSpec
from mapping.frontend.config import ModelConfig
from mapping.recipe import Recipe, WeightFormat

CREDITS = 4
"""Tiles that the rings hold at once."""
INPUT_CREDITS = 3
"""Groups of loads to the input buffer that may be ahead of the vector unit: one layer's."""

LAYER_MATRICES = (
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.q_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
"""Weight matrices of a layer in the order of use: K and V first, so that they are stored while Q is computed."""


def round_up(value: int, multiple: int) -> int:
    """Smallest multiple of `multiple` that is at least `value`."""
    return -(-value // multiple) * multiple


@dataclass(frozen=True)
class MatrixPlan:
    """A weight matrix cut into tiles that fit the rings.

    Attributes
    ----------
    name : str
        Tensor name without the layer.
    rows, columns : int
        Outputs and inputs as the machine sees them (head padding included), not yet rounded to blocks and groups.
    format : WeightFormat
    blocks, steps, group_steps : int
        Blocks of `matrix_rows` outputs; steps along K; steps of a scale group.
    tile_blocks : int
        Blocks of a full tile.
    block_words, block_scale_words : int
        Stream and scale words of a block.
    """

    name: str
    rows: int
    columns: int
    format: WeightFormat
    blocks: int
    steps: int
    group_steps: int
    tile_blocks: int
    block_words: int
    block_scale_words: int

    @property
    def tiles(self) -> int:
        """Tiles, the last of which may be smaller."""
        return -(-self.blocks // self.tile_blocks)

    @property
    def words(self) -> int:
        """Memory words: full tiles, and a last one whose scales take as much room as those of a full one."""
        last = self.blocks - (self.tiles - 1) * self.tile_blocks
        return (
            (self.tiles - 1) * self.tile_words
            + self.tile_blocks * self.block_scale_words
            + last * self.block_words
        )

    @property
    def tile_words(self) -> int:
        """Memory words of a full tile, scales included."""
        return self.tile_blocks * (self.block_words + self.block_scale_words)


def plan_matrix(
    spec: MachineSpec, name: str, rows: int, columns: int, format: WeightFormat
) -> MatrixPlan:
    """Cut a matrix into tiles.

    Raises
    ------
    InputError
        If one block of outputs does not fit a quarter of the rings.
    """
    elements = spec.step_elements(format.bits)
    group = format.group or round_up(columns, elements)
    steps = round_up(columns, group) // elements
    group_steps = group // elements
    block_words, scale_words = spec.step_words * steps, steps // group_steps
    room = min(
        spec.stream_words // CREDITS // block_words, spec.scale_words // CREDITS // scale_words
    )
    blocks = -(-rows // spec.matrix_rows)
    if room == 0:
        raise InputError(
            f"target {spec.name}: stream_words, scale_words: {name} needs {CREDITS * block_words} and "
            f"{CREDITS * scale_words}, the target has {spec.stream_words} and {spec.scale_words}"
        )
    if group_steps >= 1 << 12:
        raise InputError(
            f"{name}: {columns} inputs in one scale group: at most {elements * 4095} are possible"
        )
    return MatrixPlan(
        name,
        rows,
        columns,
        format,
        blocks,
        steps,
        group_steps,
        min(room, blocks),
        block_words,
        scale_words,
    )


@dataclass
class Regions:
    """Regions handed out one behind the other in a buffer or memory.

    Parameters
    ----------
    name : str
        Field of the target that bounds it, for messages.
    size : int
        Its size, in the unit of the regions.
    """

    name: str
    size: int
    used: int = 0
    taken: dict[str, tuple[int, int]] = field(default_factory=dict)

    def take(self, name: str, length: int, align: int = 1) -> int:
        """First address of a new region."""
        start = round_up(self.used, align)
        self.used = start + length
        self.taken[name] = (start, length)
        return start

    def check(self, target: str) -> None:
        """Refuse what does not fit, and say by how much."""
        if self.used > self.size:
            raise InputError(
                f"target {target}: {self.name}: the model needs {self.used}, the target has {self.size} "
                f"({self.used - self.size} too few)"
            )


@dataclass(frozen=True)
class Segment:
    """Consecutive layers of equal formats: one loop in every unit.

    Attributes
    ----------
    first, layers : int
    matrices : dict of str to MatrixPlan
    offsets : dict of str to int
        Words from the layer's first word to each matrix and norm weight.
    stride : int
        Words from layer to layer.
    base : int
        First word of the segment's first layer.
    """

    first: int
    layers: int
    matrices: dict[str, MatrixPlan]
    offsets: dict[str, int]
    stride: int
    base: int


class Plan:
    """All shapes and addresses of one model on one machine.

    Parameters
    ----------
    config : ModelConfig
    spec : MachineSpec
    recipe : Recipe
    context : int
        Longest sequence, prompt and answer together (rounded up here).
    """

    def __init__(
        self, config: ModelConfig, spec: MachineSpec, recipe: Recipe, context: int
    ) -> None:
        self.config, self.spec = config, spec
        lanes, granule, rows = spec.lanes, spec.granule, spec.matrix_rows
        self.half = round_up(config.head_dim // 2, granule)
        self.head = 2 * self.half
        """Head dimension with both halves padded to whole beats."""
        self.head_rows = self.head // lanes
        self.head_blocks = self.head // rows
        self.groups = config.heads // config.kv_heads
        self.hidden_rows = round_up(config.hidden_size, granule) // lanes
        self.ffn_rows = round_up(config.intermediate_size, granule) // lanes
        # Keys come in tiles of a power of two of blocks, so that tile counts are shifts of POSITION.
        block_words = spec.step_words * self.head // spec.step_elements(8)
        key_room = spec.stream_words // CREDITS // block_words
        if key_room == 0:
            raise InputError(
                f"target {spec.name}: stream_words: a key block needs {CREDITS * block_words}, the target has {spec.stream_words}"
            )
        self.key_block_words = block_words
        tokens = max(rows, granule, lanes)
        self.key_tile_blocks = min(
            1 << (key_room.bit_length() - 1), max(1, round_up(context, tokens) // rows)
        )
        self.key_tile_blocks = 1 << (self.key_tile_blocks.bit_length() - 1)
        self.context = round_up(context, max(tokens, self.key_tile_blocks * rows))
        self.context_rows = self.context // lanes
        self.value_words = spec.step_words * self.context // spec.step_elements(8)
        if self.value_words > spec.stream_words // CREDITS:
            raise InputError(
                f"target {spec.name}: stream_words: a context of {self.context} tokens needs {CREDITS * self.value_words}, "
                f"the target has {spec.stream_words}"
            )
        if self.context > spec.tokens:
            raise InputError(
                f"target {spec.name}: tokens: the context is {self.context}, the target has {spec.tokens}"
            )
        self._plan_memory(recipe)
        self._plan_buffers()

    def matrix_shape(self, name: str) -> tuple[int, int]:
        """Outputs and inputs of a matrix as the machine sees it."""
        config = self.config
        query, key = config.heads * self.head, config.kv_heads * self.head
        hidden = self.hidden_rows * self.spec.lanes
        ffn = self.ffn_rows * self.spec.lanes
        return {
            "self_attn.k_proj": (key, hidden),
            "self_attn.v_proj": (key, hidden),
            "self_attn.q_proj": (query, hidden),
            "self_attn.o_proj": (config.hidden_size, query),
            "mlp.gate_proj": (config.intermediate_size, hidden),
            "mlp.up_proj": (config.intermediate_size, hidden),
            "mlp.down_proj": (config.hidden_size, ffn),
            "lm_head": (config.vocabulary_size, hidden),
        }[name]

    def _plan_memory(self, recipe: Recipe) -> None:
        spec, config = self.spec, self.config
        memory = self.memory = Regions("memory.words", spec.memory.words)
        burst = spec.burst_beats
        row = self.hidden_rows
        # Every embedding row must split into bursts alike, whatever the token: timing does not depend on data.
        self.embedding_stride = (
            1 << (row - 1).bit_length() if row <= burst else round_up(row, burst)
        )
        self.embedding = memory.take(
            "embedding", config.vocabulary_size * self.embedding_stride, burst
        )
        self.rope_rows = 2 * self.head_rows
        self.rope = memory.take("rope", self.context * self.rope_rows, burst)
        self.segments: list[Segment] = []
        formats = [
            tuple(recipe.format_of(f"layers.{i}.{name}") for name in LAYER_MATRICES)
            for i in range(config.layers)
        ]
        first = 0
        for layer in range(1, config.layers + 1):
            if layer == config.layers or formats[layer] != formats[first]:
                self.segments.append(self._segment(first, layer - first, formats[first]))
                first = layer
        self.norm = memory.take("norm", row, burst)
        self.head_matrix = plan_matrix(
            spec, "lm_head", *self.matrix_shape("lm_head"), recipe.format_of("lm_head")
        )
        self.head_base = memory.take("lm_head", self.head_matrix.words, burst)
        self.key_head = self.context // spec.matrix_rows * self.key_block_words
        self.value_head = self.head_blocks * self.value_words
        offsets = Regions("layer", 0)
        heads = config.kv_heads
        self.cache_offsets = {
            "key": offsets.take("key", heads * self.key_head, burst),
            "value": offsets.take("value", heads * self.value_head, burst),
            "key_scale": offsets.take("key_scale", heads * self.context_rows, burst),
            "value_scale": offsets.take("value_scale", heads * self.context_rows, burst),
        }
        self.cache_stride = round_up(offsets.used, burst)
        self.cache = memory.take("kv_cache", config.layers * self.cache_stride, burst)
        memory.check(spec.name)

    def _segment(self, first: int, layers: int, formats: tuple[WeightFormat, ...]) -> Segment:
        matrices = {
            name: plan_matrix(self.spec, name, *self.matrix_shape(name), format)
            for name, format in zip(LAYER_MATRICES, formats, strict=True)
        }
        offsets = Regions("layer", 0)
        burst = self.spec.burst_beats
        places = {"input_layernorm": offsets.take("input_layernorm", self.hidden_rows, burst)}
        for name in LAYER_MATRICES:
            if name == "mlp.gate_proj":
                places["post_attention_layernorm"] = offsets.take(
                    "post_attention_layernorm", self.hidden_rows, burst
                )
            places[name] = offsets.take(name, matrices[name].words)
        stride = round_up(offsets.used, burst)
        base = self.memory.take(f"layers.{first}-{first + layers - 1}", layers * stride, burst)
        return Segment(first, layers, matrices, places, stride, base)

    def _plan_buffers(self) -> None:
        spec, config = self.spec, self.config
        heads, kv_heads = config.heads, config.kv_heads
        row, context = self.hidden_rows, self.context_rows
        blocks = spec.matrix_rows // spec.lanes
        self.input = _regions(spec, "input_words", {
            "embedding": row, "rope": self.rope_rows, "input_layernorm": row, "post_attention_layernorm": row,
            "norm": row, "key_scale": kv_heads * context, "value_scale": kv_heads * context,
        })  # fmt: skip
        self.vector = _regions(spec, "vector_rows", {
            "x": row, "t": row, "head_t": heads * self.head_rows, "head_u": heads * self.head_rows,
            "scores": heads * context, "gate": self.ffn_rows, "up": self.ffn_rows,
        })  # fmt: skip
        self.result = _regions(spec, "result_rows", {
            "k": kv_heads * self.head_rows, "v": kv_heads * self.head_rows, "q": heads * self.head_rows,
            "scores": heads * context, "attention": heads * self.head_rows,
            "o": round_up(row, blocks), "gate": round_up(self.ffn_rows, blocks), "up": round_up(self.ffn_rows, blocks),
            "down": round_up(row, blocks), "logits": self.head_matrix.blocks * blocks,
        })  # fmt: skip
        # Activations end at a multiple of the longest group: padding is read (times zero weights), never written.
        group = max(
            m.group_steps * spec.step_elements(m.format.bits)
            for s in self.segments
            for m in s.matrices.values()
        )
        group = max(
            group, self.head_matrix.group_steps * spec.step_elements(self.head_matrix.format.bits)
        )

        def padded(rows: int) -> int:
            return round_up(rows * spec.lanes, group) // spec.lanes + spec.granule // spec.lanes

        self.activation = _regions(spec, "activation_rows", {
            "norm": padded(row), "q": heads * self.head_rows, "p": heads * context,
            "attention": padded(heads * self.head_rows), "ffn": padded(self.ffn_rows),
        })  # fmt: skip
        store = {
            "k": kv_heads * self.head,
            "v": kv_heads * self.head,
            "key_scale": 4 * kv_heads,
            "value_scale": 4 * kv_heads,
        }
        self.store = Regions("store_rows * matrix_rows", spec.store_rows * spec.matrix_rows)
        for name, length in store.items():
            self.store.take(name, length, max(spec.lanes, spec.matrix_rows, 4))
        self.store.check(spec.name)
        self.scalars = _regions(spec, "scalars", {
            "amax": 1, "a": 1, "b": 1, "c": 1, "d": 1, "e": 1, "head_a": heads, "head_b": heads, "head_c": heads, "head_d": heads,
        })  # fmt: skip
        self.matrix_scales = _regions(spec, "matrix_scales", {"x": 1, "q": heads, "p": heads})


def _regions(spec: MachineSpec, bound: str, lengths: dict[str, int]) -> Regions:
    regions = Regions(bound, getattr(spec, bound))
    align = 1 if bound in ("scalars", "matrix_scales") else max(1, spec.granule // spec.lanes)
    for name, length in lengths.items():
        regions.take(name, length, align)
    regions.check(spec.name)
    return regions
