"""What a bundled model's card says of the text that was held out from it."""

from collections.abc import Sequence

from mapping.frontend.files import read_json_object
from mapping.frontend.model import Model

__all__ = ["trigram_loss"]

CARD, HELD_OUT = "model_card.json", "heldout.txt"


def trigram_loss(model: Model, ids: Sequence[int]) -> float | None:
    """Nats a token of a trigram model of the same training text; None if `ids` are not the held-out text.

    Counted when the model was trained (`mapping.models.measure`), since the training text is not bundled.
    """
    if model.folder is None:
        return None
    card, text = model.folder / CARD, model.folder / HELD_OUT
    if not (card.is_file() and text.is_file()):
        return None
    if list(ids) != list(model.tokenizer.encode(text.read_text(encoding="utf-8"))):
        return None
    loss = read_json_object(card).get("trigram_loss")
    return loss if isinstance(loss, float) else None
