"""The intermediate representation: operators on named tensors, frozen once made.

A compiler pass is a function from `Graph` to `Graph`; `verify_graph` runs between passes.
"""

import functools
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

TOKENS = "tokens"
"""The extent that is the number of tokens processed at once: many in prefill, one in decode."""

POSITIONS = "positions"
"""The extent that is the number of positions held in the key and value caches."""

Extent = int | str
"""A number, or the name of one that is known only when the program runs."""

Attribute = Any
"""A constant: a number, a name, or a frozen value of the compiler such as a number format."""


class Operator(Enum):
    """What a node computes; the operands are listed in order."""

    EMBEDDING = "embedding"
    """token ids [T], matrix [V, H] -> rows of the matrix [T, H]"""

    RMS_NORM = "rms_norm"
    """x [T, H], gain [H] -> x / sqrt(mean(x^2) + epsilon) * gain"""

    LAYER_NORM = "layer_norm"
    """x [T, H], gain and bias [H] -> (x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon) * gain + bias"""

    POSITION = "position"
    """x [T, H], table [P, H] -> x + the row of each token's position"""

    LINEAR = "linear"
    """x [T, K], matrix [N, K], and if it has one a bias [N] -> x @ matrix.T + bias [T, N]"""

    ROPE = "rope"
    """x [T, heads * D], table [P, D] of D/2 cosines, then D/2 sines -> x rotated in halves"""

    ATTENTION = "attention"
    """queries [T, Hq * D], keys and values [T, Hk * D], both caches [Hk, P, D] -> [T, Hq * D]

    Appends keys and values to the caches first; causal; scores are multiplied by `scale`.
    """

    SILU_MULTIPLY = "silu_multiply"
    """gate [T, F], up [T, F] -> gate / (1 + exp(-gate)) * up"""

    RELU = "relu"
    """x [T, F] -> x where it is above zero, otherwise 0"""

    ADD = "add"
    """x [T, H], y [T, H] -> x + y"""

    QUANTIZE = "quantize"
    """x [T, H] -> the same as INT8, with a scale for each of `heads` equal parts of a row"""

    SORT = "sort"
    """x [T, H], integers of INT8 in another order -> the same as INT8, with the scales that they had"""

    EXCHANGE = "exchange"
    """x [T, H], of which each of `cores` computes a part -> the whole in every core"""

    ARGMAX = "argmax"
    """logits [T, V] -> index of the largest, the lowest among equals [T]"""


class Role(Enum):
    """Where the values of a tensor come from, and so where they can live."""

    INPUT = "input"
    """Given by the host at run time."""

    WEIGHT = "weight"
    """Part of the model; the name is the one `Model.tensor` knows."""

    TABLE = "table"
    """Computed by the compiler from the configuration."""

    CACHE = "cache"
    """State that outlives a step; the operator that reads it also appends to it."""

    ACTIVATION = "activation"
    """Computed by a node."""


@dataclass(frozen=True)
class Tensor:
    """A named value; extents may be symbolic."""

    name: str
    shape: tuple[Extent, ...]
    role: Role


@dataclass(frozen=True)
class Node:
    """One operation.

    Members
    -------
    name : str
        Unique in its graph, and the name of the tensor it computes.
    operator : Operator
        What it computes.
    inputs : tuple[str, ...]
        Tensors it reads, in the order the operator states.
    attributes : tuple[tuple[str, Attribute], ...]
        Constants of the operator, by name.
    layer : int or None
        The decoder layer it belongs to.
    """

    name: str
    operator: Operator
    inputs: tuple[str, ...]
    attributes: tuple[tuple[str, Attribute], ...] = ()
    layer: int | None = None

    @property
    def output(self) -> str:
        """The tensor it computes."""
        return self.name

    def local(self, name: str) -> str:
        """A tensor's name without this node's layer."""
        return name.removeprefix(f"layers.{self.layer}.")

    def attribute(self, name: str) -> Attribute:
        """Return one constant; raises KeyError if the node does not have it."""
        return dict(self.attributes)[name]


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which they can be executed.

    Members
    -------
    name : str
        The model.
    tensors : tuple[Tensor, ...]
        Every tensor that a node reads or computes.
    nodes : tuple[Node, ...]
        In order of execution.
    outputs : tuple[str, ...]
        The tensors that are wanted; everything else may be optimised away.
    """

    name: str
    tensors: tuple[Tensor, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    _by_name: dict[str, Tensor] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # A frozen class can still fill its derived field, once, here.
        object.__setattr__(self, "_by_name", {tensor.name: tensor for tensor in self.tensors})

    def tensor(self, name: str) -> Tensor:
        """Return a tensor by name; raises KeyError if there is none."""
        return self._by_name[name]

    @functools.cached_property
    def producers(self) -> dict[str, Node]:
        """The node that computes each activation."""
        return {node.output: node for node in self.nodes}

    @functools.cached_property
    def consumers(self) -> dict[str, tuple[Node, ...]]:
        """The nodes that read each tensor, in order; tensors nobody reads are left out."""
        result: dict[str, tuple[Node, ...]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                result[name] = (*result.get(name, ()), node)
        return result
