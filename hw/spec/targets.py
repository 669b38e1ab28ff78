"""Target files: where they are, to which machine family each belongs, and their content."""

from pathlib import Path
from typing import Any

import yaml

from hw.spec.errors import InputError

__all__ = ["TARGETS", "list_targets", "plain_value", "read_target", "require_family", "shown"]

TARGETS = Path(__file__).resolve().parent.parent / "targets"

DEFAULT_FAMILY = "flight"
"""Of a target file that names none."""


def plain_value(value: Any, where: str) -> Any:
    """The value of a field, which may have its source beside it.

    Raises
    ------
    InputError
        If it is a mapping of anything else than `value` and `source`.
    """
    if not isinstance(value, dict):
        return value
    if set(value) != {"value", "source"}:
        raise InputError(f"{where}: expected value and source, found other fields")
    return value["value"]


def shown(value: object) -> str:
    """A value as it may stand in a message: one line, never a long one."""
    if isinstance(value, (dict, list)):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = value if isinstance(value, str) and value.isidentifier() else ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


def read_target(name_or_path: str) -> tuple[object, Path]:
    """Content of a bundled target by name, or of a target file by path; and the path.

    Raises
    ------
    InputError
        If there is no such file, or it is not YAML.
    """
    path = TARGETS / f"{name_or_path}.yaml"
    if not path.is_file():
        path = Path(name_or_path)
        if not path.is_file():
            names = ", ".join(sorted(path.stem for path in TARGETS.glob("*.yaml")))
            raise InputError(f"{name_or_path}: no such target or target file (bundled: {names})")
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")), path
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # ValueError: no UTF-8, or a date that no calendar has.
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from None


def require_family(content: object, family: str, where: str) -> dict[str, Any]:
    """Return the fields of a target file if it is one of `family`.

    Raises
    ------
    InputError
        If it is a target of another family, or no mapping at all.
    """
    if not isinstance(content, dict):
        raise InputError(f"{where}: expected a mapping of fields, found {shown(content)}")
    found = content.get("family", DEFAULT_FAMILY)
    if found != family:
        raise InputError(f"{where}: family: expected '{family}', found {shown(found)}")
    return content


def list_targets(family: str = DEFAULT_FAMILY) -> list[str]:
    """Names of the bundled targets of one family."""
    return sorted(path.stem for path in TARGETS.glob("*.yaml") if _family(path) == family)


def _family(path: Path) -> object:
    content = read_target(path.stem)[0]
    return content.get("family", DEFAULT_FAMILY) if isinstance(content, dict) else None
