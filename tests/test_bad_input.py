"""What a user may get wrong, through the front door: status 2, one line that says what and where, no file left."""

import dataclasses
import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import lpu
from hw.spec.machine import TARGETS, MemorySpec, load_machine
from hw.spec.program import VERSION, load_program, save_program
from mapping.recipe import RECIPES

FIXTURES = Path(__file__).parent / "mapping" / "fixtures"
MODEL = FIXTURES / "linear_untied_f32"

Refuse = Callable[..., str]


@pytest.fixture
def refuse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Run `lpu` and check how it refuses; gives the line on standard error."""

    def run(*arguments: object, names: tuple[object, ...] = ()) -> str:
        before = sorted(tmp_path.rglob("*"))
        capsys.readouterr()
        status = lpu.main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        assert (status, printed.out) == (2, ""), printed
        lines = printed.err.splitlines()
        assert len(lines) == 1, printed.err
        assert lines[0].startswith("lpu: ")
        for name in names:
            assert str(name) in lines[0], lines[0]
        assert sorted(tmp_path.rglob("*")) == before
        return lines[0]

    return run


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program of a small model without tokenizer."""
    path = tmp_path_factory.mktemp("compiled") / "model.lpu"
    arguments = [
        "compile",
        MODEL,
        "--target",
        "tiny",
        "--recipe",
        "w8a8",
        "--context",
        32,
        "-o",
        path,
    ]
    assert lpu.main([str(argument) for argument in arguments]) == 0
    return path


@pytest.fixture
def program(compiled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(compiled, tmp_path / "model.lpu"))


def write_target(
    path: Path, field: str | None = None, value: object = None, base: str = "tiny"
) -> Path:
    """A bundled target with one field changed (`memory.x`: of the memory), or removed if the value is `...`."""
    content = yaml.safe_load((TARGETS / f"{base}.yaml").read_text())
    if field is not None:
        owner, name = (
            (content["memory"], field[7:]) if field.startswith("memory.") else (content, field)
        )
        if value is ...:
            del owner[name]
        else:
            owner[name] = value
    path.write_text(yaml.safe_dump(content))
    return path


def compile_with(tmp_path: Path, **changes: object) -> list[object]:
    options = {"target": "tiny", "recipe": "w8a8", "output": tmp_path / "out.lpu"} | changes
    model = options.pop("model", MODEL)
    return [
        "compile",
        model,
        *(part for name, value in options.items() for part in (f"--{name}", value)),
    ]


# Targets.

MACHINE_FIELDS = [
    f.name
    for f in dataclasses.fields(type(load_machine("tiny")))
    if f.name not in ("name", "memory")
]
MEMORY_FIELDS = [f"memory.{f.name}" for f in dataclasses.fields(MemorySpec)]
OPTIONAL = [
    f.name
    for f in dataclasses.fields(type(load_machine("tiny")))
    if f.default is not dataclasses.MISSING
]
REQUIRED = [*(f for f in MACHINE_FIELDS if f not in OPTIONAL), "name", "memory"]
REQUIRED += [f for f in MEMORY_FIELDS if "beat" not in f]
ANY_WHOLE_NUMBER = ("clock_hz", "watchdog_cycles", "exchange_latency")


@pytest.mark.parametrize("value", [-8, 1 << 40, 2.5, "16", True, None, [16], {"value": 16}])
@pytest.mark.parametrize("field", MACHINE_FIELDS + MEMORY_FIELDS)
def test_a_target_with_an_impossible_field(
    refuse: Refuse, tmp_path: Path, field: str, value: object
) -> None:
    path = write_target(tmp_path / "mine.yaml", field, value)
    refuse(*compile_with(tmp_path, target=path), names=(path, field.removeprefix("memory.")))


@pytest.mark.parametrize("field", [f for f in MACHINE_FIELDS if f not in ANY_WHOLE_NUMBER])
def test_a_size_that_is_no_power_of_two(refuse: Refuse, tmp_path: Path, field: str) -> None:
    path = write_target(tmp_path / "mine.yaml", field, 12)
    refuse(*compile_with(tmp_path, target=path), names=(path, field, "12"))


