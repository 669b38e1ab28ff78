"""Specifications of systolic arrays: what is accepted, what is refused, and when an array never stalls."""

from dataclasses import replace
from typing import Any

import pytest

from hw.spec.errors import InputError
from hw.spec.machine_file import load_machine
from hw.spec.systolic_parts import Dataflow, Dequantization
from hw.spec.systolic_target import FAMILY, check_systolic, load_systolic, systolic_from_dict
from hw.spec.targets import list_targets

TINY = load_systolic("mixpe-tiny")


def content(**fields: Any) -> dict[str, Any]:
    return {"family": FAMILY} | TINY.to_dict() | fields


@pytest.mark.parametrize("name", list_targets(FAMILY))
def test_every_bundled_array_is_whole(name: str) -> None:
    spec = load_systolic(name)
    assert spec.name == name
    assert systolic_from_dict({"family": FAMILY} | spec.to_dict(), name) == spec
    assert spec.slots >= 1
    with pytest.raises(InputError, match=r"\.yaml: family: expected 'flight', found mixpe$"):
        load_machine(name)


def test_a_target_of_another_family_is_refused() -> None:
    with pytest.raises(InputError, match=r"tiny\.yaml: family: expected 'mixpe', found flight$"):
        load_systolic("tiny")
    with pytest.raises(InputError, match="no such target"):
        load_systolic("mixpe-none")


def test_a_value_may_have_a_source() -> None:
    spec = systolic_from_dict(content(rows={"value": 4, "source": "a choice"}), "x")
    assert spec.rows == 4


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"rows": 0}, "rows: expected a whole number from 1 to 1024, found 0"),
        ({"columns": 1025}, "columns: expected a whole number"),
        ({"rows": "many"}, "rows: expected a whole number, found many"),
        ({"rows": True}, "rows: expected a whole number"),
        ({"rows": {"value": 4}}, "rows: expected value and source"),
        ({"dataflow": "is"}, "dataflow: expected os or ws, found is"),
        ({"dataflow": ["os"]}, "dataflow: expected os or ws, found a list"),
        ({"element": "abacus"}, "element: expected one of int8"),
        ({"dequantization": "later"}, "dequantization: expected none, float32, integer or channel"),
        ({"group_size": 7}, "group_size: expected at least 8, or every group would stall"),
        ({"group_size": 512}, "group_size: expected at most 511, what 20 bits of mixpe-a8 hold"),
        ({"accumulator_rows": 7}, "accumulator_rows: expected at least 8"),
        ({"dequantization": "none"}, "accumulator_rows: expected 0 without dequantization"),
        ({"columns_per_unit": 3}, "columns_per_unit: expected a power of two that divides"),
        ({"columns_per_unit": 128}, "columns_per_unit: expected a whole number from 1 to 64"),
        ({"columns_per_unit": 2, "dataflow": "ws"}, "columns_per_unit: expected 1 (ws"),
        (
            {"columns_per_unit": 2, "element": "mixpe-a8-unsigned"},
            "columns_per_unit: expected 1 with the row sums of mixpe-a8-unsigned",
        ),
        ({"result_rows": 20}, "result_rows: expected at least"),
        ({"dataflow": "ws", "group_size": 36}, "group_size: expected a multiple of the 8 rows"),
        (
            {"dataflow": "ws", "dequantization": "float32", "rows": 2},
            "rows: expected more, or passes of 6 cycles an addition would stall",
        ),
        (
            {"dataflow": "ws", "dequantization": "none", "accumulator_rows": 0},
            "dequantization: expected another than none",
        ),
        ({"memory": {"latency": 3}}, "memory: bytes_numerator: missing"),
        ({"memory": 3}, "memory: expected a mapping of fields"),
        ({"pipeline": 3}, "pipeline: unknown field"),
    ],
)
def test_what_cannot_be_built_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        systolic_from_dict(content(**fields), "x.yaml")
    assert message in str(error.value)
    assert str(error.value).startswith("x.yaml: ")


def test_a_missing_field_is_named() -> None:
    fields = content()
    del fields["group_size"]
    with pytest.raises(InputError, match=r"x\.yaml: group_size: missing, expected a whole number"):
        systolic_from_dict(fields, "x.yaml")


@pytest.mark.parametrize("rows", [1, 3, 6, 7, 64])
@pytest.mark.parametrize("kind", list(Dequantization))
def test_a_group_hides_its_drain_or_is_refused(rows: int, kind: Dequantization) -> None:
    """One column unit takes `rows` cycles a group, and an addition takes `accumulate_interval`."""
    needed = {"float32": 6, "integer": 2, "channel": 2, "none": 1}[kind.value]
    sums = 0 if kind is Dequantization.NONE else 64
    spec = replace(TINY, rows=rows, dequantization=kind, accumulator_rows=sums, result_rows=1000)
    least = max(rows, needed)
    check_systolic(replace(spec, group_size=least), "x")
    if least > 1:
        with pytest.raises(InputError, match="group_size"):
            check_systolic(replace(spec, group_size=least - 1), "x")


def test_the_least_result_buffer_holds_a_tile_and_what_is_under_way() -> None:
    assert TINY.least_result_rows == TINY.rows + TINY.output_latency + 1
    stationary = replace(TINY, dataflow=Dataflow.WEIGHT_STATIONARY)
    assert stationary.least_result_rows == stationary.output_latency + 2
