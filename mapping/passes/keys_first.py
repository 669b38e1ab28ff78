"""Keys, then values, then queries: keys and values go to memory while the queries are computed."""

from dataclasses import replace

from mapping.graph.ir import Graph, Node, Operator
from mapping.passes.setting import Setting


def keys_first(graph: Graph, setting: Setting) -> Graph:
    """Order what leads from the linear nodes of keys, values and queries to each attention node."""
    ordered: dict[str, list[Node]] = {}
    for node in graph.nodes:
        if node.operator is Operator.ATTENTION:
            queries, keys, values = node.inputs[:3]
            together = [*_chain(graph, keys), *_chain(graph, values), *_chain(graph, queries)]
            ordered |= {member.name: together for member in together}
    nodes: list[Node] = []
    done: set[str] = set()
    for node in graph.nodes:
        if node.name in done:
            continue
        run = ordered.get(node.name, [node])
        nodes += run
        done |= {member.name for member in run}
    return replace(graph, nodes=tuple(nodes))


def _chain(graph: Graph, tensor: str) -> list[Node]:
    """The nodes from the matrix product to a tensor."""
    node = graph.producers[tensor]
    before = [] if node.operator is Operator.LINEAR else _chain(graph, node.inputs[0])
    return [*before, node]
