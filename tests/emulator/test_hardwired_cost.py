"""The cost model against the published tables, by hand, and with bad input."""

import math

import pytest

from emulator.hardwired_cost import (
    CostInputs,
    costs,
    dies_per_wafer,
    list_inputs,
    murphy_yield,
    place,
    weight_um2,
    zero_share,
)
from emulator.hardwired_tables import check_tables, contradictions
from hw.spec.errors import InputError

WEIGHTS = 116_209_704_960
INPUTS = CostInputs()
CHIPS = place(WEIGHTS, weight_um2(INPUTS, WEIGHTS), INPUTS)


def test_every_published_figure_within_two_per_cent() -> None:
    rows = check_tables(CHIPS, INPUTS, 249_097)
    assert len(rows) == 24
    for row in rows:
        assert abs(row["deviation_percent"]) < 2, row
    assert sum(not row["input_from_it"] for row in rows) == 19


def test_a_slower_system_does_fewer_tokens_a_joule() -> None:
    wrong = [row for row in check_tables(CHIPS, INPUTS, 200_000) if row["deviation_percent"] < -2]
    assert [row["what"] for row in wrong] == [
        "16 chips, tokens a kJ",
        "16 chips, tokens a second and mm2",
    ]
    # By hand: 16 chips of 308.39 W and 1.4 W for each watt.
    assert wrong[0]["modelled"] == pytest.approx(200_000 / (16 * 0.30839 * 1.4), rel=1e-4)


def test_sixteen_chips() -> None:
    assert CHIPS.count == 16
    assert CHIPS.chip_mm2 == pytest.approx(827.08)


def test_masks_by_hand() -> None:
    """12 EUV masks of 70 make a set worth 130 DUV masks, ten of which hold the weights."""
    set_cost = 30e6
    duv = set_cost / (12 * 6 + 58)
    found = costs(CHIPS, INPUTS, 1)
    assert found["weight_masks_dollars"] == pytest.approx(16 * 10 * duv)
    assert found["shared_masks_dollars"] == pytest.approx(set_cost - 10 * duv)


def test_yield_and_dies() -> None:
    assert murphy_yield(1e-6, 0.1) == pytest.approx(1, abs=1e-6)
    # The textbook's other form of Murphy's integral.
    faults = 8.2708 * 0.1
    assert murphy_yield(827.08, 0.1) == pytest.approx(
        (2 * math.exp(-faults / 2) * math.sinh(faults / 2) / faults) ** 2
    )
    assert 55 <= dies_per_wafer(827.08) <= 65


def test_more_systems_cost_more_but_less_each() -> None:
    one, ten = (costs(CHIPS, INPUTS, 0, n) for n in (1, 10))
    assert one["static_dollars"] < ten["static_dollars"] < 10 * one["static_dollars"]
    assert one["respin_dollars"] == ten["respin_dollars"]
    assert ten["carbon_kg"] == pytest.approx(10 * one["carbon_kg"])


def test_a_model_of_any_size() -> None:
    um2 = weight_um2(INPUTS, WEIGHTS)
    assert place(1, um2, INPUTS).count == 1
    assert place(WEIGHTS + WEIGHTS // 100, um2, INPUTS).count == 17
    half = place(WEIGHTS // 2, um2, INPUTS)
    assert half.count == 8
    ratio = costs(half, INPUTS, 0)["weight_masks_dollars"] / costs(CHIPS, INPUTS, 0)["weight_masks_dollars"]  # fmt: skip
    assert ratio == pytest.approx(0.5)


def test_inputs_have_sources() -> None:
    for entry in list_inputs(INPUTS):
        assert entry["source"].startswith(("published", "assumed"))
        assert entry["low"] <= entry["high"]


def test_contradictions_are_told() -> None:
    text = " ".join(contradictions(CHIPS, INPUTS))
    assert "90,000 tokens/s against its 249,960" in text
    assert "0.97 to 1.98" in text


def test_zero_weights_need_no_wire() -> None:
    """Blocks of 32 normal weights, largest magnitude between 1.4 and 3 times the scale's 4."""
    assert 0.05 < zero_share() < 0.15


@pytest.mark.parametrize("weights", [0, -1])
def test_no_weights(weights: int) -> None:
    with pytest.raises(InputError, match="weights: expected 1 or more"):
        place(weights, 0.08, INPUTS)


def test_no_systems() -> None:
    with pytest.raises(InputError, match="systems: expected 1 or more, found 0"):
        costs(CHIPS, INPUTS, 0, 0)
