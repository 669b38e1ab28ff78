"""Target files of flight processors: YAML, a value in it perhaps with its source."""

from dataclasses import MISSING, fields
from typing import Any

from hw.spec.errors import InputError
from hw.spec.machine import MachineSpec, MemorySpec
from hw.spec.machine_limits import check_machine
from hw.spec.targets import plain_value, read_target, require_family, shown

__all__ = ["load_machine", "machine_from_dict"]

_KINDS: dict[str, tuple[type, str]] = {
    "name": (str, "a name"),
    "memory": (dict, "a mapping of fields"),
    "weight_formats": (list, "a list of names"),
    "matrix_element": (str, "a name"),
    "wired_shapes": (list, "a list of shapes, inputs x outputs"),
    "wired_digest": (str, "hexadecimal digits"),
}


def machine_from_dict(content: object, where: str) -> MachineSpec:
    """Build and check a `MachineSpec` from the content of a target file.

    A value may be a plain value or a mapping with `value` and `source` (what the figure rests on).
    """
    if isinstance(content, dict) and "pe" in content:
        if "matrix_element" in content:
            raise InputError(f"{where}: pe, matrix_element: expected one of them, found both")
        content = {"matrix_element" if k == "pe" else k: v for k, v in content.items()}
    values = _plain_fields(content, MachineSpec, where)
    values["memory"] = MemorySpec(**_plain_fields(values["memory"], MemorySpec, f"{where}: memory"))
    return check_machine(MachineSpec(**values), where)


def _plain_fields(content: object, kind: type, where: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise InputError(f"{where}: expected a mapping of fields, found {shown(content)}")
    known = {f.name: f for f in fields(kind)}
    if kind is MachineSpec:
        content = require_family(content, "flight", where)
    values: dict[str, Any] = {}
    for name, value in content.items():
        if name in ("family", "description", "board", "fitted") and kind is MachineSpec:
            continue
        if name not in known:
            raise InputError(f"{where}: {shown(name)}: unknown field (known: {', '.join(known)})")
        if name != "memory":
            value = plain_value(value, f"{where}: {name}")
        wanted, expected = _KINDS.get(name, (int, "a whole number"))
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise InputError(f"{where}: {name}: expected {expected}, found {shown(value)}")
        if isinstance(value, list) and not all(isinstance(item, str) for item in value):
            raise InputError(f"{where}: {name}: expected {expected}, found other items")
        values[name] = tuple(value) if isinstance(value, list) else value
    for name, field in known.items():
        if name not in values and field.default is MISSING:
            expected = _KINDS.get(name, (int, "a whole number"))[1]
            raise InputError(f"{where}: {name}: missing, expected {expected}")
    return values


def load_machine(name_or_path: str) -> MachineSpec:
    """Read a bundled target by name, or a target file by path."""
    content, path = read_target(name_or_path)
    return machine_from_dict(content, str(path))
