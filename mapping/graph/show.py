"""A graph for people: as text, as a picture, as DOT."""

from pathlib import Path
from typing import TYPE_CHECKING

from hw.spec.errors import InputError
from mapping.graph.ir import Attribute, Extent, Graph, Node, Operator, Role
from mapping.graph.layers import layer_signature

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {
    Operator.LINEAR: "#9ecae1",
    Operator.EMBEDDING: "#c6dbef",
    Operator.ATTENTION: "#fdae6b",
    Operator.ROPE: "#fdd0a2",
    Operator.RMS_NORM: "#c7e9c0",
    Operator.LAYER_NORM: "#c7e9c0",
    Operator.POSITION: "#fdd0a2",
    Operator.SILU_MULTIPLY: "#dadaeb",
    Operator.RELU: "#dadaeb",
    Operator.ADD: "#d9d9d9",
    Operator.QUANTIZE: "#e5f5e0",
    Operator.SORT: "#e5f5e0",
    Operator.EXCHANGE: "#fee6ce",
    Operator.ARGMAX: "#bcbddc",
}

_EDGE_COLOUR = "#636363"

PICTURE_SUFFIXES = (".png", ".svg", ".pdf")
DOT_SUFFIX = ".dot"


def print_graph(graph: Graph) -> str:
    """Return the graph as text: its tables and caches in numbers, then a line for each node.

    Layers that only repeat the first are folded into one line.
    """
    counts = {role: sum(tensor.role is role for tensor in graph.tensors) for role in Role}
    lines = [
        f"graph {graph.name}: {len(graph.nodes)} nodes, "
        + ", ".join(f"{count} {role.value}" for role, count in counts.items())
    ]
    shown, folded = _fold_layers(graph)
    columns = max((len(node.output) for node in shown), default=0)
    for node in shown:
        operands = ", ".join(_operand_text(graph, name) for name in node.inputs)
        constants = "".join(f", {name}={_constant(value)}" for name, value in node.attributes)
        shape = _shape_text(graph.tensor(node.output).shape)
        lines.append(
            f"  {node.output:<{columns}} {shape} = {node.operator.value}({operands}{constants})"
        )
        if folded and node is _last_of_layers(shown):
            lines.append(f"  {_folded_text(folded)}")
    lines.append(f"outputs {', '.join(graph.outputs)}")
    return "\n".join(lines) + "\n"


def draw_graph(graph: Graph, path: Path) -> None:
    """Write the graph as a picture (``.png``, ``.svg``, ``.pdf``) or as ``.dot`` text.

    A picture shows the data flow of the activations, top to bottom; repeated layers are folded. DOT
    text has every node.

    Raises
    ------
    InputError
        If the suffix of the path is none of these.
    """
    if path.suffix == DOT_SUFFIX:
        path.write_text(graph_to_dot(graph), encoding="utf-8")
    elif path.suffix in PICTURE_SUFFIXES:
        _draw_picture(graph, path)
    else:
        suffixes = ", ".join((*PICTURE_SUFFIXES, DOT_SUFFIX))
        raise InputError(f"{path}: expected a name that ends in one of {suffixes}")


def graph_to_dot(graph: Graph) -> str:
    """Return the graph in the DOT language, weights and caches as boxes of their own."""
    quoted = {tensor.name: f'"{tensor.name}"' for tensor in graph.tensors}
    lines = [f'digraph "{graph.name}" {{', "  node [shape=box, style=filled];"]
    for tensor in graph.tensors:
        label = f"{tensor.name}\\n{_shape_text(tensor.shape)}"
        colour = "#ffffff"
        node = graph.producers.get(tensor.name)
        if node is not None:
            label = f"{node.operator.value}\\n{label}"
            colour = _COLOURS[node.operator]
        lines.append(f'  {quoted[tensor.name]} [label="{label}", fillcolor="{colour}"];')
    for node in graph.nodes:
        lines += [f"  {quoted[name]} -> {quoted[node.output]};" for name in node.inputs]
    return "\n".join([*lines, "}"]) + "\n"


def _shape_text(shape: tuple[Extent, ...]) -> str:
    return "[" + ", ".join(str(extent) for extent in shape) + "]"


