"""The graph of a model: complete, legal, readable; illegal graphs are caught."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from hw.spec.errors import InputError
from mapping.frontend import ModelConfig, list_models, load_model
from mapping.frontend.config import FLIGHT_ARCHITECTURES
from mapping.frontend.weights import tensor_shapes
from mapping.graph import (
    Graph,
    Node,
    Operator,
    Role,
    Tensor,
    build_graph,
    draw_graph,
    print_graph,
    verify_graph,
)

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def config(fixtures_folder: Path) -> ModelConfig:
    return load_model(fixtures_folder / "grouped_odd_f16").config


@pytest.fixture
def graph(config: ModelConfig) -> Graph:
    return build_graph(dataclasses.replace(config, layers=2))


@pytest.mark.parametrize(
    "name",
    [known.name for known in list_models() if known.config.architecture in FLIGHT_ARCHITECTURES],
)
def test_every_weight_is_used_and_counted(name: str) -> None:
    config = load_model(name).config
    graph = build_graph(config)
    weights = {tensor.name: tensor.shape for tensor in graph.tensors if tensor.role is Role.WEIGHT}
    assert weights == tensor_shapes(config)
    assert weights.keys() <= graph.consumers.keys()
    # Each layer: two norms, seven products, two rotations, attention, gating and two additions; of OPT two norms,
    # six products, attention, ReLU and two additions, and before all layers one addition of positions.
    layer, others = (12, 5) if config.opt else (15, 4)
    assert len(graph.nodes) == layer * config.layers + others
    assert sum(tensor.role is Role.CACHE for tensor in graph.tensors) == 2 * config.layers


def test_operands_of_one_layer(graph: Graph) -> None:
    attention = graph.producers["layers.1.attention"]
    assert attention.operator is Operator.ATTENTION
    assert attention.inputs == (
        "layers.1.query_rope",
        "layers.1.key_rope",
        "layers.1.value",
        "layers.1.key_cache",
        "layers.1.value_cache",
    )
    assert attention.attribute("scale") == pytest.approx(20**-0.5)
    assert graph.tensor("layers.1.attention").shape == ("tokens", 120)
    assert graph.tensor("layers.1.key_cache").shape == (2, "positions", 20)
    readers = [node.name for node in graph.consumers["layers.0.feed_forward_add"]]
    assert readers == ["layers.1.attention_norm", "layers.1.attention_add"]
    assert graph.producers["logits"].inputs == ("final_norm", "lm_head")


def test_tied_logits_read_the_embedding(config: ModelConfig) -> None:
    graph = build_graph(dataclasses.replace(config, tie_word_embeddings=True))
    assert graph.producers["logits"].inputs == ("final_norm", "embed_tokens")
    assert [node.name for node in graph.consumers["embed_tokens"]] == ["embedding", "logits"]


def change_node(graph: Graph, name: str, **changes: object) -> Graph:
    nodes = tuple(
        dataclasses.replace(node, **changes) if node.name == name else node for node in graph.nodes
    )
    return dataclasses.replace(graph, nodes=nodes)


def change_tensor(graph: Graph, name: str, *shape: int | str) -> Graph:
    tensors = tuple(
        dataclasses.replace(tensor, shape=shape) if tensor.name == name else tensor
        for tensor in graph.tensors
    )
    return dataclasses.replace(graph, tensors=tensors)


def swap_first_nodes(graph: Graph) -> Graph:
    first, second, *others = graph.nodes
    return dataclasses.replace(graph, nodes=(second, first, *others))


ILLEGAL: dict[str, tuple[Callable[[Graph], Graph], str]] = {
    "use before definition": (
        swap_first_nodes,
        "layers.0.attention_norm: reads embedding before it is computed",
    ),
    "defined twice": (
        lambda graph: dataclasses.replace(graph, nodes=(*graph.nodes, graph.nodes[-1])),
        "next_token: computes a tensor that already has a value",
    ),
    "declared twice": (
        lambda graph: dataclasses.replace(graph, tensors=(*graph.tensors, graph.tensors[0])),
        "token_ids: declared 2 times",
    ),
    "undeclared operand": (
        lambda graph: change_node(graph, "layers.0.up", inputs=("final_norm", "nothing")),
        "layers.0.up: reads",
    ),
    "undeclared result": (
        lambda graph: dataclasses.replace(
            graph, nodes=(*graph.nodes, Node("extra", Operator.ARGMAX, ("logits",)))
        ),
        "extra: computes a tensor that is not declared",
    ),
    "writes a weight": (
        lambda graph: dataclasses.replace(
            graph, nodes=(*graph.nodes, Node("norm", Operator.ARGMAX, ("logits",)))
        ),
        "norm: computes a tensor that already has a value",
    ),
    "never computed": (
        lambda graph: dataclasses.replace(graph, nodes=graph.nodes[:-1]),
        "next_token: declared as an activation",
    ),
    "unknown output": (
        lambda graph: dataclasses.replace(graph, outputs=("nothing",)),
        "nothing: an output that no node computes",
    ),
    "operand count": (
        lambda graph: change_node(graph, "layers.0.gate", inputs=("layers.0.feed_forward_norm",)),
        "layers.0.gate: linear takes 2 operands, not 1",
    ),
    "inner extents": (
        lambda graph: change_tensor(graph, "layers.0.self_attn.k_proj", 40, 71),
        "layers.0.key: linear .*needs x",
    ),
    "result extent": (
        lambda graph: change_tensor(graph, "layers.0.mlp.up_proj", 101, 72),
        "layers.0.up: its shape must be",
    ),
    "norm gain": (lambda graph: change_tensor(graph, "norm", 71), "final_norm: .*needs x"),
    "added shapes": (
        lambda graph: change_node(
            graph, "layers.0.silu_multiply", inputs=("layers.0.gate", "layers.0.query")
        ),
        "layers.0.silu_multiply: .*one shape",
    ),
    "rotated width": (
        lambda graph: change_node(graph, "layers.0.query_rope", attributes=(("heads", 5),)),
        "layers.0.query_rope: rope",
    ),
    "no epsilon": (
        lambda graph: change_node(graph, "final_norm", attributes=()),
        "final_norm: .*epsilon",
    ),
    "cache heads": (
        lambda graph: change_node(
            graph,
            "layers.1.attention",
            attributes=(("heads", 6), ("kv_heads", 3), ("scale", 0.1)),
        ),
        "layers.1.attention: .*kv_heads",
    ),
    "one cache": (
        lambda graph: change_tensor(graph, "layers.1.value_cache", 2, "positions", 10),
        "layers.1.attention: .*two caches",
    ),
    "swapped keys": (
        lambda graph: change_tensor(graph, "layers.1.self_attn.v_proj", 120, 72),
        "layers.1.value: its shape must be",
    ),
    "zero extent": (
        lambda graph: change_tensor(graph, "norm", 0),
        "norm: extents must be positive",
    ),
}


@pytest.mark.parametrize("kind", ILLEGAL)
def test_illegal_graphs_are_caught(kind: str, graph: Graph) -> None:
    spoil, message = ILLEGAL[kind]
    verify_graph(graph)
    with pytest.raises(ValueError, match=f"^{message}"):
        verify_graph(spoil(graph))


def test_graphs_are_values(config: ModelConfig) -> None:
    assert build_graph(config) == build_graph(config)
    with pytest.raises(dataclasses.FrozenInstanceError):
        build_graph(config).nodes[0].name = "other"  # type: ignore[misc] # must fail


def test_text_folds_equal_layers(graph: Graph) -> None:
    text = print_graph(graph)
    assert "layers.0.gate" in text
    assert "layers.1.gate " not in text
    assert "... 1 more layer like this" in text
    changed = change_node(graph, "layers.1.attention_norm", attributes=(("epsilon", 0.5),))
    assert "layers.1.gate " in print_graph(changed)
    assert "more layer" not in print_graph(changed)


def test_text_of_a_graph_without_layers() -> None:
    tensors = (
        Tensor("logits", ("tokens", 7), Role.INPUT),
        Tensor("next_token", ("tokens",), Role.ACTIVATION),
    )
    graph = Graph(
        "tiny", tensors, (Node("next_token", Operator.ARGMAX, ("logits",)),), ("next_token",)
    )
    verify_graph(graph)
    assert "next_token [tokens] = argmax(logits [tokens, 7])" in print_graph(graph)


def test_pictures(graph: Graph, tmp_path: Path) -> None:
    draw_graph(graph, tmp_path / "graph.png")
    assert (tmp_path / "graph.png").read_bytes().startswith(PNG_MAGIC)
    draw_graph(graph, tmp_path / "graph.svg")
    assert "</svg>" in (tmp_path / "graph.svg").read_text(encoding="utf-8")
    draw_graph(graph, tmp_path / "graph.dot")
    dot = (tmp_path / "graph.dot").read_text(encoding="utf-8")
    assert dot.count(" -> ") == sum(len(node.inputs) for node in graph.nodes)
    assert all(f'"{tensor.name}" [label=' in dot for tensor in graph.tensors)
    with pytest.raises(InputError, match="expected a name that ends in one of"):
        draw_graph(graph, tmp_path / "graph.txt")
