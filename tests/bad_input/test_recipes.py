"""Recipes that cannot be, and models that do not fit."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from mapping.recipe import RECIPES
from tests.bad_input.arguments import MODEL, Refuse, compile_with, write_target


def write_recipe(path: Path, **changes: object) -> Path:
    content = yaml.safe_load((RECIPES / "w4a8.yaml").read_text()) | changes
    path.write_text(
        yaml.safe_dump({key: value for key, value in content.items() if value is not ...})
    )
    return path


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"overrides": [{"tensor": "layers.9.*", "bits": 8, "group": 32}]},
            "'layers.9.*' names no weight matrix",
        ),
        (
            {"overrides": [{"tensor": "embed_tokens", "bits": 8, "group": 32}]},
            "'embed_tokens' names no weight matrix",
        ),
        ({"weigths": {"bits": 4, "group": 32}}, "weigths"),
        ({"weights": {"bits": 4, "group": 32, "zero": 1}}, "weights: 'zero': unknown field"),
        ({"weights": ...}, "weights: expected bits (or kind) and group"),
        (
            {"weights": {"bits": 6, "group": 32}},
            "weights: bits: expected 2, 3, 4, 5 or 8, found 6",
        ),
        ({"weights": {"bits": 4.0, "group": 32}}, "or 8, found 4.0"),
        ({"weights": {"bits": 4, "group": 12}}, "weights: group: expected"),
        ({"weights": {"bits": 4, "group": "row"}}, "weights: group: expected"),
        ({"weights": {"bits": 4, "group": 0}}, "weights: group: expected"),
        ({"activations": {"bits": 4}}, "activations: expected bits: 8"),
        ({"kv_cache": {"bits": 4}}, "kv_cache: expected bits: 8"),
        ({"overrides": {"tensor": "lm_head"}}, "overrides: expected a list"),
        ({"overrides": [{"bits": 8, "group": 32}]}, "overrides[0]: expected tensor"),
        (
            {"overrides": [{"tensor": "lm_head", "bits": 7, "group": 32}]},
            "overrides[0]: bits: expected 2, 3, 4, 5 or 8",
        ),
        (
            {"overrides": [{"tensor": "lm_head", "bits": 8, "group": 32, "x": 1}]},
            "overrides[0]: 'x': unknown field",
        ),
        ({"name": 5}, "name: expected text"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_recipe_that_cannot_be(
    refuse: Refuse, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = write_recipe(tmp_path / "mine.yaml", **changes)
    line = refuse(*compile_with(tmp_path, recipe=path), names=(message,))
    assert str(path) in line or "recipe w4a8" in line


# Models that do not fit.


@pytest.mark.parametrize(
    "field, value",
    [
        ("memory.words", 1024),
        ("stream_words", 64),
        ("input_words", 64),
        ("vector_rows", 64),
        ("result_rows", 64),
        ("activation_rows", 64),
        ("store_rows", 2),
        ("scalars", 16),
        ("matrix_scales", 8),
        ("instructions", 16),
    ],
)
def test_a_model_that_does_not_fit_says_where_and_by_how_much(
    refuse: Refuse, tmp_path: Path, field: str, value: int
) -> None:
    path = write_target(tmp_path / "mine.yaml", field, value)
    line = refuse(*compile_with(tmp_path, target=path), names=("target", field.split(".")[-1]))
    figures = [
        int(word) for word in line.replace(",", " ").replace(")", " ").split() if word.isdigit()
    ]
    assert any(figure > value for figure in figures), line


def test_scales_that_do_not_fit(refuse: Refuse, tmp_path: Path) -> None:
    target = write_target(tmp_path / "mine.yaml", "scale_words", 2)
    refuse(*compile_with(tmp_path, target=target, recipe="w4a8"), names=("scale_words",))


@pytest.mark.parametrize("context", [-1, 0, 1, 257, 1 << 40])
def test_a_context_that_the_model_cannot_have(refuse: Refuse, tmp_path: Path, context: int) -> None:
    refuse(*compile_with(tmp_path, context=context), names=("context",))


def test_an_estimate_of_what_does_not_fit(refuse: Refuse) -> None:
    line = refuse("estimate", "llama-2-7b", "--target", "small", "--recipe", "w4a8", "--tokens", 2)
    assert "small" in line and "too few" in line or "needs" in line
    refuse(
        "estimate",
        MODEL,
        "--target",
        "tiny",
        "--recipe",
        "w8a8",
        "--prompt-length",
        0,
        names=("prompt length",),
    )
    refuse(
        "estimate",
        MODEL,
        "--target",
        "tiny",
        "--recipe",
        "w8a8",
        "--tokens",
        9999,
        names=("context",),
    )
