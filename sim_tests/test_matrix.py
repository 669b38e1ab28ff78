"""Runs the matrix engine bench on the shapes of both test machines."""

from dataclasses import replace

import pytest

from hw.core.matrix import MatrixEngine
from hw.spec.machine import MachineSpec, load_machine
from sim_tests.bench import run_bench

# Shallow buffers, so that every pointer wraps.
SHALLOW = {"stream_words": 512, "scale_words": 128, "result_rows": 512, "activation_rows": 64}
MACHINES = {
    "tiny": replace(load_machine("tiny"), **SHALLOW),
    "small": replace(load_machine("small"), **SHALLOW),
    # A drain as wide as a row of results, and one of a quarter of it.
    "wide_drain": replace(load_machine("tiny"), drain_lanes=2, **SHALLOW),
    "narrow_drain": replace(load_machine("tiny"), channels=2, drain_lanes=1, **SHALLOW),
}
EXHAUSTIVE = ["small"]


@pytest.mark.parametrize("spec", list(MACHINES.values()), ids=list(MACHINES))
def test_matrix(spec: MachineSpec, request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.id
    stride = 1 if name in EXHAUSTIVE else 8
    parameters = {"machine": spec.to_dict(), "stride": stride}
    result = run_bench(
        f"matrix_{name}",
        lambda: MatrixEngine(spec),
        "sim_tests.bench_matrix",
        parameters=parameters,
    )
    assert result.tests == 21
