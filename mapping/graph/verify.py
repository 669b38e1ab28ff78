"""Is a graph legal? Runs after building and between passes."""

from collections import Counter
from collections.abc import Callable

from mapping.graph.ir import Extent, Graph, Node, Operator, Role

Shape = tuple[Extent, ...]


def verify_graph(graph: Graph) -> None:
    """Check names, order, operands and shapes.

    Raises
    ------
    ValueError
        If a name is declared or computed twice, a tensor is read before it is computed or without
        being declared, a node lacks an attribute, or a shape is not what its operator makes of its
        operands. The message names the node.
    """
    _check_names(graph)
    available = {tensor.name for tensor in graph.tensors if tensor.role is not Role.ACTIVATION}
    declared = {tensor.name for tensor in graph.tensors}
    for node in graph.nodes:
        for name in node.inputs:
            if name not in declared:
                raise ValueError(f"{node.name}: reads {name}, which is not declared")
            if name not in available:
                raise ValueError(f"{node.name}: reads {name} before it is computed")
        if node.output not in declared:
            raise ValueError(f"{node.name}: computes a tensor that is not declared")
        if node.output in available:
            raise ValueError(f"{node.name}: computes a tensor that already has a value")
        _check_shapes(graph, node)
        available.add(node.output)
    for name in sorted(declared - available):
        raise ValueError(f"{name}: declared as an activation, computed by no node")
    for name in graph.outputs:
        if name not in available:
            raise ValueError(f"{name}: an output that no node computes")


def _check_names(graph: Graph) -> None:
    for name, count in Counter(tensor.name for tensor in graph.tensors).items():
        if count > 1:
            raise ValueError(f"{name}: declared {count} times")
    for tensor in graph.tensors:
        for extent in tensor.shape:
            if isinstance(extent, int) and extent < 1:
                raise ValueError(f"{tensor.name}: extents must be positive, not {tensor.shape}")


def _check_shapes(graph: Graph, node: Node) -> None:
    rule, arity = _RULES[node.operator]
    if len(node.inputs) - arity not in (0, _OPTIONAL.get(node.operator, 0)):
        raise ValueError(
            f"{node.name}: {node.operator.value} takes {arity} operands, not {len(node.inputs)}"
        )
    shapes = [graph.tensor(name).shape for name in node.inputs]
    try:
        expected = rule(node, *shapes)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{node.name}: {node.operator.value} of {shapes}: {error}") from error
    found = graph.tensor(node.output).shape
    if found != expected:
        raise ValueError(f"{node.name}: its shape must be {expected}, not {found}")


def _require(condition: bool, rule: str) -> None:
    if not condition:
        raise ValueError(f"needs {rule}")


def _whole(node: Node, name: str) -> int:
    if name not in dict(node.attributes):
        raise ValueError(f"needs the attribute {name}")
    value = node.attribute(name)
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"needs a positive whole number as {name}, not {value!r}")
    return value


def _real(node: Node, name: str) -> None:
    value = dict(node.attributes).get(name)
    _require(isinstance(value, (int, float)) and value > 0, f"a positive number as {name}")


def _embedding(node: Node, tokens: Shape, matrix: Shape) -> Shape:
    _require(len(tokens) == 1 and len(matrix) == 2, "token ids [T] and a matrix [V, H]")
    return (*tokens, matrix[1])


def _rms_norm(node: Node, x: Shape, gain: Shape) -> Shape:
    _real(node, "epsilon")
    _require(len(x) == 2 and gain == x[1:], "x [T, H] and a gain [H]")
    return x


def _layer_norm(node: Node, x: Shape, gain: Shape, bias: Shape) -> Shape:
    _require(bias == gain, "a bias [H]")
    return _rms_norm(node, x, gain)


def _position(node: Node, x: Shape, table: Shape) -> Shape:
    _require(len(x) == len(table) == 2 and x[1] == table[1], "x [T, H] and a table [P, H]")
    return x


def _linear(node: Node, x: Shape, matrix: Shape, bias: Shape | None = None) -> Shape:
    _require(len(x) == len(matrix) == 2 and x[1] == matrix[1], "x [T, K] and a matrix [N, K]")
    _require(bias is None or bias == matrix[:1], "a bias [N]")
    return (x[0], matrix[0])


def _rope(node: Node, x: Shape, table: Shape) -> Shape:
    heads = _whole(node, "heads")
    _require(len(x) == len(table) == 2, "x [T, heads * D] and a table [P, D]")
    width, head_dim = x[1], table[1]
    _require(
        isinstance(width, int) and isinstance(head_dim, int) and width == heads * head_dim,
        "x [T, heads * D] and a table [P, D]",
    )
    return x


def _attention(
    node: Node, queries: Shape, keys: Shape, values: Shape, key_cache: Shape, value_cache: Shape
) -> Shape:
    _real(node, "scale")
    heads, kv_heads = _whole(node, "heads"), _whole(node, "kv_heads")
    _require(heads % kv_heads == 0, "heads that are a multiple of kv_heads")
    _require(len(key_cache) == 3 and key_cache == value_cache, "two caches [Hk, P, D]")
    head_dim = key_cache[2]
    if not isinstance(head_dim, int) or key_cache[0] != kv_heads:
        raise ValueError("needs caches of kv_heads")
    _require(len(queries) == 2 and queries[1] == heads * head_dim, "queries [T, Hq * D]")
    _require(keys == values == (queries[0], kv_heads * head_dim), "keys and values [T, Hk * D]")
    return queries


def _relu(node: Node, x: Shape) -> Shape:
    _require(len(x) == 2, "x [T, F]")
    return x


def _elementwise(node: Node, x: Shape, y: Shape) -> Shape:
    _require(len(x) == 2 and x == y, "two operands [T, N] of one shape")
    return x


def _quantize(node: Node, x: Shape) -> Shape:
    heads = _whole(node, "heads")
    _require(
        len(x) == 2 and isinstance(x[1], int) and x[1] % heads == 0,
        "x [T, H], H a multiple of heads",
    )
    return x


def _sort(node: Node, x: Shape) -> Shape:
    _require(len(x) == 2, "x [T, H]")
    return x


def _exchange(node: Node, x: Shape) -> Shape:
    _require(_whole(node, "cores") > 1 and len(x) == 2, "x [T, H] and at least two cores")
    return x


def _argmax(node: Node, logits: Shape) -> Shape:
    _require(len(logits) == 2, "logits [T, V]")
    return logits[:1]


_RULES: dict[Operator, tuple[Callable[..., Shape], int]] = {
    Operator.EMBEDDING: (_embedding, 2),
    Operator.RMS_NORM: (_rms_norm, 2),
    Operator.LAYER_NORM: (_layer_norm, 3),
    Operator.POSITION: (_position, 2),
    Operator.LINEAR: (_linear, 2),
    Operator.ROPE: (_rope, 2),
    Operator.ATTENTION: (_attention, 5),
    Operator.SILU_MULTIPLY: (_elementwise, 2),
    Operator.RELU: (_relu, 1),
    Operator.ADD: (_elementwise, 2),
    Operator.QUANTIZE: (_quantize, 1),
    Operator.SORT: (_sort, 1),
    Operator.EXCHANGE: (_exchange, 1),
    Operator.ARGMAX: (_argmax, 1),
}
"""For each operator, the shape of its result as a function of its operands, and how many there are."""
_OPTIONAL = {Operator.LINEAR: 1}
"""How many more there may be."""