@pytest.mark.parametrize("field", REQUIRED)
def test_a_target_without_a_field(refuse: Refuse, tmp_path: Path, field: str) -> None:
    path = write_target(tmp_path / "mine.yaml", field, ...)
    refuse(
        *compile_with(tmp_path, target=path), names=(path, field.removeprefix("memory."), "missing")
    )


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("lanez", 4, "lanez: unknown field"),
        ("memory.bankz", 4, "memory: bankz: unknown field"),
        ("two\nlines", 4, "unknown field"),
        (7, 4, "7: unknown field"),
        ("family", "systolic", "family: expected 'flight'"),
        ("name", "../escape", "name: expected"),
        ("name", 5, "name: expected"),
        ("memory", 5, "memory: expected a mapping"),
        ("channels", 64, "channels: expected a power of two"),
        ("bus_bytes", 4, "channels * bus_bytes: expected 8 to 512 bytes"),
        ("drain_lanes", 4, "drain_lanes: expected at most the 2 lanes"),
        ("memory.row_words", 8, "memory.row_words: expected at least burst_beats"),
        ("memory.beat_numerator", 2, "memory.beat_numerator: expected at most beat_denominator"),
        ("memory.refresh_interval", 100, "memory.refresh_interval: expected more than"),
        ("clock_hz", {"value": 1, "from": "me"}, "clock_hz: expected value and source"),
    ],
)
def test_a_target_that_cannot_be(
    refuse: Refuse, tmp_path: Path, field: Any, value: object, message: str
) -> None:
    if isinstance(field, str):
        path = write_target(tmp_path / "mine.yaml", field, value)
    else:
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump({field: value}))
    refuse(*compile_with(tmp_path, target=path), names=(path, message))


