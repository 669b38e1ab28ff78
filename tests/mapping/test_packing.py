"""Memory images are written tensor by tensor: as much of them as wanted, and no more of the computer's memory."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.packing import WANTED, compile_folder, write_folder
from hw.spec.errors import InputError
from hw.spec.machine_file import load_machine
from hw.spec.program import load_program
from mapping.compiler import compile_model, compile_to_file, plan_model
from mapping.frontend.model import load_model
from mapping.packing import compress_model, core_part, pack_matrix
from mapping.recipe import load_recipe


def test_a_file_holds_what_a_program_in_memory_holds(fixtures_folder: Path, tmp_path: Path) -> None:
    model, machine = load_model(fixtures_folder / "grouped_odd_f16"), load_machine("small")
    recipe = load_recipe("w4a8")
    whole = compile_model(model, machine, recipe, 32)
    written = compile_to_file(model, machine, recipe, tmp_path / "p.lpu", 32)
    assert written.instructions == whole.instructions
    assert written.information == whole.information
    np.testing.assert_array_equal(written.memory, whole.memory)
    # Matrices are where the plan says, as they are compressed.
    plan = plan_model(model.config, machine, recipe, 32)
    pieces = compress_model(model, plan)
    words = pack_matrix(core_part(pieces["lm_head"], plan, 0), plan.head_matrix, plan)
    np.testing.assert_array_equal(written.memory[plan.head_base :][: len(words)], words)


def test_a_damaged_weight_leaves_no_file(fixtures_folder: Path, tmp_path: Path) -> None:
    model = load_model(fixtures_folder / "grouped_odd_f16")
    load = model.tensor

    def damaged(name: str) -> np.ndarray:
        if name == "layers.0.mlp.up_proj":
            raise InputError("model.safetensors: up_proj: expected finite numbers, found NaN")
        return load(name)

    model.tensor = damaged  # pyright: ignore[reportAttributeAccessIssue]  (a weight that is damaged)
    machine, recipe = load_machine("small"), load_recipe("w8a8")
    with pytest.raises(InputError, match="found NaN"):
        compile_to_file(model, machine, recipe, tmp_path / "p.lpu", 32)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_billion_weights_take_little_memory(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    size = write_folder("tinyllama-1.1b", folder)
    assert size > 2_000_000_000
    assert json.loads((folder / "config.json").read_text())["num_hidden_layers"] == 22
    facts = compile_folder(folder, "u280", "w4a8-g128", tmp_path / "p.lpu")
    assert facts["peak memory"] < WANTED["peak memory"]
    program = load_program(tmp_path / "p.lpu")
    plan = plan_model(
        load_model(folder).config, load_machine("u280"), load_recipe("w4a8-g128"), 512
    )
    assert program.images[0].shape == (plan.cache, plan.spec.word_bytes)
    for image in program.images:
        assert image[plan.head_base :].any()
