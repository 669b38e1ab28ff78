"""Runs the bench of the stream ring, whose pairs of words begin with even words or with any."""

import pytest

from hw.core.buffers import VERILOG, StreamRing
from sim_tests.bench import run_bench, to_verilog


@pytest.mark.parametrize("paired", [True, False], ids=["pairs", "words"])
def test_stream_ring(paired: bool) -> None:
    depth, width = 16, 40
    result = run_bench(
        f"stream_ring_{paired}",
        to_verilog(StreamRing(depth, width, paired)) + VERILOG.read_text(encoding="utf-8"),
        "sim_tests.bench_stream_ring",
        parameters={"depth": depth, "width": width, "paired": paired},
    )
    assert result.tests == 1
