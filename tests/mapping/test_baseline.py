"""The trigram model's loss that stands beside a bundled model's, on its held-out text and on no other."""

import json
import shutil
from pathlib import Path

from mapping.baseline import trigram_loss
from mapping.frontend.model import MODELS_FOLDER, load_model


def test_of_the_held_out_text_alone() -> None:
    model = load_model("pydoc-wires")
    text = (MODELS_FOLDER / "pydoc-wires" / "heldout.txt").read_text(encoding="utf-8")
    ids = list(model.tokenizer.encode(text))
    card = json.loads((MODELS_FOLDER / "pydoc-wires" / "model_card.json").read_text())
    assert trigram_loss(model, ids) == card["trigram_loss"] > card["held_out_loss"]
    assert trigram_loss(model, ids[:-1]) is None
    assert trigram_loss(load_model("llama-2-7b"), ids) is None


def test_folders_without_a_card(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(MODELS_FOLDER / "pydoc-wires", folder)
    text = (folder / "heldout.txt").read_text(encoding="utf-8")
    ids = list(load_model(folder).tokenizer.encode(text))
    assert trigram_loss(load_model(folder), ids) is not None
    (folder / "model_card.json").write_text('{"trigram_loss": "low"}')
    assert trigram_loss(load_model(folder), ids) is None
    (folder / "model_card.json").unlink()
    assert trigram_loss(load_model(folder), ids) is None
