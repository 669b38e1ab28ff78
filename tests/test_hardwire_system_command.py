"""`lpu hardwire system` as a user runs it."""

import json
from pathlib import Path

import pytest

import lpu


def test_json_and_picture(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    picture = tmp_path / "system.png"
    arguments = ["hardwire", "system", "gpt-oss-120b", "--context", "2048", "--json", "--no-study"]
    assert lpu.main([*arguments, "--plot", str(picture)]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["tokens_per_second"] == pytest.approx(249_960, rel=0.015)
    assert facts["tokens_per_second_per_user"] == pytest.approx(1157, rel=0.015)
    assert set(facts["time_shares"]) == {"links", "projection", "attention", "stall", "other"}
    assert {"name", "value", "source", "why"} <= set(facts["assumptions"][0])
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_other_model_and_variant(capsys: pytest.CaptureFixture[str]) -> None:
    base = ["hardwire", "system", "gpt-oss-20b", "--no-study", "--json"]
    assert lpu.main([*base, "--variant", "heads", "--context", "700"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["tokens_in_flight"] == 6 * 24
    assert facts["published"] is None
    assert lpu.main(["hardwire", "system", "gpt-oss-20b", "--no-study"]) == 0
    assert "tokens per second" in capsys.readouterr().out


def test_mixed_load(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--mixed", "20", "--prompt-length", "10", "--tokens", "5", "--json"]
    assert lpu.main(["hardwire", "system", "gpt-oss-20b", *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["sequences"] == 20


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["gpt-oss-7b"], "expected a folder or one of"),
        (["tinyllama-1.1b"], "architecture: expected GptOssForCausalLM"),
        (["gpt-oss-120b", "--context", "0"], "--context: expected 1 to 524288, found 0"),
        (["gpt-oss-120b", "--context", "600000"], "--context: expected 1 to 524288"),
        (["gpt-oss-120b", "--variant", "fast"], "--variant: expected one of serial"),
        (["gpt-oss-120b", "--steps", "1"], "--steps: expected 4 or more"),
        (["gpt-oss-120b", "--mixed", "0"], "sequences: expected 1 or more"),
        (["gpt-oss-120b", "--plot", "/nowhere/x.png"], "/nowhere"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lpu.main(["hardwire", "system", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lpu: ")
    assert complaint in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "model, chips", [("gpt-oss-120b", 16), ("llama-2-7b", 1), ("llama-3-8b", 2)]
)
def test_report(model: str, chips: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert lpu.main(["hardwire", "report", model, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["chips"] == chips
    assert facts["respin_dollars"]["low"] < facts["respin_dollars"]["high"]
    assert 0 < facts["wires"] < facts["hardwired_weights"]
    assert ("published_tables" in facts) == (model == "gpt-oss-120b")


def test_report_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert lpu.main(["hardwire", "report", "gpt-oss-120b"]) == 0
    out = capsys.readouterr().out
    assert "hardwired weights" in out
    assert "In the paper:" in out


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["gpt-oss-7b"], "expected a folder or one of"),
        (["gpt-oss-20b", "--systems", "0"], "systems: expected 1 or more"),
    ],
)
def test_report_of_nothing(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lpu.main(["hardwire", "report", *arguments]) == 2
    assert complaint in capsys.readouterr().err
