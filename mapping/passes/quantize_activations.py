"""What enters the matrix engine becomes INT8: one scale a token, or one a token and head around attention."""

from mapping.graph.ir import Graph, Node, Operator, Role, Tensor
from mapping.passes.rewrite import insert_behind
from mapping.passes.setting import Setting


def quantize_activations(graph: Graph, setting: Setting) -> Graph:
    """Put a quantize node behind every activation that a linear or an attention node multiplies.

    Softmax's probabilities are quantized within attention.
    """
    heads: dict[str, int] = {}
    for node in graph.nodes:
        if node.operator is Operator.LINEAR:
            heads[node.inputs[0]] = 1
        elif node.operator is Operator.ATTENTION:
            attributes = dict(node.attributes)
            for name, count in zip(node.inputs[:3], ("heads", "kv_heads", "kv_heads"), strict=True):
                heads[name] = int(attributes[count])
    inserted = []
    for source, count in heads.items():
        name = f"{source}_quantized"
        node = Node(
            name, Operator.QUANTIZE, (source,), (("heads", count),), graph.producers[source].layer
        )
        inserted.append((source, node, Tensor(name, graph.tensor(source).shape, Role.ACTIVATION)))
    return insert_behind(graph, inserted)
