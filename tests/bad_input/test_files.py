"""Output that cannot be written, and texts for loss that cannot be read."""

from pathlib import Path

import pytest

from tests.bad_input.arguments import MODEL, Refuse, compile_with, run


@pytest.mark.parametrize(
    "option, name", [("--trace", "t.json"), ("--plot", "t.png"), ("--plot", "t.svg")]
)
def test_no_folder_for_a_trace(
    refuse: Refuse, program: Path, tmp_path: Path, option: str, name: str
) -> None:
    path = tmp_path / "no" / name
    refuse(*run(program, option, path), names=(path, "does not exist"))


@pytest.mark.parametrize("name", ["t", "t.json", "t.png.txt"])
def test_a_picture_that_is_none(refuse: Refuse, program: Path, tmp_path: Path, name: str) -> None:
    refuse(*run(program, "--plot", tmp_path / name), names=(name, "expected a picture"))
    refuse("compare", program, "--plot", tmp_path / name, names=(name, "expected a picture"))


@pytest.mark.parametrize("command", ["explain"])
def test_no_folder_for_a_folder(
    refuse: Refuse, program: Path, tmp_path: Path, command: str
) -> None:
    path = tmp_path / "no" / "more"
    refuse(
        command,
        program,
        "--prompt-length",
        2,
        "--tokens",
        2,
        "-o",
        path,
        names=(path, "does not exist"),
    )


def test_no_folder_for_a_program(refuse: Refuse, tmp_path: Path) -> None:
    path = tmp_path / "no" / "model.lpu"
    refuse(*compile_with(tmp_path, output=path), names=(path, "does not exist"))


def test_no_folder_for_verilog(refuse: Refuse, tmp_path: Path) -> None:
    path = tmp_path / "no" / "more"
    refuse("verilog", "--target", "tiny", "-o", path, names=(path, "does not exist"))


# Texts for loss.


@pytest.mark.parametrize(
    "content, message",
    [
        ("[1, 2, 47]", "entry 2: token id 47 is outside 0 to 46"),
        ("[1, -2]", "entry 1: token id -2"),
        ("[1, true]", "expected a JSON list of token ids"),
        ("{}", "expected a JSON list of token ids"),
        ("[1, 2", "expected a JSON list of token ids"),
        ("[" * 100000, "expected a JSON list of token ids"),
        ("[1]", "expected at least two tokens, found 1"),
        ("[]", "expected at least two tokens, found 0"),
    ],
    ids=range(8),
)
def test_token_ids_that_cannot_be(
    refuse: Refuse, tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "ids.json"
    path.write_text(content)
    refuse(
        "eval", MODEL, "--recipe", "w8a8", "--target", "tiny", "--token-ids", path, names=(message,)
    )


def test_a_text_for_a_model_without_tokenizer(refuse: Refuse, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("Some words.")
    refuse("eval", MODEL, "--recipe", "w8a8", "--text", path, names=("tokenizer",))
    refuse("eval", MODEL, "--recipe", "w8a8", names=("either --text or --token-ids",))
    refuse(
        "eval",
        MODEL,
        "--recipe",
        "w8a8",
        "--token-ids",
        tmp_path / "none.json",
        names=("none.json",),
    )
