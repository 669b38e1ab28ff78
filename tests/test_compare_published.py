"""`lpu compare --published`: figures of others beside ours, each with its origin, and what is wanted."""

import json

import pytest

import lpu
from emulator.published import FIGURES, Figure
from hw.spec.machine_file import load_machine


def test_what_is_wanted_has_two_sides() -> None:
    figure = Figure("x", "t", "r", "k", 1, least=2, most=3)
    assert [figure.met(value) for value in (1.9, 2, 3, 3.1)] == [False, True, True, False]
    assert Figure("x", "t", "r", "k", 1).met(7) is None
    assert Figure("x", "t", "r", "k", 1, least=0.88, unit="%").wanted == "at least 88"


def test_every_figure_is_computed_and_says_where_it_comes_from(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert lpu.main(["compare", "--published", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert len(rows) == len(FIGURES)
    origins = {row["origin"].partition(" ")[0] for row in rows}
    assert origins == {"emulated", "modelled", "counted", "synthesized"}
    assert all(row["published_source"] for row in rows if row["published"] is not None)
    missed = {(row["target"], row["figure"]) for row in rows if row["met"] is False}
    assert not missed
    found = {(row["target"], row["figure"]): row["value"] for row in rows}
    # The slope again, from the two speeds.
    near = found["flightllm-u280", "decode, 128 of context (fitted)"]
    far = found["flightllm-u280", "decode, 512 of context"]
    clock = load_machine("flightllm-u280").clock_hz
    slope = found["flightllm-u280", "slope, of a token of context"]
    assert slope == pytest.approx(clock * (1 / far - 1 / near) / 384)
    assert near == pytest.approx(1000 / 17.50, rel=1e-3)


def test_a_program_or_published_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert lpu.main(["compare"]) == 2
    assert "give a program file, or --published" in capsys.readouterr().err
    assert lpu.main(["compare", "x.lpu", "--published"]) == 2
    assert "either a program or --published" in capsys.readouterr().err
