"""Figures and pictures of runs whose numbers are known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emulator import report
from emulator.plots import plot_bars, plot_timeline
from emulator.timing import RECORD_END, RECORD_ISSUE, RECORD_TAKEN, RECORD_WAIT_FROM, TimingEngine
from hw.spec.errors import InputError
from hw.spec.instructions import Unit
from tests.emulator.programs import (
    MACHINE,
    MEMORY,
    compiled,
    end_loop,
    load,
    loop,
    mask,
    matrix,
    program,
    sync,
)


def test_every_cycle_of_a_unit_is_counted_once() -> None:
    result = TimingEngine(compiled()).run(3, 3, record=True)
    for use in report.utilisation(result):
        busy = np.zeros(result.cycles, bool)
        waiting = np.zeros(result.cycles, bool)
        for record in result.records[use.unit]:
            busy[record[RECORD_ISSUE] : record[RECORD_END]] = True
            waiting[record[RECORD_WAIT_FROM] : record[RECORD_TAKEN]] = True
        assert use.busy == busy.sum()
        assert use.waiting == (waiting & ~busy).sum()
        assert use.cycles == result.cycles
        assert sum(use.fractions) == pytest.approx(1)
        assert use.idle >= 0


def test_bounds() -> None:
    # 3 rounds of 2 blocks, 5 steps, once of 4 and once of 8 elements a step; 20 words loaded.
    narrow, wide = matrix(2, 5, wait=mask(Unit.LD), format=1), matrix(2, 5)
    code = program(
        LD=[load(20, signal=mask(Unit.MPE))], MPE=[narrow, loop(2, 4), wide, end_loop(2), sync()]
    )
    result = TimingEngine(code).run(1, 1)
    assert report.multiplications(code, 1, 1) == 10 * MACHINE.matrix_rows * (8 + 4 + 4)
    found = report.bounds(code, result, 1, 1)
    assert found.bandwidth_cycles == 20
    assert found.compute_cycles == 20
    assert found.bandwidth_fraction == 20 / result.cycles == found.compute_fraction
    assert found.bound_by == "bandwidth"


def test_a_bus_of_fewer_beats_bounds_more() -> None:
    slow = replace(MACHINE, memory=replace(MEMORY, beat_numerator=2, beat_denominator=3))
    assert report.bandwidth_cycles(slow, 20 * slow.bus_bytes) == 30


def test_a_compiled_model_multiplies_at_least_its_weights() -> None:
    code, prompt, tokens = compiled(), 2, 3
    weights = 2 * (64 * (64 + 32 + 32 + 64) + 3 * 64 * 96)
    steps = prompt + tokens - 1
    found = report.multiplications(code, prompt, tokens)
    # Every step through the layers, the output head behind the prompt only; then padding and attention.
    least = steps * weights + tokens * 160 * 64
    assert least <= found < 1.5 * least
    result = TimingEngine(code).run(prompt, tokens)
    bounds = report.bounds(code, result, prompt, tokens)
    assert 0 < bounds.compute_cycles < bounds.bandwidth_cycles < result.cycles


def test_speed() -> None:
    engine = TimingEngine(compiled())
    prompt, whole = engine.run(3, 1), engine.run(3, 5)
    clock = engine.spec.clock_hz
    found = report.speed(engine.spec, prompt, whole, 5)
    assert found.prompt_seconds == prompt.cycles / clock
    assert found.tokens_per_second == pytest.approx(4 / (found.seconds - found.prompt_seconds))
    assert report.speed(engine.spec, prompt, prompt, 1).tokens_per_second is None


@pytest.mark.parametrize("suffix, magic", [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_pictures(tmp_path: Path, suffix: str, magic: bytes) -> None:
    result = TimingEngine(compiled()).run(2, 2, record=True)
    for name in ("a", "b"):
        plot_timeline(tmp_path / f"{name}.{suffix}", result, 1000, 3000, "two steps")
        plot_bars(
            tmp_path / f"{name}-bars.{suffix}",
            {"tiny": {"bound": 3, "emulator": 4}, "small": {"bound": 2}},
        )
    for stem in ("", "-bars"):
        first, second = ((tmp_path / f"{name}{stem}.{suffix}").read_bytes() for name in "ab")
        assert first.startswith(magic)
        assert first == second


def test_a_picture_needs_its_folder(tmp_path: Path) -> None:
    result = TimingEngine(compiled()).run(1, 1, record=True)
    with pytest.raises(InputError, match="does not exist"):
        plot_timeline(tmp_path / "none" / "a.png", result)
