"""Target files that cannot be, and names of nothing."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from hw.spec.machine import MemorySpec
from hw.spec.machine_file import load_machine
from tests.bad_input.arguments import Refuse, compile_with, write_target

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
