"""What of a model each core computes, and how heads and vectors are padded to a machine's beats and blocks."""

from hw.spec.machine import MachineSpec
from mapping.formats import ORDER_SUFFIX
from mapping.frontend.config import ModelConfig
from mapping.lowering.regions import round_up


class Geometry:
    """Shapes of a model on a machine that depend on neither formats nor buffers.

    The vectors of the last core may end in padding, so may its heads.

    Parameters
    ----------
    config : ModelConfig
    spec : MachineSpec
    """

    def __init__(self, config: ModelConfig, spec: MachineSpec) -> None:
        self.config, self.spec, self.cores = config, spec, spec.cores
        lanes, granule, rows = spec.lanes, spec.granule, spec.matrix_rows
        self.groups = config.heads // config.kv_heads
        self.kv_heads = -(-config.kv_heads // self.cores)
        """KV heads of a core."""
        self.heads = self.kv_heads * self.groups
        """Query heads of a core."""

        def part(elements: int) -> int:
            return elements if self.cores == 1 else round_up(-(-elements // self.cores), granule)

        self.hidden_part = round_up(part(config.hidden_size), granule)
        """Elements of the hidden vector that a core has, and computes."""
        self.ffn_part = round_up(part(config.intermediate_size), granule)
        self.hidden_outputs = part(config.hidden_size)
        """The same without the padding of a core that is the only one."""
        self.ffn_outputs = part(config.intermediate_size)
        self.vocabulary_part = -(-config.vocabulary_size // self.cores)
        """Tokens of a core: token t is output t // cores of core t mod cores."""
        self.hidden_rows = self.cores * self.hidden_part // lanes
        self.ffn_rows = self.cores * self.ffn_part // lanes
        self.half = round_up(config.head_dim // 2, granule)
        if 2 * self.half > rows:
            self.half = round_up(self.half, rows // 2)
        self.head = 2 * self.half
        """Head dimension with both halves padded to whole beats, and to whole blocks if it is longer than one."""
        self.head_rows = self.head // lanes
        self.head_blocks = -(-self.head // rows)
        """Blocks of the matrix engine that the value dimensions of a head take."""
        self.value_heads = max(1, rows // self.head)
        """KV heads whose values lie side by side in one block."""
        self.value_blocks = -(-self.kv_heads // self.value_heads) * self.head_blocks
        self.attention_pitch = self.head_blocks * spec.block_rows
        """Result rows from one query head's attention to the next one's."""
        self.attention_whole = self.attention_pitch == self.head_rows
        """Results of attention are heads side by side; otherwise each is a part of a block."""

    def matrix_shape(self, name: str) -> tuple[int, int]:
        """Outputs and inputs of a weight matrix as one core sees it; every core computes all of a permutation."""
        if name.endswith(ORDER_SUFFIX):
            _, inputs = self.matrix_shape(name.removesuffix(ORDER_SUFFIX))
            return inputs, inputs
        query, key = self.heads * self.head, self.kv_heads * self.head
        hidden, ffn = self.hidden_rows * self.spec.lanes, self.ffn_rows * self.spec.lanes
        return {
            "self_attn.k_proj": (key, hidden),
            "self_attn.v_proj": (key, hidden),
            "self_attn.q_proj": (query, hidden),
            "self_attn.o_proj": (self.hidden_outputs, self.cores * query),
            "mlp.gate_proj": (self.ffn_outputs, hidden),
            "mlp.up_proj": (self.ffn_outputs, hidden),
            "mlp.down_proj": (self.hidden_outputs, ffn),
            "lm_head": (self.vocabulary_part, hidden),
        }[name]
