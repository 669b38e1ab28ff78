"""Program files that are damaged or of another machine, and prompts that cannot be."""

import dataclasses
import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hw.spec.program import VERSION, load_program, save_program
from tests.bad_input.arguments import Refuse, run


@pytest.mark.parametrize("command", ["run", "explain", "sim", "compare"])
def test_no_program_file(refuse: Refuse, tmp_path: Path, command: str) -> None:
    arguments = ["--prompt-ids", "1"] if command in ("run", "sim") else []
    refuse(command, tmp_path / "none.lpu", *arguments, names=("none.lpu",))
    refuse(command, tmp_path, *arguments, names=(tmp_path,))


def test_a_program_with_any_bit_flipped(refuse: Refuse, program: Path) -> None:
    good = program.read_bytes()
    header_bytes = int.from_bytes(good[12:16], "little")
    choose = random.Random(1)
    places = [*range(16), *(choose.randrange(16, 16 + header_bytes) for _ in range(16))]
    places += [choose.randrange(len(good)) for _ in range(16)]
    places += [len(good) - 1 - choose.randrange(32) for _ in range(8)]
    for place in places:
        spoiled = bytearray(good)
        spoiled[place] ^= 1 << choose.randrange(8)
        program.write_bytes(spoiled)
        refuse(*run(program), names=(program,))


def test_a_program_cut_short_or_too_long(refuse: Refuse, program: Path) -> None:
    good = program.read_bytes()
    for length in (0, 1, 8, 16, 47, 48, 100, len(good) // 2, len(good) - 1):
        program.write_bytes(good[:length])
        refuse(*run(program), names=(program,))
    program.write_bytes(good + b"\0")
    refuse(*run(program), names=(program,))


def rewrite(path: Path, edit: Callable[[dict[str, Any]], object], version: int = VERSION) -> None:
    """Change the header of a program file as somebody would who makes such files: the checksum is right."""
    content = path.read_bytes()
    length = int.from_bytes(content[12:16], "little")
    header = json.loads(content[16 : 16 + length])
    edit(header)
    text = json.dumps(header).encode()
    body = (
        content[:8]
        + version.to_bytes(4, "little")
        + len(text).to_bytes(4, "little")
        + text
        + content[16 + length : -32]
    )
    path.write_bytes(body + hashlib.sha256(body).digest())


@pytest.mark.parametrize(
    "edit, message",
    [
        (lambda h: h.update(encoding=1), "encoding: expected"),
        (lambda h: h.update(machine_hash=1), "machine_hash: expected"),
        (lambda h: h["machine"].update(stream_words=4096), "machine_hash: expected"),
        (lambda h: h["machine"].update(stream_words=4095), "machine: stream_words: expected"),
        (lambda h: h["machine"].update(more=1), "machine: more: unknown field"),
        (lambda h: h["machine"].pop("tokens"), "machine: tokens: missing"),
        (lambda h: h.pop("machine"), "header: machine: expected"),
        (lambda h: h.pop("information"), "header: information: expected"),
        (lambda h: h["sections"].pop(), "header: sections: expected"),
        (lambda h: h["sections"].append(["more", 1]), "header: sections: expected"),
        (lambda h: h["sections"][0].__setitem__(1, -1), "header: sections: expected"),
        (lambda h: h["sections"][0].__setitem__(1, h["sections"][0][1] + 1), "sections"),
        (lambda h: h["sections"].__setitem__(0, 7), "header: sections: expected"),
        (lambda h: h["information"].update(tokenizer="{}"), "tokenizer: expected"),
        (lambda h: h["information"].update(vocabulary_size="many"), "vocabulary_size: expected"),
        (lambda h: h["information"].update(stop_tokens=5), "stop_tokens: expected"),
        (lambda h: h["information"].update(context=None), "context: expected"),
    ],
)
def test_a_program_file_with_a_header_of_another_kind(
    refuse: Refuse, program: Path, edit: Callable[[dict[str, Any]], object], message: str
) -> None:
    rewrite(program, edit)
    refuse(*run(program), names=(program, message))


def test_a_program_file_of_another_version(refuse: Refuse, program: Path) -> None:
    rewrite(program, lambda header: None, version=VERSION + 1)
    refuse(*run(program), names=(program, f"version: expected {VERSION}, found {VERSION + 1}"))


def test_bytes_behind_the_last_section(refuse: Refuse, program: Path) -> None:
    body = program.read_bytes()[:-32] + b"more"
    program.write_bytes(body + hashlib.sha256(body).digest())
    refuse(*run(program), names=(program, "sections: expected"))


def test_a_program_of_another_machine(refuse: Refuse, program: Path) -> None:
    refuse(*run(program, "--target", "small"), names=(program, "compiled for machine tiny"))


def test_a_section_that_no_machine_of_this_kind_holds(refuse: Refuse, program: Path) -> None:
    loaded = load_program(program)
    units = {unit: words * 20 for unit, words in loaded.instructions.items()}
    save_program(dataclasses.replace(loaded, instructions=units), program)
    refuse(*run(program), names=(program, "expected at most 256 items"))


# Prompts.


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--prompt-ids", "1,2", "--tokens", 31], "exceed the program's context of 32"),
        (
            ["--prompt-ids", ",".join(["1"] * 33), "--tokens", 1],
            "exceed the program's context of 32",
        ),
        (["--prompt-ids", "1,47"], "token id 47 at position 1 is outside 0 to 46"),
        (["--prompt-ids", "1,-1"], "expected numbers separated by commas"),
        (["--prompt-ids", "1,x"], "expected numbers separated by commas, found 'x'"),
        (["--prompt-ids", "\N{SUPERSCRIPT TWO}"], "expected numbers separated by commas"),
        (["--prompt-ids", ""], "expected numbers separated by commas, found ''"),
        (["--prompt-ids", "9" * 5000], "--prompt-ids"),
        (["--prompt", "text"], "--prompt-ids"),
        (["--prompt", "text", "--prompt-ids", "1"], "give either --prompt or --prompt-ids"),
        ([], "give either --prompt or --prompt-ids"),
        (["--prompt-ids", "1", "--tokens", 0], "tokens: expected at least 1, found 0"),
        (["--prompt-ids", "1", "--tokens", "many"], "--tokens"),
    ],
)
def test_a_prompt_that_cannot_be(
    refuse: Refuse, program: Path, arguments: list[object], message: str
) -> None:
    refuse("run", program, *arguments, names=(message,))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--prompt-ids", "1,2", "--tokens", 31], "exceed the program's context of 32"),
        (["--prompt-ids", "1,47"], "token id 47 at position 1 is outside 0 to 46"),
        (["--prompt-ids", "1,x"], "--prompt-ids"),
        (["--prompt", "text"], "--prompt-ids"),
    ],
)
def test_a_prompt_that_the_hardware_cannot_take(
    refuse: Refuse, program: Path, arguments: list[object], message: str
) -> None:
    refuse("sim", program, *arguments, names=(message,))


@pytest.mark.parametrize(
    "arguments", [["--prompt-length", 33], ["--tokens", 33], ["--prompt-length", 0]]
)
@pytest.mark.parametrize("command", ["explain", "compare"])
def test_lengths_that_cannot_be(
    refuse: Refuse, program: Path, command: str, arguments: list[object]
) -> None:
    refuse(command, program, *arguments)
