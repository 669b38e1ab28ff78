"""The bit-exact loss, which reads the logits of every core."""

import random
from pathlib import Path

import numpy as np
import pytest

from hw.spec.machine_file import load_machine
from mapping.compiler import compile_model
from mapping.frontend.model import load_model
from mapping.losses import exact_loss
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
