"""Text in and out of a program: the tokenizer that the program file carries."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from hw.spec.errors import InputError
from hw.spec.program import Program

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""What a tokenizer shows of a character whose last bytes are still to come."""


class ProgramText:
    """Translates between text and the token ids of one program.

    Parameters
    ----------
    program : Program
    where : str
        What to call the program in messages.
    """

    def __init__(self, program: Program, where: str) -> None:
        self.where = where
        self.vocabulary_size: int = program.information.get("vocabulary_size", 1 << 31)
        self._tokenizer: Any = _tokenizer(program.information.get("tokenizer"), where)

    @property
    def known(self) -> bool:
        """Whether the program has a tokenizer."""
        return self._tokenizer is not None

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt.

        Raises
        ------
        InputError
            If the program has no tokenizer, or the text has a token that the model does not know.
        """
        if self._tokenizer is None:
            raise InputError(
                f"{self.where}: tokenizer: the program has none; give token ids with --prompt-ids"
            )
        ids: list[int] = self._tokenizer.encode(text).ids
        for token in ids:
            if token >= self.vocabulary_size:
                raise InputError(
                    f"prompt: token id {token} is outside 0 to {self.vocabulary_size - 1}"
                )
        return ids

    def decode(self, ids: Iterable[int]) -> str | None:
        """Text of token ids; None without a tokenizer."""
        return None if self._tokenizer is None else str(self._tokenizer.decode(list(ids)))

    def pieces(self, prompt: list[int], generated: Iterable[int]) -> Iterator[str]:
        """What each generated token adds to the text, held back until its characters are complete.

        Without a tokenizer the pieces are the token ids themselves.
        """
        ids = list(prompt)
        if self._tokenizer is None:
            yield from (f"{token} " for token in generated)
            return
        shown = len(self.decode(ids) or "")
        text = ""
        for token in generated:
            ids.append(token)
            text = self.decode(ids) or ""
            if not text.endswith(_REPLACEMENT):
                yield text[shown:]
                shown = len(text)
        yield text[shown:]


def parse_prompt(text: ProgramText, prompt: str | None, prompt_ids: str | None) -> list[int]:
    """Token ids of a prompt that is given either as text or as numbers separated by commas.

    Raises
    ------
    InputError
        If neither or both are given, a number is none, or the text cannot be translated.
    """
    if (prompt is None) == (prompt_ids is None):
        raise InputError("prompt: give either --prompt or --prompt-ids")
    if prompt is not None:
        ids = text.encode(prompt)
        if not ids:
            raise InputError("--prompt: expected at least one token, found none in the text")
        return ids
    assert prompt_ids is not None
    parts = [part.strip() for part in prompt_ids.split(",")]
    for part in parts:
        if not (part.isascii() and part.isdigit() and len(part) < 10):
            raise InputError(
                f"--prompt-ids: expected numbers separated by commas, found {ascii(part[:20])}"
            )
    ids = [int(part) for part in parts]
    for position, token in enumerate(ids):
        if token >= text.vocabulary_size:
            raise InputError(
                f"--prompt-ids: token id {token} at position {position} is outside 0 to {text.vocabulary_size - 1}"
            )
    return ids


def _tokenizer(content: object, where: str) -> Any:
    if content is None:
        return None
    import tokenizers

    try:
        json.loads(str(content))
        tokenizer = tokenizers.Tokenizer.from_str(str(content))
    except Exception as error:  # the library raises plain Exception for every malformed text
        line = " ".join(str(error).split())[:80]
        raise InputError(
            f"{where}: tokenizer: expected one of the tokenizers library, found {line!r}"
        ) from None
    # Files may ask for padding or truncation, which were settings of somebody's training run.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
