"""Packing of words, against Amaranth's own constants of the same layouts."""

import random

import numpy as np
import pytest
from amaranth.hdl import signed
from amaranth.lib import data

from sim_tests.bench import layout_fields
from sim_tests.packing import layout_width, pack, pack_lanes, unpack, unpack_lanes

LAYOUT = data.StructLayout({"a": signed(5), "b": 1, "wide": 70, "c": signed(1)})


def test_words_are_those_of_amaranth() -> None:
    rng = random.Random(1)
    fields = layout_fields(LAYOUT)
    assert layout_width(fields) == LAYOUT.size
    for _ in range(200):
        values = {
            "a": rng.randint(-16, 15),
            "b": rng.getrandbits(1),
            "wide": rng.getrandbits(70),
            "c": -rng.getrandbits(1),
        }
        word = pack(fields, values)
        assert word == LAYOUT.const({**values}).as_bits()
        assert unpack(fields, word) == values


@pytest.mark.parametrize(
    "values",
    [{"x": 16}, {"x": -17}, {}, {"x": 0, "y": 0}],
    ids=["high", "low", "missing", "unknown"],
)
def test_what_does_not_fit_is_refused(values: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        pack([("x", 5, True)], values)


@pytest.mark.parametrize("width", [1, 4, 5, 8, 16, 32, 64])
@pytest.mark.parametrize("is_signed", [False, True])
def test_lanes_are_those_of_amaranth(width: int, is_signed: bool) -> None:
    rng = random.Random(width)
    low = -(1 << width - 1) if is_signed else 0
    lanes = [rng.randint(low, low + (1 << width) - 1) for _ in range(7)]
    lanes[:2] = [low, low + (1 << width) - 1]
    shape = data.ArrayLayout(signed(width) if is_signed else width, 7)
    word = pack_lanes(lanes, width)
    assert word == shape.const(lanes).as_bits()
    assert unpack_lanes(word, width, 7, signed=is_signed) == lanes
    if is_signed:
        assert pack_lanes(np.array(lanes, dtype=np.int64), width) == word


@pytest.mark.parametrize("width, value", [(8, 256), (8, -129), (5, 32), (5, -17), (64, 1 << 64)])
def test_a_lane_that_does_not_fit_is_refused(width: int, value: int) -> None:
    with pytest.raises((ValueError, OverflowError)):
        pack_lanes([0, value], width)
