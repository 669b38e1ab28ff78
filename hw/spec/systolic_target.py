"""Target files of systolic arrays: reading them, and refusing what cannot be built or would stall."""

from dataclasses import MISSING, fields
from enum import Enum
from typing import Any, NoReturn

from hw.spec.errors import InputError
from hw.spec.processing_element import Operand, ProcessingElementSpec
from hw.spec.systolic import SystolicSpec
from hw.spec.systolic_parts import Dataflow, Dequantization, OffChipSpec
from hw.spec.targets import plain_value, read_target, require_family, shown

__all__ = ["FAMILY", "check_systolic", "load_systolic", "systolic_from_dict"]

FAMILY = "mixpe"
LARGEST_SIDE = 1024

_INTEGER_RANGE = {
    Operand.INT4: (-8, 7),
    Operand.UINT4: (0, 15),
    Operand.INT5: (-16, 15),
    Operand.INT8: (-128, 127),
    # As twice its value.
    Operand.E2M1: (-12, 12),
    Operand.INT12: (-2048, 2047),
    Operand.INT14: (-8192, 8191),
    Operand.INT24: (-(1 << 23), (1 << 23) - 1),
}


_WHOLE = {
    "clock_hz": (1, 10**11),
    "rows": (1, LARGEST_SIDE),
    "columns": (1, LARGEST_SIDE),
    "group_size": (1, 1 << 20),
    "accumulator_rows": (0, 1 << 16),
    "columns_per_unit": (1, 64),
    "result_rows": (1, 1 << 16),
    "weight_buffer_bytes": (1, 1 << 40),
    "activation_buffer_bytes": (1, 1 << 40),
    "memory.bytes_numerator": (1, 1 << 32),
    "memory.bytes_denominator": (1, 1 << 32),
    "memory.latency": (0, 1 << 20),
}


def check_systolic(spec: SystolicSpec, where: str) -> SystolicSpec:
    """Return `spec` if it can be built and never stalls by itself; otherwise raise `InputError`."""

    def fail(field: str, expected: str, found: object) -> NoReturn:
        raise InputError(f"{where}: {field}: expected {expected}, found {shown(found)}")

    for field, (least, most) in _WHOLE.items():
        owner = spec.memory if field.startswith("memory.") else spec
        value = getattr(owner, field.removeprefix("memory."))
        if not least <= value <= most:
            fail(field, f"a whole number from {least} to {most}", value)
    try:
        element = spec.processing_element
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    _check_element(spec, element, fail)
    if spec.dequantizes:
        held = spec.rows if spec.output_stationary else 1
        if spec.accumulator_rows < held:
            fail("accumulator_rows", f"at least {held}", spec.accumulator_rows)
    elif spec.accumulator_rows:
        fail("accumulator_rows", "0 without dequantization", spec.accumulator_rows)
    if spec.columns_per_unit > 1:
        _check_shared(spec, fail)
    if spec.output_stationary:
        if spec.group_size < spec.drain_interval:
            reason = f"{spec.rows} rows, {spec.accumulate_interval} cycles an addition"
            if spec.columns_per_unit > 1:
                reason = f"{spec.columns_per_unit} columns of {reason}"
            fail(
                "group_size",
                f"at least {spec.drain_interval}, or every group would stall ({reason})",
                spec.group_size,
            )
    else:
        if spec.group_size % spec.rows:
            fail("group_size", f"a multiple of the {spec.rows} rows (ws)", spec.group_size)
        if spec.load_interval < spec.accumulate_interval:
            cycles = spec.accumulate_interval
            fail("rows", f"more, or passes of {cycles} cycles an addition would stall", spec.rows)
    if spec.result_rows < spec.least_result_rows:
        fail("result_rows", f"at least {spec.least_result_rows}", spec.result_rows)
    return spec


