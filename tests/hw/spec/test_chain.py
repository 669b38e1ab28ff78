"""Geometry of the sparse chain: where lanes are adjusted, and the latencies that follow."""

import pytest

from hw.spec.chain import KEPT, ChainSpec
from hw.spec.dsp import LANE_BITS, PAIR_LATENCY, bits_to_keep, safe_depth


@pytest.mark.parametrize("group", [2, 4])
@pytest.mark.parametrize("weight", [1, 8, 12, 16, 127, 128])
@pytest.mark.parametrize("activation", [8, 127, 128])
def test_no_lane_overflows(group: int, weight: int, activation: int) -> None:
    """The largest sum of either sign stays in the lane at every cell, whatever was kept before."""
    spec = ChainSpec(group=group, weight_magnitude=weight, activation_magnitude=activation)
    low = high = 0
    for cell in range(spec.cells):
        if cell in spec.adjusted_cells:
            low, high = 0, (1 << spec.kept_bits) - 1
        high += weight * activation
        low -= weight * activation
        assert -(1 << LANE_BITS - 1) <= low and high < 1 << LANE_BITS - 1


def test_adjusted_only_where_needed() -> None:
    assert ChainSpec().adjusted_cells == (6, 12)
    assert ChainSpec(weight_magnitude=127).adjusted_cells == (8,)
    assert ChainSpec(weight_magnitude=8).adjusted_cells == ()
    assert ChainSpec(weight_magnitude=12).adjusted_cells == ()


def test_group_boundaries_take_longer_where_a_word_goes_through_fabric() -> None:
    spec = ChainSpec(adjust_registers=3)
    hops = [b - a for a, b in zip(spec.skew, spec.skew[1:], strict=False)]
    assert [cell + 1 for cell, hop in enumerate(hops) if hop == 4] == [6, 12]
    assert [hop for hop in hops if hop != 4] == [1] * 13
    assert spec.node_times[0] == spec.skew[1] + PAIR_LATENCY
    assert spec.latency == 1 + spec.skew[-1] + PAIR_LATENCY + 1


@pytest.mark.parametrize("kept", KEPT[1:])
def test_outputs_end_behind_their_cells(kept: int) -> None:
    ends = ChainSpec().ends(kept)
    assert [(end + 1) * 2 for end in ends] == list(range(kept, 17, kept))
    assert ChainSpec().ends(0) == ()


def test_safe_depth_is_the_published_one() -> None:
    """Seven INT8 products; eight where an operand excludes -128; 127 of INT4 and INT8."""
    assert [safe_depth(p) for p in (128 * 128, 127 * 128, 127 * 127, 8 * 128)] == [7, 8, 8, 127]
    assert [bits_to_keep(128 * 128, n) for n in (6, 7)] == [15, 14]
    assert bits_to_keep(127 * 128, 8) == 10
    with pytest.raises(ValueError, match="cannot take 8 products"):
        bits_to_keep(128 * 128, 8)


@pytest.mark.parametrize(
    "fields, complaint",
    [
        ({"cells": 12}, "cells must be one of"),
        ({"group": 16, "cells": 8}, "group must be one of"),
        ({"group": 8}, "a group of 8 may overflow"),
        ({"weight_magnitude": 129}, "weight_magnitude must be"),
        ({"adjust_registers": 0}, "adjust_registers must be"),
        ({"tag_bits": 0}, "tag_bits must be"),
    ],
)
def test_impossible_chains_are_refused(fields: dict[str, int], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        ChainSpec(**fields)  # pyright: ignore[reportArgumentType] wrong on purpose
