"""The compiler's passes, in order; the graph is verified after each."""

from collections.abc import Callable, Iterator

from mapping.graph import Graph, build_graph, verify_graph
from mapping.passes.choose_formats import choose_formats
from mapping.passes.divide_over_cores import divide_over_cores
from mapping.passes.fuse_vector_operators import fuse_vector_operators
from mapping.passes.keys_first import keys_first
from mapping.passes.order_inputs import order_inputs
from mapping.passes.quantize_activations import quantize_activations
from mapping.passes.setting import Setting
from mapping.passes.tile_matrices import tile_matrices

Pass = Callable[[Graph, Setting], Graph]

PIPELINE: tuple[Pass, ...] = (
    choose_formats,
    divide_over_cores,
    quantize_activations,
    keys_first,
    fuse_vector_operators,
    order_inputs,
    tile_matrices,
)


def run_passes(setting: Setting) -> Iterator[tuple[str, Graph]]:
    """The graph as the model is, then after each pass, with what was done last."""
    graph = build_graph(setting.geometry.config)
    yield "build_graph", graph
    for change in PIPELINE:
        graph = change(graph, setting)
        verify_graph(graph)
        yield change.__name__, graph


def compile_graph(setting: Setting) -> Graph:
    """The graph after all passes."""
    *_, (_, graph) = run_passes(setting)
    return graph
