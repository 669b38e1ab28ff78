"""What commands print in a pipe: whole cells, valid JSON, no bars."""

import json
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

from emulator.console import json_option, print_facts, print_json, print_table, progress


def test_a_table_in_a_pipe_cuts_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 300
    print_table(
        "Speed [b]", ["name", "cycles", "ratio"], [[long, 12345678, 0.51234], ["[red]", None, 2.0]]
    )
    printed = capsys.readouterr().out
    for cell in ("Speed [b]", long, "12,345,678", "0.5123", "[red]", " -"):
        assert cell in printed
    assert all(line == line.rstrip() for line in printed.splitlines())


def test_json_takes_numpy_and_paths_and_refuses_nan(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": np.int64(3), "b": np.arange(2), "c": Path("x"), "d": np.float32(0.5)})
    assert json.loads(capsys.readouterr().out) == {"a": 3, "b": [0, 1], "c": "x", "d": 0.5}
    with pytest.raises(ValueError):
        print_json({"a": float("nan")})
    with pytest.raises(TypeError):
        print_json({"a": object()})


def test_facts_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    print_facts({"cycles": 1200, "equal": True})
    assert capsys.readouterr().out == "cycles  1,200\nequal   yes\n"


def test_progress_is_silent_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("compiling", 3) as advance:
        advance(3)
    assert capsys.readouterr() == ("", "")


def test_the_json_option_reaches_the_command() -> None:
    @click.command()
    @json_option
    def command(as_json: bool) -> None:
        click.echo(as_json)

    assert CliRunner().invoke(command, ["--json"]).output == "True\n"
    assert CliRunner().invoke(command, []).output == "False\n"
