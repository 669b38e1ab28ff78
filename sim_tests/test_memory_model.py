"""Runs the bench of the memory model, for two widths of the bus."""

import pytest

from hw.core.memory_model import MemoryModel
from sim_tests.bench import run_bench
from sim_tests.memory_system import system_verilog


@pytest.mark.parametrize("bus_bytes, burst_beats", [(8, 16), (16, 32)])
def test_memory_model(bus_bytes: int, burst_beats: int) -> None:
    words = 1024
    result = run_bench(
        "memory_model",
        system_verilog(MemoryModel(words, bus_bytes)),
        "sim_tests.bench_memory_model",
        parameters={
            "words": words,
            "bus_bytes": bus_bytes,
            "burst_beats": burst_beats,
            "rounds": 12,
            "cycles": 4000,
        },
    )
    assert result.tests == 3
