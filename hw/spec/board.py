"""What a board offers: resources of its part and memory, from the target file that names it."""

from dataclasses import dataclass, fields
from typing import Any

from hw.spec.errors import InputError
from hw.spec.targets import plain_value, read_target, shown

__all__ = ["KINDS", "Board", "board_from_dict", "load_board", "load_fitted"]

KINDS = ("dsp", "lut", "ff", "bram", "uram")
"""Resources of a part; BRAM in blocks of 36 kbit, URAM in blocks of 288 kbit."""

FAMILIES = ("xcup", "ecp5")


@dataclass(frozen=True, kw_only=True)
class Board:
    """Resources of a board.

    Attributes
    ----------
    part : str
    family : str
        Whose synthesized figures count, of `FAMILIES`: "xcup" (UltraScale+; Versal's LUTs and block memories are counted
        as its) or "ecp5" (LUTs of four inputs).
    dsp, lut, ff, bram, uram : int
        Of the whole part, see `KINDS`.
    memory_bytes : int
        Capacity of the memory behind the processor's channels.
    memory_bytes_per_second : int
        Peak of that memory; the ports of a design may carry less.
    """

    part: str
    family: str = "xcup"
    dsp: int
    lut: int
    ff: int
    bram: int
    uram: int
    memory_bytes: int
    memory_bytes_per_second: int

    def resources(self) -> dict[str, int]:
        """Numbers by kind."""
        return {kind: getattr(self, kind) for kind in KINDS}


def load_board(name_or_path: str) -> Board | None:
    """The board of a bundled target or target file; None if the target is of no particular board.

    Raises
    ------
    InputError
        If there is no such target, or its field `board` is wrong.
    """
    content, path = read_target(name_or_path)
    if not isinstance(content, dict) or "board" not in content:
        return None
    return board_from_dict(content["board"], f"{path}: board")


def board_from_dict(content: Any, where: str) -> Board:
    """Check the field `board` of a target file; each value may have a source beside it.

    Raises
    ------
    InputError
    """
    if not isinstance(content, dict):
        raise InputError(f"{where}: expected a mapping of fields, found {shown(content)}")
    kinds = [field.name for field in fields(Board)]
    values: dict[str, Any] = {}
    for name, value in content.items():
        if name not in kinds:
            raise InputError(f"{where}: {shown(name)}: unknown field (known: {', '.join(kinds)})")
        value = plain_value(value, f"{where}: {name}")
        if name == "family":
            if value not in FAMILIES:
                expected = f"one of {', '.join(FAMILIES)}"
                raise InputError(f"{where}: family: expected {expected}, found {shown(value)}")
        elif name == "part":
            if not isinstance(value, str):
                raise InputError(f"{where}: part: expected a name, found {shown(value)}")
        elif isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise InputError(f"{where}: {name}: expected a whole number, found {shown(value)}")
        values[name] = value
    missing = [name for name in kinds if name not in values and name != "family"]
    if missing:
        raise InputError(f"{where}: {missing[0]}: missing")
    return Board(**values)


def load_fitted(name_or_path: str) -> dict[str, str]:
    """Fields of a target that were fitted to measurements (its field `fitted`): what each stands for, and to what.

    Raises
    ------
    InputError
        If there is no such target, or the field is wrong.
    """
    content, path = read_target(name_or_path)
    fitted = content.get("fitted", {}) if isinstance(content, dict) else {}
    if not isinstance(fitted, dict) or not all(
        isinstance(text, str) for pair in fitted.items() for text in pair
    ):
        raise InputError(f"{path}: fitted: expected a mapping of names to explanations")
    return fitted
