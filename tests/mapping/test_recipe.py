"""Recipes: which format each matrix gets, in whose order, and that the bundled ones are what they say."""

from pathlib import Path

import pytest
import yaml

from hw.spec.errors import InputError
from mapping.recipe import (
    RECIPES,
    Recipe,
    WeightFormat,
    list_recipes,
    load_recipe,
    recipe_from_dict,
)

BASE = {"weights": {"bits": 4, "group": 64}}


def test_the_bundled_recipes() -> None:
    assert {"w8a8", "w4a8"} <= set(list_recipes())
    for name in list_recipes():
        recipe = load_recipe(name)
        assert recipe.name == name
        assert yaml.safe_load((RECIPES / f"{name}.yaml").read_text())["description"]
    eight, four = load_recipe("w8a8"), load_recipe("w4a8")
    assert (
        eight.format_of("layers.0.mlp.up_proj")
        == eight.format_of("lm_head")
        == WeightFormat(8, None)
    )
    assert four.format_of("layers.3.self_attn.q_proj").bits == 4
    assert (four.format_of("layers.3.self_attn.q_proj").group or 999) <= 64
    assert four.format_of("lm_head") == WeightFormat(8, None)


def test_later_overrides_win_and_patterns_are_those_of_a_shell() -> None:
    content = BASE | {
        "overrides": [
            {"tensor": "layers.*.mlp.*", "bits": 8, "group": "channel"},
            {"tensor": "layers.1?.mlp.down_proj", "bits": 8, "group": 128},
            {"tensor": "layers.[0-2].mlp.up_proj", "bits": 4, "group": 16},
        ]
    }
    recipe = recipe_from_dict(content, "mine.yaml")
    assert recipe.name == "mine"
    assert recipe.format_of("layers.0.self_attn.q_proj") == WeightFormat(4, 64)
    assert recipe.format_of("layers.7.mlp.gate_proj") == WeightFormat(8, None)
    assert recipe.format_of("layers.12.mlp.down_proj") == WeightFormat(8, 128)
    assert recipe.format_of("layers.2.mlp.down_proj") == WeightFormat(8, None)
    assert recipe.format_of("layers.2.mlp.up_proj") == WeightFormat(4, 16)
    # Not as a regular expression, and with the case as it is.
    assert recipe.format_of("layersXmlpX") == WeightFormat(4, 64)
    assert recipe.format_of("LAYERS.2.MLP.UP_PROJ") == WeightFormat(4, 64)


def test_an_override_must_name_a_matrix() -> None:
    recipe = Recipe(
        "r",
        WeightFormat(8, None),
        (("lm_head", WeightFormat(4, 32)), ("layers.?.q", WeightFormat(4, 32))),
    )
    recipe.check_names(["lm_head", "layers.1.q"], "here")
    with pytest.raises(
        InputError, match=r"^here: overrides: 'layers\.\?\.q' names no weight matrix"
    ):
        recipe.check_names(["lm_head", "layers.10.q"], "here")


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("group", ["channel", 8, 4096])
def test_limits_of_a_group(bits: int, group: int | str) -> None:
    recipe = recipe_from_dict({"weights": {"bits": bits, "group": group}}, "mine.yaml")
    assert recipe.weights == WeightFormat(bits, None if group == "channel" else int(group))


def test_a_file_is_found_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        yaml.safe_dump(BASE | {"name": "other", "description": "\N{SNOWMAN}"}, allow_unicode=True),
        encoding="utf-8",
    )
    assert load_recipe(str(path)).name == "other"
    with pytest.raises(InputError, match="bundled: .*w8a8"):
        load_recipe("mine")
