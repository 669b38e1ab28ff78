"""Weight matrices are cut into tiles that fit the rings of the matrix engine."""

from mapping.graph.ir import Graph, Node, Operator
from mapping.lowering.tiles import MatrixPlan, plan_matrix
from mapping.passes.rewrite import replace_nodes, with_attributes
from mapping.passes.setting import Setting
from mapping.recipe import MatrixFormat


def tile_matrices(graph: Graph, setting: Setting) -> Graph:
    """Set `tiles`, the plan of its matrix, on every linear node.

    Raises
    ------
    InputError
        If the target is not built for a format, or its rings are too small.
    """
    geometry = setting.geometry
    tiled: dict[tuple[str, MatrixFormat], MatrixPlan] = {}

    def tile(node: Node) -> Node:
        if node.operator is not Operator.LINEAR:
            return node
        name, format = node.attribute("matrix"), node.attribute("format")
        if (name, format) not in tiled:
            shape = geometry.matrix_shape(name)
            tiled[name, format] = plan_matrix(geometry.spec, name, *shape, format, setting.credits)
        return with_attributes(node, tiles=tiled[name, format])

    return replace_nodes(graph, tile)
