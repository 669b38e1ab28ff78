"""Every weight matrix gets the number format that the recipe names for it."""

from dataclasses import replace

from mapping.formats import BlockFormats, MatrixFormat
from mapping.graph.ir import Graph, Node, Operator
from mapping.passes.rewrite import replace_nodes, with_attributes
from mapping.passes.setting import Setting


def choose_formats(graph: Graph, setting: Setting) -> Graph:
    """Set `matrix` (the weight's name, without its layer) and `format` of linear nodes."""

    def choose(node: Node) -> Node:
        if node.operator is not Operator.LINEAR:
            return node
        # The output head has its own name in recipes, also where its matrix is the embedding.
        tensor = "lm_head" if node.layer is None else node.inputs[1]
        format = setting.recipe.format_of(tensor)
        if not setting.geometry.spec.sparse:
            format = _filled(format)
        return with_attributes(node, matrix=node.local(tensor), format=format)

    return replace_nodes(graph, choose)


def _filled(format: MatrixFormat) -> MatrixFormat:
    """The same numbers, with pruned weights stored as zeros: the machine has no sparse multiplexers."""
    if isinstance(format, BlockFormats):
        parts = tuple((share, replace(part, filled=part.kept > 0)) for share, part in format.parts)
        return replace(format, parts=parts)
    return replace(format, filled=format.kept > 0)
