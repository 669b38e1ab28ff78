"""Each pass does what it says, on one core and on several, and the pipeline verifies its graphs."""

import dataclasses
from pathlib import Path

import pytest
from click.testing import CliRunner

from hw.spec.errors import InputError
from hw.spec.machine_file import load_machine
from mapping.cli import commands
from mapping.frontend import load_model
from mapping.graph import Graph, Operator
from mapping.lowering.geometry import Geometry
from mapping.passes import pipeline
from mapping.passes.pipeline import compile_graph, run_passes
from mapping.passes.setting import Setting
from mapping.recipe import Recipe, WeightFormat

RECIPE = Recipe(
    "mixed",
    WeightFormat(4, 32),
    (("*.down_proj", WeightFormat(8, None)), ("layers.1.*", WeightFormat(8, None))),
)


def setting(folder: Path, cores: int = 1, credits: int = 2) -> Setting:
    config = dataclasses.replace(load_model(folder / "grouped_odd_f16").config, layers=2)
    spec = dataclasses.replace(load_machine("small"), cores=cores)
    return Setting(Geometry(config, spec), RECIPE, credits)


def names(graph: Graph, operator: Operator) -> list[str]:
    return [
        node.local(node.name)
        for node in graph.nodes
        if node.operator is operator and node.layer in (None, 0)
    ]


def after(name: str, given: Setting) -> Graph:
    return dict(run_passes(given))[name]


def test_formats_follow_the_recipe_layer_by_layer(fixtures_folder: Path) -> None:
    graph = after("choose_formats", setting(fixtures_folder))
    formats = {
        node.name: node.attribute("format")
        for node in graph.nodes
        if node.operator is Operator.LINEAR
    }
    assert formats["layers.0.query"] == WeightFormat(4, 32)
    assert formats["layers.0.down"] == formats["layers.1.query"] == WeightFormat(8, None)
    assert {
        node.attribute("matrix") for node in graph.nodes if node.name in ("layers.0.up", "logits")
    } == {
        "mlp.up_proj",
        "lm_head",
    }


def test_keys_and_values_come_before_queries(fixtures_folder: Path) -> None:
    before = names(after("quantize_activations", setting(fixtures_folder)), Operator.LINEAR)
    behind = names(after("keys_first", setting(fixtures_folder)), Operator.LINEAR)
    assert before[:3] == ["query", "key", "value"]
    assert behind[:3] == ["key", "value", "query"]
    assert before[3:] == behind[3:]


def test_only_values_keep_a_quantize_node(fixtures_folder: Path) -> None:
    graph = compile_graph(setting(fixtures_folder))
    assert names(graph, Operator.QUANTIZE) == ["value_quantized"]
    by_name = {node.name: dict(node.attributes) for node in graph.nodes}
    assert by_name["layers.0.attention_norm"]["quantized"] == 1
    config = load_model(fixtures_folder / "grouped_odd_f16").config
    assert by_name["layers.0.query_rope"]["quantized"] == config.heads
    assert by_name["layers.0.key_rope"]["quantized"] == config.kv_heads


@pytest.mark.parametrize("cores", [1, 2, 3])
def test_what_matrices_of_several_cores_meet_is_exchanged(
    cores: int, fixtures_folder: Path
) -> None:
    graph = compile_graph(setting(fixtures_folder, cores))
    divided = [node for node in graph.nodes if "core_outputs" in dict(node.attributes)]
    fused = {node.operator for node in graph.nodes if "exchanged" in dict(node.attributes)}
    assert not names(graph, Operator.EXCHANGE)
    if cores == 1:
        assert not fused and not divided
        return
    for node in divided:
        outputs = graph.tensor(node.output).shape[1]
        assert isinstance(outputs, int)
        assert node.attribute("core_outputs") * cores >= outputs
    # All that a matrix meets, and nothing else.
    assert fused == {Operator.RMS_NORM, Operator.ATTENTION, Operator.SILU_MULTIPLY}


def test_tiles_cover_every_matrix(fixtures_folder: Path) -> None:
    given = setting(fixtures_folder)
    for node in compile_graph(given).nodes:
        if node.operator is Operator.LINEAR:
            plan = node.attribute("tiles")
            outputs, inputs = given.geometry.matrix_shape(node.attribute("matrix"))
            assert plan.blocks * given.geometry.spec.matrix_rows >= outputs
            ((part,), (piece,)) = plan.parts, plan.pieces
            assert piece.steps * piece.format.step.span >= inputs
            assert (
                (part.tiles - 1) * part.tile_blocks < part.blocks <= part.tiles * part.tile_blocks
            )


def test_the_command_prints_the_graph_after_every_pass() -> None:
    command = next(command for command in commands() if command.name == "compile")
    arguments = ["pydoc-llama", "--target", "tiny", "--recipe", "w8a8"]
    result = CliRunner().invoke(command, [*arguments, "--print-passes"])
    assert result.exit_code == 0
    shown = [line[6:-1] for line in result.output.splitlines() if line.startswith("after ")]
    assert shown == ["build_graph", *(change.__name__ for change in pipeline.PIPELINE)]
    with pytest.raises(InputError, match="-o"):
        CliRunner().invoke(command, arguments, catch_exceptions=False)


def test_a_pass_that_breaks_the_graph_is_caught(
    monkeypatch: pytest.MonkeyPatch, fixtures_folder: Path
) -> None:
    def lose_the_last_node(graph: Graph, given: Setting) -> Graph:
        return dataclasses.replace(graph, nodes=graph.nodes[:-1])

    monkeypatch.setattr(pipeline, "PIPELINE", (*pipeline.PIPELINE, lose_the_last_node))
    with pytest.raises(ValueError, match="next_token"):
        compile_graph(setting(fixtures_folder))
