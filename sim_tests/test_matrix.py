"""Runs the matrix engine bench on machines that between them have every feature, alone and with the others."""

from dataclasses import replace

import pytest

from hw.core.matrix import MatrixEngine
from hw.spec.machine import MachineSpec
from hw.spec.machine_file import load_machine
from hw.spec.machine_limits import check_machine
from hw.spec.weight_format import WeightFormat
from hw.spec.wires import Wires
from hw.verilog import convert
from hw.wires_verilog import wires_verilog
from sim_tests.bench import run_bench
from sim_tests.wired_example import with_wires

# Shallow buffers, so that every pointer wraps.
SHALLOW = {"stream_words": 512, "scale_words": 128, "result_rows": 512}
FORMATS = tuple(weight.name for weight in WeightFormat)


def _machine(name: str, channels: int, **fields: object) -> MachineSpec:
    spec = replace(load_machine("tiny"), name=name, channels=channels, **SHALLOW, **fields)
    return check_machine(spec, name)


MACHINES = [
    _machine("plain", 2, drain_lanes=4, activation_rows=64),
    _machine(
        "everything",
        2,
        drain_lanes=1,
        activation_rows=256,
        vector_lanes=2,
        weight_formats=FORMATS,
        sparse=1,
        matrix_columns=2,
        rows_per_scaler=4,
    ),
    # Steps begin at halves of a word; every output leaves in the cycle of its own pass.
    _machine(
        "halves",
        1,
        drain_lanes=2,
        activation_rows=64,
        weight_formats=("INT8", "INT3", "FP4"),
        matrix_columns=2,
    ),
]
MORE = [
    _machine("adders", 2, drain_lanes=4, activation_rows=64, matrix_element="shift_add"),
    _machine("slices", 1, drain_lanes=2, activation_rows=64, matrix_element="dsp"),
    _machine(
        "slices_logic",
        1,
        drain_lanes=2,
        activation_rows=64,
        matrix_element="dsp",
        logic_slots=1,
        logic_rows=2,
    ),
    _machine(
        "slices_columns",
        1,
        drain_lanes=2,
        activation_rows=64,
        matrix_columns=2,
        matrix_element="dsp",
        logic_slots=2,
        weight_formats=("INT8", "INT5", "FP4"),
    ),
    _machine(
        "slices_sparse", 1, drain_lanes=2, activation_rows=512, sparse=1, matrix_element="dsp"
    ),
    _machine("small", 4, drain_lanes=4, activation_rows=64),
    _machine("narrow_drain", 2, drain_lanes=1, activation_rows=64, rows_per_scaler=8),
    _machine(
        "sparse",
        1,
        drain_lanes=2,
        activation_rows=512,
        weight_formats=("INT8", "INT4", "INT2"),
        sparse=1,
        rows_per_scaler=2,
    ),
    _machine(
        "columns",
        4,
        drain_lanes=8,
        activation_rows=64,
        weight_formats=FORMATS,
        matrix_columns=2,
    ),
]
EXHAUSTIVE = ["plain"]
TESTS = 21
WIRED = _machine("wired", 1, drain_lanes=2, activation_rows=64)
WIRED_SHARED = _machine(
    "wired_shared",
    1,
    drain_lanes=1,
    activation_rows=256,
    weight_formats=("INT8", "INT3", "FP4"),
    sparse=1,
    matrix_columns=2,
    rows_per_scaler=4,
    matrix_element="dsp",
    logic_slots=3,
)


def _run(spec: MachineSpec, wires: Wires | None = None, networks: str = "counts") -> None:
    parameters = {"machine": spec.to_dict(), "stride": 1 if spec.name in EXHAUSTIVE else 16}
    verilog = ""
    if wires is not None:
        verilog = convert(MatrixEngine(spec, wires=wires), "top")
        verilog += wires_verilog(spec, wires, networks)
    result = run_bench(
        f"matrix_{spec.name}",
        verilog or (lambda: MatrixEngine(spec)),
        "sim_tests.bench_matrix",
        parameters=parameters,
    )
    assert result.tests == TESTS


@pytest.mark.parametrize("spec", MACHINES, ids=lambda spec: spec.name)
def test_matrix(spec: MachineSpec) -> None:
    _run(spec)


@pytest.mark.slow
@pytest.mark.parametrize("spec", MORE, ids=lambda spec: spec.name)
def test_matrix_in_other_shapes(spec: MachineSpec) -> None:
    _run(spec)


@pytest.mark.parametrize(
    "machine, bits",
    [(WIRED, 1), (WIRED_SHARED, 2)],
    ids=lambda value: getattr(value, "name", value),
)
def test_matrix_with_wires(machine: MachineSpec, bits: int) -> None:
    _run(*with_wires(machine, bits))


@pytest.mark.slow
@pytest.mark.parametrize(
    "bits, networks", [(1, "cells"), (1, "base"), (2, "base"), (4, "cells"), (4, "counts")]
)
def test_other_networks(bits: int, networks: str) -> None:
    """Neurons cell by cell, or programmed by metal, are those written as sums."""
    _run(*with_wires(WIRED, bits), networks)