def _check_shared(spec: SystolicSpec, fail: Any) -> None:
    shared = spec.columns_per_unit
    if not spec.output_stationary or not spec.dequantizes:
        fail("columns_per_unit", "1 (ws, or without dequantization)", shared)
    if spec.row_sums:
        fail("columns_per_unit", f"1 with the row sums of {spec.element}", shared)
    if spec.columns % shared or shared & (shared - 1):
        fail("columns_per_unit", f"a power of two that divides the {spec.columns} columns", shared)


def _check_element(spec: SystolicSpec, element: ProcessingElementSpec, fail: Any) -> None:
    integer_only = (Dequantization.INTEGER, Dequantization.CHANNEL)
    if element.fp32 and spec.dequantization in integer_only:
        fail("dequantization", f"none or float32 with {element.name}", spec.dequantization.value)
    if not spec.output_stationary:
        if element.fp32:
            fail("element", "an integer sum (ws)", element.name)
        if not spec.dequantizes:
            fail("dequantization", "another than none (ws)", spec.dequantization.value)
    zeros = spec.row_sums or spec.edge_zeros
    if zeros and not spec.dequantizes:
        fail("dequantization", f"another than none with {element.name}", "none")
    ranges = _INTEGER_RANGE.get(element.weight), _INTEGER_RANGE.get(element.activation)
    if zeros and (ranges[0] is None or ranges[1] is None):
        fail("element", "integer operands with zero points", element.name)
    # How much an element with operands that share its ports can add is not known here.
    if ranges[0] and ranges[1] and element.control_bits == 0:
        largest = max(abs(w * a) for w in ranges[0] for a in ranges[1])
        depth = ((1 << element.accumulator_bits - 1) - 1) // largest
        if spec.group_size > depth:
            fail(
                "group_size",
                f"at most {depth}, what {element.accumulator_bits} bits of {element.name} hold",
                spec.group_size,
            )


def systolic_from_dict(content: object, where: str) -> SystolicSpec:
    """Build and check a `SystolicSpec` from the content of a target file.

    A value may be a plain value or a mapping with `value` and `source` (what the figure rests on).
    """
    values = _plain_fields(require_family(content, FAMILY, where), SystolicSpec, where)
    memory = _plain_fields(values["memory"], OffChipSpec, f"{where}: memory")
    values["memory"] = OffChipSpec(**memory)
    return check_systolic(SystolicSpec(**values), where)


_KINDS: dict[str, tuple[type, str]] = {
    "name": (str, "a name"),
    "element": (str, "the name of a processing element"),
    "dataflow": (str, "os or ws"),
    "dequantization": (str, "none, float32, integer or channel"),
    "memory": (dict, "a mapping of fields"),
}
_CHOICES: dict[str, type[Enum]] = {"dataflow": Dataflow, "dequantization": Dequantization}


def _plain_fields(content: object, kind: type, where: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise InputError(f"{where}: expected a mapping of fields, found {shown(content)}")
    known = [field.name for field in fields(kind)]
    values: dict[str, Any] = {}
    for name, value in content.items():
        if kind is SystolicSpec and name in ("family", "description"):
            continue
        if name not in known:
            raise InputError(f"{where}: {shown(name)}: unknown field (known: {', '.join(known)})")
        if name != "memory":
            value = plain_value(value, f"{where}: {name}")
        wanted, expected = _KINDS.get(name, (int, "a whole number"))
        choices = _CHOICES.get(name)
        known_choice = choices is None or value in [choice.value for choice in choices]
        if not isinstance(value, wanted) or isinstance(value, bool) or not known_choice:
            raise InputError(f"{where}: {name}: expected {expected}, found {shown(value)}")
        values[name] = choices(value) if choices else value
    optional = {field.name for field in fields(kind) if field.default is not MISSING}
    for name in known:
        if name not in values and name not in optional:
            expected = _KINDS.get(name, (int, "a whole number"))[1]
            raise InputError(f"{where}: {name}: missing, expected {expected}")
    return values


def load_systolic(name_or_path: str) -> SystolicSpec:
    """Read a bundled target of this family by name, or a target file by path."""
    content, path = read_target(name_or_path)
    return systolic_from_dict(content, str(path))
