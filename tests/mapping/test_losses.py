"""The bit-exact loss, which reads the logits of every core."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from hw.spec.machine_file import load_machine
from mapping.attention_mask import AttentionMask, HeadMasks
from mapping.cli import eval_command
from mapping.compiler import compile_model, plan_model
from mapping.frontend.model import MODELS_FOLDER, load_model
from mapping.losses import compressed_loss, exact_loss
from mapping.recipe import load_recipe

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.mark.parametrize("model", ["linear_untied_f32", "pydoc-llama"])
def test_cores_change_no_loss(model: str) -> None:
    """A vocabulary that two cores divide evenly, and one that they do not."""
    folder = FIXTURES / model
    loaded = load_model(str(folder) if folder.is_dir() else model)
    rng = random.Random(1)
    ids = [rng.randrange(loaded.config.vocabulary_size) for _ in range(40)]
    alone, together = (
        exact_loss(
            compile_model(loaded, load_machine(target), load_recipe("w8a8"), 32), ids, 31, 31, None
        )
        for target in ("tiny", "two-core")
    )
    np.testing.assert_array_equal(alone.losses, together.losses)


def test_a_mask_is_of_the_prompt_only_and_the_same_in_all_three() -> None:
    """Bit-exact and compressed agree with a mask as they do without; and the mask is not for nothing."""
    model, machine, dense = load_model("pydoc-llama"), load_machine("small"), load_recipe("w8a8")
    text = (MODELS_FOLDER / "pydoc-llama" / "heldout.txt").read_text(encoding="utf-8")
    ids = list(model.tokenizer.encode(text[:600]))[:97]
    losses: dict[bool, list[np.ndarray]] = {}
    for masked in (False, True):
        mask = HeadMasks((AttentionMask(16, 0, 1),)) if masked else None
        recipe = replace(dense, attention_mask=mask)
        plan = plan_model(model.config, machine, recipe, 97)
        program = compile_model(model, machine, recipe, 97)
        losses[masked] = [
            compressed_loss(model, plan, ids, 96, None, None, prompt=64).losses,
            exact_loss(program, ids, 96, None, None, prompt=64).losses,
        ]
        assert losses[masked][0].shape == losses[masked][1].shape == (33,)
    near = [np.abs(a - b).mean() for a, b in losses.values()]
    apart = [np.abs(a - b).mean() for a, b in zip(losses[False], losses[True], strict=True)]
    assert max(near) < 0.5 * min(apart), (near, apart)


def test_eval_begins_windows_with_a_prompt(tmp_path: Path) -> None:
    recipe, ids = tmp_path / "masked.yaml", tmp_path / "ids.json"
    recipe.write_text(
        "weights: {bits: 8, group: channel}\nattention_mask: {block: 16, first_blocks: 0, band_blocks: 1}\n"
    )
    ids.write_text(str([(7 * i) % 900 for i in range(90)]))
    arguments = ["pydoc-llama", "--token-ids", str(ids), "--context", "40", "--json"]
    found = {}
    for name, more in (("w8a8", []), ("w8a8", ["--prompt", "20"]), (str(recipe), [])):
        done = CliRunner().invoke(
            eval_command, [*arguments, "--recipe", name, *more], catch_exceptions=False
        )
        assert done.exit_code == 0, done.output
        found[name, len(more)] = json.loads(done.stdout)
    dense, prompted, masked = found.values()
    # Windows of 40, 40 and 9 tokens, the last of which is shorter than a prompt.
    assert (dense["tokens"], prompted["tokens"], masked["tokens"]) == (89, 42, 42)
    assert (dense["prompt"], prompted["prompt"], masked["prompt"]) == (1, 20, 20)
    assert prompted["float_nll"] == masked["float_nll"]
    assert prompted["exact_nll"] != masked["exact_nll"]
    assert masked["exact_nll"] == pytest.approx(masked["compressed_nll"], abs=0.1)