@pytest.mark.parametrize(
    "content",
    [
        b"a: [1",
        b"\xff\xfe\x00",
        b"clock_hz: 2001-99-99",
        b"- 1\n- 2\n",
        b"",
        b"*missing",
        b"!!python/object:os.system x",
        b"[" * 5000,
    ],
    ids=["open bracket", "not UTF-8", "no date", "a list", "empty", "no anchor", "object", "deep"],
)
@pytest.mark.parametrize("option", ["target", "recipe"])
def test_not_the_yaml_that_is_expected(
    refuse: Refuse, tmp_path: Path, option: str, content: bytes
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    refuse(*compile_with(tmp_path, **{option: path}), names=(path,))


@pytest.mark.parametrize("option", ["target", "recipe", "model"])
def test_a_name_of_nothing(refuse: Refuse, tmp_path: Path, option: str) -> None:
    refuse(*compile_with(tmp_path, **{option: "no-such-thing"}), names=("no-such-thing",))


# Recipes.


def write_recipe(path: Path, **changes: object) -> Path:
    content = yaml.safe_load((RECIPES / "w4a8.yaml").read_text()) | changes
    path.write_text(
        yaml.safe_dump({key: value for key, value in content.items() if value is not ...})
    )
    return path


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"overrides": [{"tensor": "layers.9.*", "bits": 8, "group": 32}]},
            "'layers.9.*' names no weight matrix",
        ),
        (
            {"overrides": [{"tensor": "embed_tokens", "bits": 8, "group": 32}]},
            "'embed_tokens' names no weight matrix",
        ),
        ({"weigths": {"bits": 4, "group": 32}}, "weigths"),
        ({"weights": {"bits": 4, "group": 32, "zero": 1}}, "weights: 'zero': unknown field"),
        ({"weights": ...}, "weights: expected bits (or kind) and group"),
        (
            {"weights": {"bits": 6, "group": 32}},
            "weights: bits: expected 2, 3, 4, 5 or 8, found 6",
        ),
        ({"weights": {"bits": 4.0, "group": 32}}, "or 8, found 4.0"),
        ({"weights": {"bits": 4, "group": 12}}, "weights: group: expected"),
        ({"weights": {"bits": 4, "group": "row"}}, "weights: group: expected"),
        ({"weights": {"bits": 4, "group": 0}}, "weights: group: expected"),
        ({"activations": {"bits": 4}}, "activations: expected bits: 8"),
        ({"kv_cache": {"bits": 4}}, "kv_cache: expected bits: 8"),
        ({"overrides": {"tensor": "lm_head"}}, "overrides: expected a list"),
        ({"overrides": [{"bits": 8, "group": 32}]}, "overrides[0]: expected tensor"),
        (
            {"overrides": [{"tensor": "lm_head", "bits": 7, "group": 32}]},
            "overrides[0]: bits: expected 2, 3, 4, 5 or 8",
        ),
        (
            {"overrides": [{"tensor": "lm_head", "bits": 8, "group": 32, "x": 1}]},
            "overrides[0]: 'x': unknown field",
        ),
        ({"name": 5}, "name: expected text"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_recipe_that_cannot_be(
    refuse: Refuse, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = write_recipe(tmp_path / "mine.yaml", **changes)
    line = refuse(*compile_with(tmp_path, recipe=path), names=(message,))
    assert str(path) in line or "recipe w4a8" in line


# Models that do not fit.


@pytest.mark.parametrize(
    "field, value",
    [
        ("memory.words", 1024),
        ("stream_words", 64),
        ("input_words", 64),
        ("vector_rows", 64),
        ("result_rows", 64),
        ("activation_rows", 64),
        ("store_rows", 2),
        ("scalars", 16),
        ("matrix_scales", 8),
        ("instructions", 16),
    ],
)
def test_a_model_that_does_not_fit_says_where_and_by_how_much(
    refuse: Refuse, tmp_path: Path, field: str, value: int
) -> None:
    path = write_target(tmp_path / "mine.yaml", field, value)
    line = refuse(*compile_with(tmp_path, target=path), names=("target", field.split(".")[-1]))
    figures = [
        int(word) for word in line.replace(",", " ").replace(")", " ").split() if word.isdigit()
    ]
    assert any(figure > value for figure in figures), line


def test_scales_that_do_not_fit(refuse: Refuse, tmp_path: Path) -> None:
    target = write_target(tmp_path / "mine.yaml", "scale_words", 2)
    refuse(*compile_with(tmp_path, target=target, recipe="w4a8"), names=("scale_words",))


@pytest.mark.parametrize("context", [-1, 0, 1, 257, 1 << 40])
def test_a_context_that_the_model_cannot_have(refuse: Refuse, tmp_path: Path, context: int) -> None:
    refuse(*compile_with(tmp_path, context=context), names=("context",))


def test_an_estimate_of_what_does_not_fit(refuse: Refuse) -> None:
    line = refuse("estimate", "llama-2-7b", "--target", "small", "--recipe", "w4a8", "--tokens", 2)
    assert "small" in line and "too few" in line or "needs" in line
    refuse(
        "estimate",
        MODEL,
        "--target",
        "tiny",
        "--recipe",
        "w8a8",
        "--prompt-length",
        0,
        names=("prompt length",),
    )
    refuse(
        "estimate",
        MODEL,
        "--target",
        "tiny",
        "--recipe",
        "w8a8",
        "--tokens",
        9999,
        names=("context",),
    )


# Program files.


@pytest.mark.parametrize("command", ["run", "explain", "sim", "compare"])
def test_no_program_file(refuse: Refuse, tmp_path: Path, command: str) -> None:
    arguments = ["--prompt-ids", "1"] if command in ("run", "sim") else []
    refuse(command, tmp_path / "none.lpu", *arguments, names=("none.lpu",))
    refuse(command, tmp_path, *arguments, names=(tmp_path,))


def run(program: Path, *more: object) -> list[object]:
    return ["run", program, "--prompt-ids", "1,2", "--tokens", 2, *more]


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


# Output that cannot be written.


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
