"""Runs the bench of the systolic array: sizes, dataflows, dequantizations, elements."""

from typing import Any

import pytest

from hw.pe.array import SystolicArray
from hw.spec.element_family import ELEMENTS
from hw.spec.systolic import SystolicSpec
from hw.spec.systolic_target import systolic_from_dict
from sim_tests.bench import run_bench

# Shapes M, K, N: smaller than a tile, exactly one, and ragged at every edge; one group, several, a short one.
SHAPES = [(1, 1, 1), (2, 9, 3), (5, 23, 7), (3, 36, 2), (8, 12, 9), (1, 40, 5), (7, 5, 4)]


def array(**fields: Any) -> dict[str, Any]:
    """Fields of an array for tests; `result_rows` is the least that is allowed."""
    content: dict[str, Any] = {
        "name": "test",
        "clock_hz": 1,
        "rows": 4,
        "columns": 3,
        "dataflow": "os",
        "element": "mixpe-a8",
        "group_size": 12,
        "dequantization": "integer",
        "accumulator_rows": 32,
        "result_rows": 1 << 16,
        "weight_buffer_bytes": 4096,
        "activation_buffer_bytes": 4096,
        "memory": {"bytes_numerator": 8, "bytes_denominator": 1, "latency": 20},
    } | fields
    if content["dequantization"] == "none":
        content["accumulator_rows"] = 0
    spec = spec_of(content)
    return content | {"result_rows": spec.least_result_rows}


def spec_of(content: dict[str, Any]) -> SystolicSpec:
    return systolic_from_dict({"family": "mixpe"} | content, "test")


ARRAYS: dict[str, dict[str, Any]] = {
    "os_integer": array(),
    "os_float32": array(rows=3, columns=5, dequantization="float32"),
    "os_channel": array(rows=2, columns=2, dequantization="channel"),
    "os_none": array(element="int8", dequantization="none", group_size=64),
    "os_one_element": array(rows=1, columns=1, group_size=6, dequantization="float32"),
    # As many rows as a group is long: the drain never pauses, and scales wait for many columns.
    "os_tight": array(rows=6, columns=9, group_size=6, accumulator_rows=36),
    "os_shared": array(columns=6, columns_per_unit=2, group_size=9),
    # Units that never pause, and elements that lose zero points at the edge.
    "os_shared_tight": array(
        element="mixpe-a8-edge",
        rows=3,
        columns=4,
        columns_per_unit=4,
        group_size=12,
        dequantization="channel",
    ),
    "os_shared_float32": array(
        rows=3, columns=8, columns_per_unit=4, dequantization="float32", accumulator_rows=10
    ),
    "os_shared_one_row": array(rows=1, columns=4, columns_per_unit=2, group_size=7),
    "ws_integer": array(dataflow="ws"),
    "ws_float32": array(dataflow="ws", dequantization="float32", columns=6, accumulator_rows=16),
    "ws_channel": array(dataflow="ws", rows=3, columns=8, dequantization="channel"),
    "ws_one_row": array(dataflow="ws", rows=1, columns=2, group_size=5),
    "os_row_sums": array(element="mixpe-a8-unsigned", rows=3, columns=4),
    "os_edge": array(element="mixpe-a8-edge", rows=3, columns=2, dequantization="channel"),
    "os_a16": array(element="mixpe-a16", rows=2, columns=3, dequantization="float32"),
    "os_fp16": array(element="fp16", rows=2, columns=2, dequantization="none", group_size=64),
    "os_control": array(element="dequant-int8", rows=2, columns=2),
    "ws_row_sums": array(element="mixpe-a8-unsigned", dataflow="ws", dequantization="float32"),
    "ws_edge": array(element="mixpe-a8-edge", dataflow="ws", rows=3, columns=4),
}


def gemms(spec: SystolicSpec) -> list[dict[str, Any]]:
    """The shapes as they are, and one in blocks that cut K and use all slots."""
    limit = spec.group_size if not spec.dequantizes else 1 << 20
    chosen: list[dict[str, Any]] = [{"shape": s} for s in SHAPES if s[1] <= limit]
    if not spec.dequantizes:
        # Pieces of K that are no groups: sums stay where they are between them.
        return [*chosen, {"shape": (5, 30, 7), "blocks": (spec.rows, 7, spec.columns, True)}]
    rows = spec.rows if spec.output_stationary else 5
    columns = spec.columns * (2 if spec.accumulator_rows >= 2 * rows else 1)
    shape = (2 * rows + 1, 2 * spec.group_size + 3, 2 * columns + 1)
    for order in (True, False):
        chosen.append({"shape": shape, "blocks": (rows, spec.group_size, columns, order)})
    return chosen


# Simulated with the slow tests: what the others cover but for their corner.
SLOW = {"os_shared_one_row", "os_one_element", "ws_one_row", "os_fp16", "os_control", "ws_edge"}
NAMES = [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in ARRAYS]


@pytest.mark.parametrize("name", NAMES)
def test_systolic(name: str) -> None:
    content = ARRAYS[name]
    spec = spec_of(content)
    result = run_bench(
        f"systolic_{name}",
        lambda: SystolicArray(spec),
        "sim_tests.bench_systolic",
        parameters={"array": content, "gemms": gemms(spec)},
    )
    assert result.tests == 8


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ELEMENTS))
def test_every_element_in_an_array(name: str) -> None:
    element = ELEMENTS[name]
    kind = "float32" if element.fp32 else "integer"
    content = array(element=name, rows=2, columns=3, dequantization=kind)
    spec = spec_of(content)
    result = run_bench(
        "systolic_element",
        lambda: SystolicArray(spec),
        "sim_tests.bench_systolic",
        parameters={"array": content, "gemms": gemms(spec)},
        only="every_product_is_right|stalls_lose_nothing",
    )
    assert result.tests == 5
