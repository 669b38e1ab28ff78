"""How passes change a frozen graph: every function returns a new one."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from mapping.graph.ir import Attribute, Extent, Graph, Node, Tensor


def replace_nodes(graph: Graph, change: Callable[[Node], Node]) -> Graph:
    """The graph with every node changed; names and operands keep."""
    return replace(graph, nodes=tuple(change(node) for node in graph.nodes))


def with_attributes(node: Node, **attributes: Attribute) -> Node:
    """A node with attributes set."""
    return replace(node, attributes=tuple((dict(node.attributes) | attributes).items()))


def reshape(graph: Graph, shapes: dict[str, tuple[Extent, ...]]) -> Graph:
    """The graph with other shapes of some tensors."""
    tensors = (
        replace(tensor, shape=shapes[tensor.name]) if tensor.name in shapes else tensor
        for tensor in graph.tensors
    )
    return replace(graph, tensors=tuple(tensors))


def insert_behind(graph: Graph, inserted: Iterable[tuple[str, Node, Tensor]]) -> Graph:
    """The graph with new nodes: each (tensor, node, result) stands behind the producer of `tensor`, and all other
    readers of the tensor read the node's result instead.
    """
    behind = {source: (node, tensor) for source, node, tensor in inserted}
    renamed = {source: node.output for source, (node, _) in behind.items()}
    nodes: list[Node] = []
    for node in graph.nodes:
        nodes.append(replace(node, inputs=tuple(renamed.get(name, name) for name in node.inputs)))
        if node.output in behind:
            nodes.append(behind[node.output][0])
    outputs = tuple(renamed.get(name, name) for name in graph.outputs)
    tensors = (*graph.tensors, *(tensor for _, tensor in behind.values()))
    return replace(graph, nodes=tuple(nodes), tensors=tensors, outputs=outputs)
