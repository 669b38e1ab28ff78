"""Every core has a part of each vector, some heads, and some outputs of each matrix; what matrices meet is exchanged."""

from mapping.graph.ir import Graph, Node, Operator, Role, Tensor
from mapping.passes.rewrite import insert_behind, replace_nodes, with_attributes
from mapping.passes.setting import Setting

_MULTIPLIED = (
    Operator.RMS_NORM,
    Operator.LAYER_NORM,
    Operator.ATTENTION,
    Operator.SILU_MULTIPLY,
    Operator.RELU,
)
"""What matrices meet, of which every core has some outputs: all of its inputs, of all cores."""


def divide_over_cores(graph: Graph, setting: Setting) -> Graph:
    """Say what one core computes of each node, and put an exchange behind what every core needs whole: inputs of matrices.

    Shapes stay those of all cores together. With one core the graph stays as it is.
    """
    geometry = setting.geometry
    if geometry.cores == 1:
        return graph

    def divide(node: Node) -> Node:
        if node.operator is Operator.LINEAR:
            outputs, _ = geometry.matrix_shape(node.attribute("matrix"))
            return with_attributes(node, core_outputs=outputs)
        if node.operator is Operator.ATTENTION:
            return with_attributes(node, core_heads=geometry.heads)
        return node

    inserted = []
    for node in graph.nodes:
        if node.operator in _MULTIPLIED:
            name = f"{node.output}_exchanged"
            exchange = Node(
                name, Operator.EXCHANGE, (node.output,), (("cores", geometry.cores),), node.layer
            )
            shape = graph.tensor(node.output).shape
            inserted.append((node.output, exchange, Tensor(name, shape, Role.ACTIVATION)))
    return insert_behind(replace_nodes(graph, divide), inserted)
