"""`lpu sim`: what it prints, what it refuses, and what it says when hardware and emulator differ."""

import dataclasses
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from tokenizers import Tokenizer, models, pre_tokenizers

import lpu
from hw.spec.program import Program, save_program
from sim_tests import simulate as simulation
from sim_tests.test_exactness import example

KEYS = [
    *(
        "tokens",
        "emulator_tokens",
        "rtl_cycles",
        "emulator_cycles",
        "events_compared",
        "events_different",
    ),
    *("words_compared", "words_different", "rtl_cycles_per_second", "engine", "target", "text"),
]


@pytest.fixture(scope="module")
def program() -> Program:
    """A program for any prompt, with a tokenizer of three words."""
    tokenizer = Tokenizer(models.WordLevel({"The": 0, "quick": 1, "fox": 2, "?": 3}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    information = {
        "vocabulary_size": 4,
        "context": 32,
        "tokenizer": tokenizer.to_str(),
        "stop_tokens": [],
    }
    return dataclasses.replace(example(), information=information)


@pytest.fixture(scope="module")
def file(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "program.lpu"
    save_program(program, path)
    return path


@pytest.mark.parametrize("engine", simulation.ENGINES)
def test_json(engine: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "sim",
        str(file),
        "--prompt",
        "quick fox",
        "--tokens",
        "2",
        "--engine",
        engine,
        "--json",
    ]
    assert lpu.main(arguments) == 0
    figures = json.loads(capsys.readouterr().out)
    assert sorted(figures) == sorted(KEYS)
    assert figures["events_compared"] > 0 and figures["words_compared"] == 2048
    assert (figures["events_different"], figures["words_different"]) == (0, 0)
    assert figures["rtl_cycles"] == figures["emulator_cycles"] > 0
    assert figures["tokens"] == figures["emulator_tokens"]
    assert figures["engine"] == engine and figures["target"] == "fuzz_tiny"


def test_waves(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wave = tmp_path / "run.vcd"
    arguments = ["sim", str(file), "--prompt-ids", "1,2", "--engine", "native", "--wave", str(wave)]
    assert lpu.main(arguments) == 0
    assert wave.stat().st_size > 1000
    for suffix in (".gtkw", ".sucl"):
        text = wave.with_suffix(suffix).read_text()
        assert str(wave) in text and "lpu_simulation.clk" in text and "trace_sfu_checksum" in text
    assert "events_different" in capsys.readouterr().out


REFUSED = {
    "both prompts": (["--prompt", "fox", "--prompt-ids", "1"], "--prompt, --prompt-ids"),
    "no numbers": (["--prompt-ids", "1,two"], "--prompt-ids: expected token ids"),
    "empty prompt": (["--prompt", ""], "prompt: expected at least one token"),
    "beyond the vocabulary": (["--prompt-ids", "1,9"], "token id 9"),
    "too long": (["--prompt-ids", "1", "--tokens", "99"], "context of 32"),
    "no tokens": (["--prompt-ids", "1", "--tokens", "0"], "tokens: expected at least 1"),
    "no wave file": (["--prompt-ids", "1", "--wave", "run.txt"], "--wave"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_refused(case: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, message = REFUSED[case]
    assert lpu.main(["sim", str(file), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_text_without_tokenizer(
    program: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plain.lpu"
    save_program(dataclasses.replace(program, information={"vocabulary_size": 4}), path)
    assert lpu.main(["sim", str(path), "--prompt", "fox"]) == 2
    assert "carries no tokenizer" in capsys.readouterr().err


def test_difference(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A word that the simulator's result gets wrong ends the command with status 1 and the word's name."""
    original = simulation.simulate

    def changed(*arguments: object, **options: object) -> simulation.SimulationResult:
        result = original(*arguments, **options)  # type: ignore[arg-type]  # handed through
        (core,) = result.cores
        memory = core.memory.copy()
        memory[7, 1] ^= 0xFF
        return dataclasses.replace(result, cores=(dataclasses.replace(core, memory=memory),))

    monkeypatch.setattr(simulation, "simulate", changed)
    assert lpu.main(["sim", str(file), "--prompt-ids", "1", "--engine", "native", "--json"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["words_different"] == 1
    assert "memory word 0x7 byte 1" in captured.err


def test_help_names_the_default() -> None:
    assert "The " in CliRunner().invoke(lpu.lpu, ["sim", "--help"]).output