def _constant(value: Attribute) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _operand_text(graph: Graph, name: str) -> str:
    tensor = graph.tensor(name)
    return name if tensor.role is Role.ACTIVATION else f"{name} {_shape_text(tensor.shape)}"


def _fold_layers(graph: Graph) -> tuple[list[Node], int]:
    """Return the nodes to show, and how many layers are left out because they repeat layer 0."""
    layers = sorted({node.layer for node in graph.nodes if node.layer is not None})
    first = layer_signature(graph, layers[0]) if layers else []
    if len(layers) < 2 or any(layer_signature(graph, layer) != first for layer in layers[1:]):
        return list(graph.nodes), 0
    return [node for node in graph.nodes if node.layer in (None, layers[0])], len(layers) - 1


def _folded_text(folded: int) -> str:
    return f"... {folded} more {'layer' if folded == 1 else 'layers'} like this"


def _last_of_layers(shown: list[Node]) -> Node | None:
    return next((node for node in reversed(shown) if node.layer is not None), None)


def _draw_picture(graph: Graph, path: Path) -> None:
    # The object interface: no window system, no global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown, folded = _fold_layers(graph)
    places = _places(shown)
    rows = 1 + max(row for _, row in places.values())
    columns = 1 + max(column for column, _ in places.values())
    figure = Figure(figsize=(2.6 * columns + 1.0, 0.75 * rows + 0.6))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    axes.set_xlim(-0.7, columns - 0.3)
    axes.set_ylim(rows - 0.3, -0.9)
    axes.text(-0.6, -0.7, graph.name, fontsize=11, weight="bold")
    last = _last_of_layers(shown)
    for node in shown:
        x, y = places[node.output]
        sources = [name for name in node.inputs if name in places]
        if folded and last is not None and node.layer is None and not sources:
            # What feeds this node is in a folded layer; the first layer's result stands for it.
            if any(name in graph.producers for name in node.inputs):
                sources = [last.output]
        for name in sources:
            _draw_edge(axes, places[name], (x, y))
        shape = _shape_text(graph.tensor(node.output).shape)
        axes.text(
            x,
            y,
            f"{node.operator.value} {shape}\n{node.output}",
            ha="center",
            va="center",
            fontsize=7,
            bbox={
                "boxstyle": "round",
                "facecolor": _COLOURS[node.operator],
                "edgecolor": _EDGE_COLOUR,
            },
        )
        if folded and node is last:
            axes.text(x + 0.5, y, _folded_text(folded), va="center", fontsize=8, style="italic")
    figure.savefig(path, dpi=110)


def _draw_edge(axes: "Axes", start: tuple[int, int], end: tuple[int, int]) -> None:
    """Draw an arrow between two boxes that passes beside the boxes in between."""
    (x0, y0), (x1, y1) = start, end
    if x0 == x1 and y1 - y0 > 1:
        # Leaving low and arriving high keeps one such arrow apart from the next.
        leave, arrive, lane = y0 + 0.12, y1 - 0.12, x0 - 0.42
        corners = [(x0 - 0.28, leave), (lane, leave), (lane, arrive), (x1 - 0.3, arrive)]
    elif x0 > x1:
        corners = [(x0, y0 + 0.25), (x0, y1), (x1 + 0.3, y1)]
    else:
        corners = [(x0, y0 + 0.25), (x1, y1 - 0.28)]
    axes.plot(*zip(*corners[:-1], strict=True), color=_EDGE_COLOUR, linewidth=1, zorder=0)
    axes.annotate(
        "",
        xy=corners[-1],
        xytext=corners[-2],
        arrowprops={"arrowstyle": "->", "color": _EDGE_COLOUR, "shrinkA": 0, "shrinkB": 0},
        zorder=0,
    )


def _places(nodes: list[Node]) -> dict[str, tuple[int, int]]:
    """Return a column and a row for each node: below its operands, never on another."""
    places: dict[str, tuple[int, int]] = {}
    bottom = -1
    for node in nodes:
        rows = [places[name][1] for name in node.inputs if name in places]
        row = 1 + max(rows, default=bottom)
        used = {column for column, other in places.values() if other == row}
        column = next(column for column in range(len(nodes)) if column not in used)
        places[node.output] = (column, row)
        bottom = max(bottom, row)
    return places
