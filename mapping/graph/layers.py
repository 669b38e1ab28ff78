"""The decoder layers of a graph, and which of them are alike."""

from collections.abc import Iterator

from mapping.graph.ir import Graph, Node


def layer_nodes(graph: Graph, layer: int | None) -> list[Node]:
    """The nodes of one layer, in order; None: those of no layer."""
    return [node for node in graph.nodes if node.layer == layer]


def layer_signature(graph: Graph, layer: int) -> list[object]:
    """What a layer computes, without saying which layer it is."""
    prefix = f"layers.{layer}."
    return [
        (
            node.operator,
            node.attributes,
            node.name.removeprefix(prefix),
            tuple(
                (name.removeprefix(prefix), graph.tensor(name).shape)
                for name in node.inputs
                if name.startswith(prefix)
            ),
        )
        for node in layer_nodes(graph, layer)
    ]


def equal_layers(graph: Graph) -> Iterator[range]:
    """Runs of consecutive layers that compute the same, as ranges of their numbers."""
    layers = sorted({node.layer for node in graph.nodes if node.layer is not None})
    first = 0
    signatures = [layer_signature(graph, layer) for layer in layers]
    for layer in layers:
        if layer + 1 == len(layers) or signatures[layer + 1] != signatures[first]:
            yield range(first, layer + 1)
            first = layer + 1
