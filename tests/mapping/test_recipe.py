"""Recipes: which format each matrix gets, in whose order, and that the bundled ones are what they say."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from hw.spec.errors import InputError
from mapping.attention_mask import AttentionMask, HeadMasks
from mapping.recipe import (
    RECIPES,
    BlockFormats,
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
    assert four.format_of("layers.3.self_attn.q_proj") == WeightFormat(4, 32)
    assert load_recipe("w3a8").format_of("layers.0.mlp.up_proj") == WeightFormat(3, 32)
    assert load_recipe("mxfp4").format_of("layers.0.mlp.up_proj") == WeightFormat(4, 32, "mxfp4")
    assert load_recipe("w4a8-8of16").weights == WeightFormat(4, 32, "integer", 8, True)
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


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8])
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


@pytest.mark.parametrize(
    "content, format",
    [
        ({"kind": "fp4", "group": 64}, WeightFormat(4, 64, "fp4")),
        ({"kind": "mxfp4", "group": 32}, WeightFormat(4, 32, "mxfp4")),
        ({"bits": 2, "group": 16, "kept": 8}, WeightFormat(2, 16, kept=8, bitmap=True)),
        (
            {"bits": 3, "group": 16, "kept": 8, "index": "index"},
            WeightFormat(3, 16, kept=8, bitmap=False),
        ),
        (
            {"bits": 4, "group": "channel", "kept": 8, "index": "bitmap"},
            WeightFormat(4, None, kept=8, bitmap=True),
        ),
        ({"bits": 5, "group": 16, "kept": 8}, WeightFormat(5, 16, kept=8)),
        ({"bits": 4, "group": 32, "kept": 4, "index": "auto"}, WeightFormat(4, 32, kept=4)),
        ({"kind": "fp4", "group": 64, "kept": 2}, WeightFormat(4, 64, "fp4", 2)),
    ],
)
def test_formats(content: dict[str, object], format: WeightFormat) -> None:
    assert recipe_from_dict({"weights": content}, "mine.yaml").weights == format


def test_auto_takes_the_smaller_of_index_and_bitmap() -> None:
    for bits, group in ((2, 128), (3, 128), (4, 128)):
        index, bitmap = (WeightFormat(bits, group, "integer", 8, way) for way in (False, True))
        assert bitmap.bits_per_weight(4096) < index.bits_per_weight(4096)


@pytest.mark.parametrize(
    "format, bits",
    [
        (WeightFormat(4, 128), 4 + 16 / 128),
        (WeightFormat(3, 64), 3 + 16 / 64),
        (WeightFormat(5, None), 5 + 16 / 4096),
        # A bit of the bitmap and half a weight of each; three bits of weights are rounded up to a word.
        (WeightFormat(4, 128, "integer", 8, True), 1 + 2 + 16 / 128),
        (WeightFormat(3, 128, "integer", 8, True), 1 + 2 + 16 / 128),
        (WeightFormat(2, 128, "integer", 8, True), 1 + 1 + 16 / 128),
        (WeightFormat(4, 128, "integer", 8, False), 4 + 16 / 128),
        (WeightFormat(4, 128, "integer", 2, False), 1 + 16 / 128),
        (WeightFormat(8, 128, "integer", 4, False), 3 + 16 / 128),
    ],
)
def test_bits_of_a_weight_count_indices_and_scales(format: WeightFormat, bits: float) -> None:
    assert format.bits_per_weight(4096) == pytest.approx(bits)


def test_blocks() -> None:
    blocks = [
        {"share": 0.25, "bits": 8, "group": 32},
        {"share": 0.75, "bits": 4, "group": 32, "kept": 8},
    ]
    recipe = recipe_from_dict(
        {
            "weights": {"blocks": blocks},
            "overrides": [{"tensor": "a", "blocks": blocks, "along": "inputs"}],
        },
        "mine.yaml",
    )
    parts = ((0.25, WeightFormat(8, 32)), (0.75, WeightFormat(4, 32, "integer", 8, True)))
    assert recipe.weights == BlockFormats("outputs", parts)
    assert recipe.format_of("a") == BlockFormats("inputs", parts)
    assert recipe.weights.bits_per_weight(64) == pytest.approx(0.25 * 8.5 + 0.75 * 3.5)


PLAIN = {"share": 0.5, "bits": 4, "group": 32}


@pytest.mark.parametrize(
    "content, message",
    [
        ({"group": 32}, "expected bits (or kind) and group"),
        ({"bits": 4}, "expected bits (or kind) and group"),
        (7, "expected bits (or kind) and group, found 7"),
        ({"bits": True, "group": 32}, "bits: expected 2, 3, 4, 5 or 8, found"),
        ({"kind": "fp8", "group": 32}, "kind: expected integer, fp4, mxfp4, found 'fp8'"),
        ({"kind": "fp4", "bits": 5, "group": 32}, "bits: expected 4, found 5"),
        ({"kind": "mxfp4", "group": 64}, "group: expected 32 for mxfp4, found 64"),
        ({"kind": "mxfp4", "group": "channel"}, "group: expected 32 for mxfp4"),
        ({"bits": 4, "group": 32, "kept": 3}, "kept: expected 8, 4 or 2 (of 16), found 3"),
        ({"bits": 4, "group": 32, "kept": 16}, "kept: expected 8, 4 or 2 (of 16), found 16"),
        ({"bits": 4, "group": 32, "kept": 0}, "kept: expected 8, 4 or 2 (of 16), found 0"),
        ({"bits": 4, "group": 32, "index": "auto"}, "index: expected with kept only"),
        (
            {"bits": 4, "group": 32, "kept": 8, "index": "csr"},
            "index: expected 'index', 'bitmap' or 'auto', found 'csr'",
        ),
        (
            {"bits": 4, "group": 32, "kept": 4, "index": "bitmap"},
            "index: bitmaps need kept: 8 and weights of at most 4 bits, found kept: 4, bits: 4",
        ),
        (
            {"bits": 8, "group": 32, "kept": 8, "index": "bitmap"},
            "index: bitmaps need kept: 8 and weights of at most 4 bits, found kept: 8, bits: 8",
        ),
        ({"bits": 4, "group": 8, "kept": 8}, "group: expected 'channel' or a multiple of 16"),
        ({"bits": 4, "group": 32, "kept": 2}, "group: expected 'channel' or a multiple of 64"),
        ({"blocks": [PLAIN]}, "blocks: expected a list of two or more formats"),
        ({"blocks": 5}, "blocks: expected a list of two or more formats"),
        ({"blocks": [PLAIN, PLAIN], "bits": 4}, "expected blocks and along, found 'bits'"),
        ({"blocks": [PLAIN, PLAIN], "along": "k"}, "along: expected 'outputs' or 'inputs'"),
        ({"blocks": [PLAIN, 4]}, "blocks[1]: expected a mapping, found 4"),
        (
            {"blocks": [PLAIN, PLAIN | {"share": float("nan")}]},
            "blocks[1]: share: expected a number between 0 and 1",
        ),
        (
            {"blocks": [PLAIN, PLAIN | {"share": 0.4}]},
            "blocks: expected shares that sum to 1, found 0.9",
        ),
        ({"blocks": [PLAIN, PLAIN | {"bits": 1}]}, "blocks[1]: bits: expected 2, 3, 4, 5 or 8"),
    ],
)
def test_formats_that_cannot_be(content: object, message: str) -> None:
    with pytest.raises(InputError) as raised:
        recipe_from_dict({"weights": content}, "mine.yaml")
    line = str(raised.value)
    assert line.startswith("mine.yaml: weights: ") and message in line and "\n" not in line
    with pytest.raises(InputError, match=r"^mine.yaml: overrides\[0\]: "):
        rest = content if isinstance(content, dict) else {}
        recipe_from_dict(BASE | {"overrides": [{"tensor": "x"} | rest]}, "mine.yaml")


MIXED = {"average_bits": 3.5, "candidates": [{"bits": 3, "group": 64}, {"bits": 4, "group": 64}]}


@pytest.mark.parametrize(
    "content, message",
    [
        (MIXED | BASE, "weights: expected candidates instead, with average_bits"),
        (MIXED | {"average_bits": 0}, "average_bits: expected a number of at most 16, found 0"),
        (MIXED | {"average_bits": "low"}, "average_bits: expected a number of at most 16"),
        (MIXED | {"candidates": [{"bits": 3, "group": 64}]}, "candidates: expected a list of two"),
        ({"average_bits": 3}, "candidates: expected a list of two or more formats, found None"),
        (MIXED | {"candidates": [{}, {}]}, "candidates[0]: expected bits (or kind) and group"),
        (MIXED | {"granularity": "row"}, "granularity: expected 'kind' or 'matrix', found 'row'"),
        (BASE | {"granularity": "kind"}, "granularity: expected with average_bits only"),
        (
            BASE | {"candidates": MIXED["candidates"]},
            "candidates: expected with average_bits only",
        ),
        (BASE | {"pruning": "wanda"}, "pruning: expected 'magnitude' or 'activations'"),
    ],
)
def test_means_that_cannot_be(content: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as raised:
        recipe_from_dict(content, "mine.yaml")
    assert str(raised.value).startswith("mine.yaml: ") and message in str(raised.value)


def test_a_recipe_of_a_mean() -> None:
    recipe = recipe_from_dict(MIXED | {"granularity": "matrix", "pruning": "activations"}, "mine")
    assert recipe.candidates == (WeightFormat(3, 64), WeightFormat(4, 64))
    found = recipe.average_bits, recipe.granularity, recipe.pruning
    assert found == (3.5, "matrix", "activations")


MASK = {"block": 64, "first_blocks": 1, "band_blocks": 2}


def test_an_attention_mask() -> None:
    assert recipe_from_dict(BASE, "mine.yaml").attention_mask is None
    recipe = recipe_from_dict(BASE | {"attention_mask": MASK}, "mine.yaml")
    assert recipe.attention_mask == HeadMasks((AttentionMask(64, 1, 2),))
    assert recipe.attention_mask == load_recipe("w4a8-masked").attention_mask
    several = recipe_from_dict(BASE | {"attention_mask": {**MASK, "band_blocks": [2, 5]}}, "mine")
    assert several.attention_mask == HeadMasks((AttentionMask(64, 1, 2), AttentionMask(64, 1, 5)))


@pytest.mark.parametrize(
    "mask, message",
    [
        (64, "attention_mask: expected block, first_blocks, band_blocks, found 64"),
        ({**MASK, "width": 3}, "attention_mask: 'width': unknown field"),
        ({"block": 64, "first_blocks": 1}, "band_blocks: expected a whole number .* found None"),
        ({**MASK, "block": 48}, "block: expected a power of two, found 48"),
        ({**MASK, "block": 1}, "block: expected a whole number from 2 to 32768, found 1"),
        ({**MASK, "block": True}, "block: expected a whole number .* found True"),
        ({**MASK, "first_blocks": -1}, "first_blocks: expected a whole number from 0 .* found -1"),
        ({**MASK, "band_blocks": 0}, "band_blocks: expected a whole number from 1 .* found 0"),
        ({**MASK, "band_blocks": [2, 0]}, "band_blocks: expected a whole number from 1 .* found 0"),
        ({**MASK, "band_blocks": []}, "band_blocks: expected 1 to 1024 numbers, found 0"),
        ({**MASK, "block": [64]}, "block: expected a whole number .* found .64."),
        (
            {**MASK, "first_blocks": [1, 2, 3], "band_blocks": [1, 2]},
            "band_blocks: expected as many numbers as first_blocks, 3, found 2",
        ),
        ({**MASK, "band_blocks": 2.5}, "band_blocks: expected a whole number .* found 2.5"),
    ],
)
def test_refuses_masks_that_cannot_be(mask: object, message: str) -> None:
    with pytest.raises(
        InputError,
        match=rf"^mine\.yaml: attention_mask: .*{message.removeprefix('attention_mask: ')}",
    ):
        recipe_from_dict(BASE | {"attention_mask": mask}, "mine.yaml")


def test_density_of_a_mask_is_the_share_of_pairs_that_are_seen() -> None:
    each = (AttentionMask(4, 1, 2), AttentionMask(4, 0, 1), AttentionMask(4, 3, 1))
    for masks in (HeadMasks(each[:1]), HeadMasks(each)):
        for tokens in (1, 2, 9, 16, 41):
            seen = masks.visible(len(masks.masks), np.arange(tokens), np.arange(tokens))
            share = seen.mean(axis=0).sum() / np.tri(tokens).sum()
            assert masks.density(tokens) == pytest.approx(share)
