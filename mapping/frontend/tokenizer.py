"""Text to token ids and back, by the `tokenizer.json` of a model."""

from collections.abc import Sequence
from pathlib import Path

import tokenizers

from hw.spec.errors import InputError
from mapping.frontend.files import shown


class Tokenizer:
    """The tokenizer of one model.

    Parameters
    ----------
    path : Path
        A ``tokenizer.json``.
    vocabulary_size : int
        Token ids of the model; some tokenizers know more tokens than their model.

    Raises
    ------
    InputError
        If the file is not a tokenizer.
    """

    def __init__(self, path: Path, vocabulary_size: int) -> None:
        self.path = path
        self.vocabulary_size = vocabulary_size
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception for every malformed file
            raise InputError(
                f"{path}: expected a tokenizer of the tokenizers library, found {shown(str(error))}"
            ) from error
        # Files may ask for padding or truncation, which were settings of somebody's training run.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def encode(self, text: str) -> list[int]:
        """Return the token ids of ``text``, with the tokens the file itself puts around a text.

        Raises
        ------
        InputError
            If a token id is one that the model has no embedding for.
        """
        token_ids = self._tokenizer.encode(text).ids
        for token_id in token_ids:
            if token_id >= self.vocabulary_size:
                raise InputError(
                    f"{self.path}: token {shown(self._tokenizer.id_to_token(token_id))}: expected an "
                    f"id below the model's vocabulary of {self.vocabulary_size}, found {token_id}"
                )
        return token_ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of token ids, without the marks of beginning and end."""
        return self._tokenizer.decode(list(token_ids))

    def token(self, token_id: int) -> str | None:
        """Return how the vocabulary spells one token, or None if there is no such id."""
        return self._tokenizer.id_to_token(token_id)
