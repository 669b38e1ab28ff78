"""The board of a target file, and what of a target was fitted."""

from pathlib import Path
from typing import Any

import pytest

from hw.spec.board import KINDS, board_from_dict, load_board, load_fitted
from hw.spec.errors import InputError
from hw.spec.targets import list_targets, read_target

GOOD = {
    "part": "x",
    **dict.fromkeys(KINDS, 7),
    "memory_bytes": {"value": 1 << 30, "source": "a data sheet"},
    "memory_bytes_per_second": 10**9,
}


def test_values_with_and_without_a_source() -> None:
    board = board_from_dict(GOOD, "x.yaml: board")
    assert board.resources() == dict.fromkeys(KINDS, 7)
    assert (board.memory_bytes, board.memory_bytes_per_second) == (1 << 30, 10**9)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"dsp": -1}, "x.yaml: board: dsp: expected a whole number, found '?-1"),
        ({"dsp": True}, "dsp: expected a whole number"),
        ({"lut": {"value": 3}}, "lut: expected value and source"),
        ({"gates": 3}, "gates: unknown field"),
        ({"part": 280}, "part: expected a name"),
        ({"family": "ice40"}, "family: expected one of xcup, ecp5, found ice40"),
    ],
)
def test_wrong_fields_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        board_from_dict(GOOD | change, "x.yaml: board")


def test_a_missing_field_and_no_mapping() -> None:
    with pytest.raises(InputError, match="uram: missing"):
        board_from_dict({k: v for k, v in GOOD.items() if k != "uram"}, "x.yaml: board")
    with pytest.raises(InputError, match="a mapping of fields, found a list"):
        board_from_dict([1], "x.yaml: board")


def test_every_value_of_a_bundled_board_has_a_source() -> None:
    boards = {name: load_board(name) for name in list_targets()}
    assert boards["u280"] is not None
    assert boards["tiny"] is None
    for name, board in boards.items():
        content = read_target(name)[0]
        assert isinstance(content, dict)
        if board is not None:
            named = {"part", "family"}
            assert all(
                field["source"] for key, field in content["board"].items() if key not in named
            )


def test_fitted_fields_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("name: a\nfitted: {memory.beat_numerator: to 17.5 ms a token}\n")
    assert load_fitted(str(path)) == {"memory.beat_numerator": "to 17.5 ms a token"}
    assert load_fitted("tiny") == {}
    path.write_text("name: a\nfitted: [memory]\n")
    with pytest.raises(InputError, match="fitted: expected a mapping"):
        load_fitted(str(path))
