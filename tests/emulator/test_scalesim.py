"""Cycles against SCALE-Sim, a simulator that this project did not write; the difference is a closed form."""

import math
from dataclasses import replace
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from emulator.systolic_gemm import Gemm, whole_tiling
from emulator.systolic_timing import array_cycles
from hw.spec.systolic import SystolicSpec
from hw.spec.systolic_parts import Dataflow
from hw.spec.systolic_target import check_systolic, load_systolic

# Rows, columns, M, K, N: one fold, many, ragged ones, tall and wide arrays; K a multiple of the group.
SHAPES = [
    (4, 4, 4, 32, 4),
    (4, 4, 1, 32, 1),
    (8, 8, 16, 64, 20),
    (8, 4, 3, 96, 5),
    (4, 8, 33, 32, 17),
    (16, 16, 100, 128, 40),
    (2, 16, 7, 64, 50),
    (16, 2, 50, 64, 7),
    (8, 8, 64, 256, 64),
    (5, 7, 31, 160, 29),
    (32, 32, 64, 192, 96),
    (1, 6, 12, 32, 13),
]


@pytest.fixture(scope="module")
def scalesim() -> ModuleType:
    return pytest.importorskip(
        "scalesim", reason="the extra `crosscheck` (SCALE-Sim) is not installed"
    )


def scalesim_cycles(dataflow: str, rows: int, columns: int, m: int, k: int, n: int) -> int:
    """Cycles of SCALE-Sim's array when memory never stalls it: the length of its demand of operands."""
    # By name, because the package is an extra, and its classes say little of the types they take.
    config: Any = import_module("scalesim.scale_config").scale_config()
    config.array_rows, config.array_cols, config.df = rows, columns, dataflow
    config.valid_conf_flag = True
    name = f"systolic_compute_{dataflow}"
    engine: Any = getattr(import_module(f"scalesim.compute.{name}"), name)()
    engine.set_params(
        config_obj=config,
        ifmap_op_mat=np.arange(m * k).reshape(m, k),
        filter_op_mat=10**6 + np.arange(k * n).reshape(k, n),
        ofmap_op_mat=2 * 10**6 + np.arange(m * n).reshape(m, n),
    )
    lengths = {len(demand) for demand in engine.get_demand_matrices()}
    assert len(lengths) == 1
    return lengths.pop()


def array(dataflow: str, rows: int, columns: int) -> SystolicSpec:
    group = 32 if dataflow == "os" else math.lcm(32, rows)
    spec = replace(
        load_systolic("mixpe-tiny"),
        rows=rows,
        columns=columns,
        dataflow=Dataflow(dataflow),
        group_size=group,
        accumulator_rows=1024,
        result_rows=1024,
    )
    return check_systolic(spec, "test")


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, s)))
@pytest.mark.parametrize("dataflow", ["os", "ws"])
def test_the_difference_to_scalesim_is_fill_drain_and_pipeline(
    scalesim: ModuleType, dataflow: str, shape: tuple[int, int, int, int, int]
) -> None:
    """`docs/systolic.md`, "Difference to SCALE-Sim", says where it comes from."""
    r, c, m, k, n = shape
    theirs = scalesim_cycles(dataflow, *shape)
    spec = array(dataflow, r, c)
    gemm = Gemm(m, k, n)
    ours = array_cycles(spec, gemm, whole_tiling(spec, gemm))
    q = spec.output_latency
    if dataflow == "os":
        folds = math.ceil(m / r) * math.ceil(n / c)
        assert theirs == folds * (k + r + c - 2)
        assert ours - theirs == q + r - 1 - folds * (r + c - 2)
    else:
        folds = math.ceil(k / r) * math.ceil(n / c)
        assert theirs == folds * (2 * r + m + c - 2)
        interval = max(m, spec.load_interval)
        expected = r + (folds - 1) * interval + m + q - folds * (2 * r + m + c - 2)
        assert ours - theirs == expected
