"""The intermediate representation between a model and a program."""

from mapping.graph.build import build_graph
from mapping.graph.ir import POSITIONS, TOKENS, Graph, Node, Operator, Role, Tensor
from mapping.graph.show import draw_graph, print_graph
from mapping.graph.verify import verify_graph

__all__ = [
    "POSITIONS",
    "TOKENS",
    "Graph",
    "Node",
    "Operator",
    "Role",
    "Tensor",
    "build_graph",
    "draw_graph",
    "print_graph",
    "verify_graph",
]
