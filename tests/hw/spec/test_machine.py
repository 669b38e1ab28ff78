"""Machines: bundled targets, derived geometry, and the identity that programs carry."""

import dataclasses
import itertools
from pathlib import Path

import pytest
import yaml

from hw.spec.errors import InputError
from hw.spec.machine import MachineSpec, MemorySpec
from hw.spec.machine_file import load_machine, machine_from_dict
from hw.spec.machine_limits import check_machine
from hw.spec.targets import TARGETS, list_targets

MACHINES = [load_machine(name) for name in list_targets()]
each_machine = pytest.mark.parametrize("spec", MACHINES, ids=lambda spec: spec.name)
NOT_IN_HASH = {"name", "clock_hz", "cache_reads"}


@each_machine
def test_a_bundled_target_is_named_as_its_file_and_survives_a_round_trip(spec: MachineSpec) -> None:
    assert (TARGETS / f"{spec.name}.yaml").is_file()
    again = machine_from_dict(spec.to_dict(), "again")
    assert again == spec
    assert again.hash == spec.hash


@pytest.mark.parametrize("element", ["dsp", "shift_add", "multiplier"])
def test_what_multiplies_is_a_choice_of_the_target_file(element: str) -> None:
    content = load_machine("small").to_dict()
    wanted = machine_from_dict(content | {"matrix_element": element}, "t")
    assert wanted.matrix_element == element
    with pytest.raises(InputError, match="t: pe, matrix_element: expected one of them, found both"):
        machine_from_dict(content | {"pe": element}, "t")
    del content["matrix_element"]
    assert machine_from_dict(content | {"pe": element}, "t") == wanted
    with pytest.raises(InputError, match="matrix_element: expected one of multiplier, dsp, shift_"):
        machine_from_dict(content | {"pe": "abacus"}, "t")


@each_machine
def test_geometry(spec: MachineSpec) -> None:
    assert spec.word_bytes == 4 * spec.lanes * spec.word_rows == 2 * spec.matrix_rows
    assert spec.matrix_rows == spec.drain_cycles * spec.drain_lanes
    for bits in (4, 8):
        step_bytes = spec.step_words * spec.word_bytes
        assert spec.step_elements(bits) * spec.matrix_rows * bits == 8 * step_bytes
    # A step of either width takes one cycle: 4 bits need all multipliers, 8 bits half of them.
    assert spec.multipliers == 8 * spec.matrix_rows
    assert spec.granule >= spec.lanes and spec.granule % spec.lanes == 0 and spec.granule >= 8


def test_targets_differ() -> None:
    assert {"tiny", "small"} <= set(list_targets())
    assert len({spec.hash for spec in MACHINES}) == len(MACHINES)
    tiny, small = load_machine("tiny"), load_machine("small")
    for name in ("channels", "bus_bytes", "lanes", "vector_rows", "burst_beats"):
        assert getattr(tiny, name) != getattr(small, name), name


def test_the_hash_is_of_what_hardware_depends_on() -> None:
    spec = load_machine("tiny")
    for field in dataclasses.fields(MachineSpec):
        # What is hardwired counts where something is: test_wires.py.
        if field.name in ("memory", "wired_shapes", "wired_digest"):
            continue
        value = "other" if field.name == "name" else 2 * getattr(spec, field.name) or 4
        other = dataclasses.replace(spec, **{field.name: value})
        assert (other.hash == spec.hash) == (field.name in NOT_IN_HASH), field.name
    for field in dataclasses.fields(MemorySpec):
        memory = dataclasses.replace(
            spec.memory, **{field.name: 2 * getattr(spec.memory, field.name)}
        )
        other = dataclasses.replace(spec, memory=memory)
        assert (other.hash == spec.hash) == (field.name != "words"), field.name
    assert 0 <= spec.hash < 1 << 32


def test_the_hash_is_of_the_encoding_too(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = load_machine("tiny")
    before = spec.hash
    monkeypatch.setattr("hw.spec.machine.ENCODING_VERSION", 99)
    assert spec.hash != before


def test_a_value_may_carry_its_source(tmp_path: Path) -> None:
    content = load_machine("small").to_dict()
    content["clock_hz"] = {"value": 300_000_000, "source": "data sheet, table 5"}
    content["memory"]["read_latency"] = {"value": 44, "source": "measured"}
    content |= {"family": "flight", "description": "mine"}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    spec = load_machine(str(path))
    assert (spec.clock_hz, spec.memory.read_latency) == (300_000_000, 44)
    assert spec.hash == load_machine("small").hash


def test_a_memory_may_carry_a_beat_a_cycle_without_saying_so() -> None:
    content = load_machine("small").to_dict()
    del content["memory"]["beat_numerator"], content["memory"]["beat_denominator"]
    memory = machine_from_dict(content, "here").memory
    assert (memory.beat_numerator, memory.beat_denominator) == (1, 1)


@pytest.mark.parametrize(
    "channels, bus_bytes", list(itertools.product((1, 2, 4, 8, 16, 32), (4, 8, 16, 32, 64, 128)))
)
def test_every_width_is_either_buildable_or_refused(channels: int, bus_bytes: int) -> None:
    spec = dataclasses.replace(load_machine("tiny"), channels=channels, bus_bytes=bus_bytes)
    if 8 <= channels * bus_bytes <= 512:
        assert check_machine(spec, "here") is spec
        return
    with pytest.raises(InputError, match=r"^here: channels \* bus_bytes: expected 8 to 512 bytes"):
        check_machine(spec, "here")


@each_machine
def test_the_refresh_interval_is_just_long_enough(spec: MachineSpec) -> None:
    def with_interval(cycles: int) -> MachineSpec:
        return dataclasses.replace(
            spec, memory=dataclasses.replace(spec.memory, refresh_interval=cycles)
        )

    with pytest.raises(InputError, match="refresh_interval: expected more than") as refusal:
        check_machine(with_interval(1), "here")
    least = int(str(refusal.value).split("more than ")[1].split(",")[0]) + 1
    check_machine(with_interval(least), "here")
    with pytest.raises(InputError, match="refresh_interval"):
        check_machine(with_interval(least - 1), "here")


@pytest.mark.parametrize(
    "formats, sparse, quarters",
    [
        (["INT8", "INT4", "FP4"], 0, 8),
        (["INT8", "INT2"], 0, 4),
        (["INT8", "INT3"], 0, 2),
        (["INT8", "INT4", "INT5"], 0, 1),
        (["INT8", "INT4"], 1, 4),
        (["INT8", "INT3", "INT2"], 1, 2),
    ],
)
def test_steps_begin_at_multiples_of_the_alignment(
    formats: list[str], sparse: int, quarters: int
) -> None:
    spec = dataclasses.replace(load_machine("tiny"), weight_formats=tuple(formats), sparse=sparse)
    assert spec.stream_alignment == quarters
    for step in spec.step_formats:
        # A dense block of k steps ends where the words of its steps, laid end to end, do.
        for steps in range(1, 9):
            end = 4 * step.block_words(steps) if step.kept else steps * step.weight_quarters
            assert end % quarters == 0
