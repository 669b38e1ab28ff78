"""Runs the benches of packed pairs of products: all multipliers, and every pair of INT8 products."""

from sim_tests.bench import run_bench
from sim_tests.dsp_tops import Column, LaneSweep

# Weights of the high and the low lane and the shared activation: full INT8, without -128, INT4 with INT8.
WORST = [
    (-128, -128, -128),
    (127, -128, -128),
    (-127, -127, -128),
    (127, -127, -128),
    (-8, -8, -128),
]


def test_columns() -> None:
    result = run_bench(
        "pair_mac",
        Column,
        "sim_tests.bench_pair_mac",
        parameters={"worst": WORST},
        only="chain|col",
    )
    assert result.tests == 3


def test_every_pair() -> None:
    result = run_bench("lane_sweep", LaneSweep, "sim_tests.bench_pair_mac", only="every_pair")
    assert result.tests == 1
