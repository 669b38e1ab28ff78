"""Inputs of matrices in activation order are sorted by group: a product with a permutation, exact, before them."""

from dataclasses import replace

from mapping.formats import ORDER_SUFFIX, WeightFormat, narrowest_format
from mapping.graph.ir import Graph, Node, Operator, Role, Tensor
from mapping.passes.setting import Setting

PERMUTED = "_permuted"
"""Behind the name of a matrix: the product of its inputs with the permutation."""


def order_inputs(graph: Graph, setting: Setting) -> Graph:
    """Put a linear node, whose matrix is a permutation, and a sort node before each linear node whose format names an order.

    Nodes of a layer whose orders are the same read the same. Every core sorts all inputs.
    """
    sorted_by: dict[tuple[int | None, str], str] = {}
    nodes: list[Node] = []
    tensors = list(graph.tensors)
    for node in graph.nodes:
        order = _order(node)
        if order:
            key = node.layer, order
            if key not in sorted_by:
                made, declared = _sort(graph, setting, node, order)
                nodes += made
                tensors += declared
                sorted_by[key] = made[-1].output
            node = replace(node, inputs=(sorted_by[key], *node.inputs[1:]))
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes), tensors=tuple(tensors))


def _order(node: Node) -> str:
    """The matrix, without its layer, in whose order a linear node wants its inputs; none: as they are."""
    format = dict(node.attributes).get("format")
    return format.order if isinstance(format, WeightFormat) else ""


def _sort(
    graph: Graph, setting: Setting, node: Node, order: str
) -> tuple[list[Node], list[Tensor]]:
    source, name = node.inputs[0], f"layers.{node.layer}.{order}"
    tokens, width = graph.tensor(source).shape
    matrix = f"{order}{ORDER_SUFFIX}"
    format = narrowest_format(0, 1, None, setting.geometry.spec)
    product = Node(
        f"{name}{PERMUTED}",
        Operator.LINEAR,
        (source, f"{name}{ORDER_SUFFIX}"),
        (("matrix", matrix), ("format", format)),
        node.layer,
    )
    result = Node(f"{name}_sorted", Operator.SORT, (product.output,), (), node.layer)
    return [product, result], [
        Tensor(f"{name}{ORDER_SUFFIX}", (width, width), Role.WEIGHT),
        Tensor(product.output, (tokens, width), Role.ACTIVATION),
        Tensor(result.output, (tokens, width), Role.ACTIVATION),
    ]
