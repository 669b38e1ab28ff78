"""`lpu run`: tokens, cycles, text as it comes, and a forecast; `lpu explain` in both its forms."""

import functools
import json
from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

import lpu
from emulator.machine import Machine
from emulator.run import Generation
from emulator.text import ProgramText, parse_prompt
from emulator.timing import TimingEngine
from hw.spec.errors import InputError
from hw.spec.instructions import Unit
from hw.spec.machine_file import load_machine
from hw.spec.program import Program, save_program
from mapping.compiler import compile_model
from mapping.frontend.model import load_model
from mapping.recipe import load_recipe

FIXTURES = Path(__file__).parents[1] / "mapping" / "fixtures"


def byte_tokenizer() -> str:
    """A tokenizer of single bytes: id = place in the alphabet, so most ids are parts of characters or letters."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = tokenizers.Tokenizer(
        models.BPE({letter: i for i, letter in enumerate(alphabet)}, [])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer.to_str()


@functools.cache
def program(text: bool = True) -> Program:
    compiled = compile_model(
        load_model(FIXTURES / "grouped_odd_f16"), load_machine("tiny"), load_recipe("w8a8"), 64
    )
    if text:
        compiled.information["tokenizer"] = byte_tokenizer()
    return compiled


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_program(program(), tmp_path / "p.lpu")
    return tmp_path / "p.lpu"


def figures(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    capsys.readouterr()
    assert lpu.main([str(argument) for argument in arguments]) == 0
    return json.loads(capsys.readouterr().out)


def test_tokens_and_cycles_are_the_emulators(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = figures(capsys, "run", path, "--prompt-ids", "3, 1,4", "--tokens", 6, "--json")
    state, _ = Machine(program()).run([3, 1, 4], 6, (2,))
    assert found["prompt_tokens"] == [3, 1, 4]
    length = len(found["tokens"])
    assert found["tokens"] == state.tokens[3 : 3 + length].tolist()
    assert found["stopped"] == (found["tokens"][-1] == 2)
    whole = TimingEngine(program()).run(3, 6, end_position=2 + length)
    assert found["cycles"] == whole.cycles
    clock = load_machine("tiny").clock_hz
    assert found["seconds"] == pytest.approx(whole.cycles / clock)
    assert found["prompt_seconds"] < found["seconds"]
    prefill = TimingEngine(program()).run(3, 1).cycles
    assert found["tokens_per_second"] == pytest.approx(
        (length - 1) * clock / (whole.cycles - prefill)
    )
    assert 0 < found["bandwidth_fraction"] < 1
    assert list(found["utilisation"]) == ["LD", "ST", "MPE", "SFU", "SYS"]
    assert found["utilisation"]["LD"]["busy"] == pytest.approx(whole.busy[Unit.LD] / whole.cycles)
    for shares in found["utilisation"].values():
        assert sum(shares.values()) == pytest.approx(1)


def with_stops(*stops: int) -> Program:
    base = program()
    return Program(
        base.machine,
        base.instructions,
        base.memory,
        base.information | {"stop_tokens": list(stops)},
    )


def test_a_stop_token_ends_text_and_cycles() -> None:
    whole = Generation(with_stops(), [9], 10)
    tokens = list(whole.stream())
    assert len(tokens) == 10
    stopped = Generation(with_stops(tokens[2]), [9], 10)
    found = list(stopped.stream())
    assert found == tokens[: tokens.index(tokens[2]) + 1]
    assert stopped.stopped and not whole.stopped
    cycles = TimingEngine(with_stops()).run(1, len(found)).cycles
    assert stopped.timing().cycles == cycles < whole.timing().cycles


def test_one_token_has_no_decode_speed() -> None:
    generation = Generation(program(), [9], 1)
    list(generation.stream())
    assert generation.speed(generation.timing()).tokens_per_second is None


def test_the_forecast_counts_the_instructions() -> None:
    generation = Generation(program(), [1, 2], 3)
    expected = generation.forecast()
    machine = Machine(program())
    machine.run([1, 2], 3)
    assert expected.instructions == sum(len(trace.pc) for trace in machine.traces.values())
    assert expected.cycles == generation.engine.run(2, 3).cycles
    assert Generation(program(), [1, 2], 3, check=False).forecast().seconds < expected.seconds
    assert Generation(program(), [1, 2], 9).forecast().seconds > 2 * expected.seconds


def test_the_forecast_is_told_before_the_text(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lpu.main(["run", str(path), "--prompt", "!!", "--tokens", "4"]) == 0
    printed = capsys.readouterr()
    assert "instructions" in printed.err and "cycles" in printed.err
    assert printed.out.startswith("!!")
    for word in ("tokens", "cycles", "decode", "LD", "SFU"):
        assert word in printed.out


def test_pieces_add_up_and_characters_stay_whole() -> None:
    text = ProgramText(program(), "p")
    original = "a\N{SNOWMAN}b\N{GRINNING FACE}\u00e9"
    ids = text._tokenizer.encode(original).ids
    pieces = list(text.pieces(ids[:1], ids[1:]))
    assert "".join(pieces) == original[1:]
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)
    # A snowman of three bytes appears with the third.
    assert pieces == ["\N{SNOWMAN}", "b", "\N{GRINNING FACE}", "\u00e9", ""]
    # What is never completed is shown in the end.
    assert "".join(text.pieces(ids[:1], ids[1:3])) == "\N{REPLACEMENT CHARACTER}"


def test_without_a_tokenizer_pieces_are_ids() -> None:
    text = (
        ProgramText(program(text=False), "p")
        if "tokenizer" not in program(text=False).information
        else None
    )
    assert text is not None
    assert not text.known
    assert list(text.pieces([1], [5, 6])) == ["5 ", "6 "]
    assert text.decode([1]) is None
    assert parse_prompt(text, None, "1,2") == [1, 2]
    with pytest.raises(InputError, match="--prompt-ids"):
        parse_prompt(text, "words", None)


def test_a_text_with_tokens_that_the_model_does_not_know(path: Path) -> None:
    text = ProgramText(program(), "p")
    with pytest.raises(InputError, match="token id .* is outside 0 to 96"):
        parse_prompt(text, "\N{SNOWMAN}", None)
    with pytest.raises(InputError, match="at least one token"):
        parse_prompt(text, "", None)


def test_another_clock_changes_time_but_not_text(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import yaml

    content = load_machine("tiny").to_dict() | {"name": "slow", "clock_hz": 50_000_000}
    content["memory"]["read_latency"] = 60
    (tmp_path / "slow.yaml").write_text(yaml.safe_dump(content))
    arguments = ("run", path, "--prompt-ids", "5,6", "--tokens", 4, "--json")
    ours = figures(capsys, *arguments)
    other = figures(capsys, *arguments, "--target", tmp_path / "slow.yaml")
    assert other["tokens"] == ours["tokens"]
    assert other["cycles"] > ours["cycles"]
    assert other["seconds"] > 2 * ours["seconds"]


def test_trace_and_plot(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace, plot = tmp_path / "t.json", tmp_path / "t.svg"
    arguments = ["run", path, "--prompt-ids", "5", "--tokens", 2, "--trace", trace, "--plot", plot]
    assert lpu.main([str(argument) for argument in arguments]) == 0
    capsys.readouterr()
    events = json.loads(trace.read_text())["traceEvents"]
    assert {event["args"]["name"] for event in events if event["ph"] == "M"} >= {
        "LD",
        "ST",
        "MPE",
        "SFU",
        "SYS",
    }
    assert plot.read_text().startswith("<?xml")
    assert sorted(tmp_path.iterdir()) == sorted([path, trace, plot])


def test_explain(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("explain", path, "--prompt-length", 3, "--tokens", 2)
    found = figures(capsys, *arguments, "--json")
    assert sum(row["critical"] for row in found["work"]) == found["cycles"]
    assert {row["unit"] for row in found["work"]} == {"LD", "ST", "MPE", "SFU", "SYS"}
    assert [phase["name"] for phase in found["phases"]] == ["prefill", "decode", "whole run"]
    folder = tmp_path / "out"
    assert lpu.main([str(argument) for argument in (*arguments, "-o", folder)]) == 0
    printed = capsys.readouterr().out
    assert "critical chain" in printed and str(folder) in printed
    assert {path.name for path in folder.iterdir()} == {
        "trace.json",
        "timeline.png",
        "step.png",
        "roofline.png",
    }
