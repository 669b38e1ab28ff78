"""Exchange and quantize nodes become the last step of the vector operator before them."""

from dataclasses import replace

from mapping.graph.ir import Graph, Node, Operator
from mapping.passes.rewrite import with_attributes
from mapping.passes.setting import Setting

_FUSED = {Operator.EXCHANGE: "exchanged", Operator.QUANTIZE: "quantized"}
_VECTOR = {
    Operator.RMS_NORM,
    Operator.LAYER_NORM,
    Operator.ROPE,
    Operator.ATTENTION,
    Operator.SILU_MULTIPLY,
    Operator.RELU,
}


def fuse_vector_operators(graph: Graph, setting: Setting) -> Graph:
    """Fold each exchange or quantize node into its producer, where that is a vector operator nobody else reads."""
    renamed: dict[str, str] = {}
    nodes: dict[str, Node] = {}
    for node in graph.nodes:
        inputs = tuple(renamed.get(name, name) for name in node.inputs)
        source = nodes.get(inputs[0]) if node.operator in _FUSED else None
        alone = len(graph.consumers.get(node.inputs[0], ())) == 1
        if source is None or source.operator not in _VECTOR or not alone:
            nodes[node.output] = replace(node, inputs=inputs)
            continue
        (_, value), *_ = node.attributes
        nodes[source.output] = with_attributes(source, **{_FUSED[node.operator]: value})
        renamed[node.output] = source.output
    tensors = tuple(tensor for tensor in graph.tensors if tensor.name not in renamed)
    return replace(graph, nodes=tuple(nodes.values()), tensors=tensors)
