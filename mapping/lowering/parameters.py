"""Vectors of a layer that the vector unit reads: gains and biases of norms, and biases of matrices."""

from dataclasses import dataclass

from mapping.frontend.opt import BIAS
from mapping.lowering.geometry import Geometry


@dataclass(frozen=True)
class ParameterGroup:
    """Vectors that lie one behind the other in memory, and are loaded together.

    Attributes
    ----------
    name : str
        Its region of the input buffer; that of its norm.
    offsets : dict of str to int
        Words from the first to each vector, by the vector's name without the layer.
    words : int
    """

    name: str
    offsets: dict[str, int]
    words: int

    @property
    def first(self) -> str:
        """The vector that is read first."""
        return next(iter(self.offsets))

    @property
    def last(self) -> str:
        """The vector that is read last."""
        return list(self.offsets)[-1]


_BEFORE_ATTENTION = ("self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj")


def parameter_groups(geometry: Geometry) -> dict[str, ParameterGroup]:
    """The groups of a layer, in the order of use, and behind them `norm`, that of the final norm.

    The vectors of a group stand in the order in which they are read.
    """
    groups: dict[str, list[str]] = {
        name: [name] for name in ("input_layernorm", "post_attention_layernorm", "norm")
    }
    if geometry.config.opt:
        for name, members in groups.items():
            members.append(name + BIAS)
        groups["input_layernorm"] += [name + BIAS for name in _BEFORE_ATTENTION]
        around = groups["post_attention_layernorm"]
        around.insert(0, "self_attn.o_proj" + BIAS)
        around += ["mlp.up_proj" + BIAS, "mlp.down_proj" + BIAS]
    return {name: _group(geometry, name, members) for name, members in groups.items()}


def parameter_elements(geometry: Geometry, name: str) -> int:
    """Elements of a vector as one core sees it."""
    matrix = name.removesuffix(BIAS)
    if matrix == name or "." not in matrix:
        return geometry.hidden_outputs
    return geometry.matrix_shape(matrix)[0]


def _group(geometry: Geometry, name: str, members: list[str]) -> ParameterGroup:
    offsets, words = dict[str, int](), 0
    for member in members:
        offsets[member] = words
        words += -(-4 * parameter_elements(geometry, member) // geometry.spec.word_bytes)
    return ParameterGroup(name, offsets, words)
