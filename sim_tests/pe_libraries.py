"""Which cell library a command uses: the user's, the one that Debian ships, or transistor counts."""

from pathlib import Path

from hw.spec.errors import InputError
from sim_tests.liberty import Library, read_library
from sim_tests.structural_library import structural_library

__all__ = ["OSU018", "find_library"]

OSU018 = Path("/usr/share/qflow/tech/osu018/osu018_stdcells.lib")
"""Where Debian's package qflow-tech-osu018 puts the OSU 0.18 um library."""


def find_library(liberty: Path | None, name: str | None) -> Library:
    """A library by file or by name.

    Parameters
    ----------
    liberty : Path or None
        A Liberty file; comes first.
    name : str or None
        ``"structural"`` or ``"osu018"``; None is the latter where it is installed, else the former.

    Raises
    ------
    InputError
        If it is not there, or is no Liberty file.
    """
    if liberty is not None:
        if name is not None:
            raise InputError("--liberty, --library: expected one of them, found both")
        if not liberty.is_file():
            raise InputError(f"{liberty}: expected a Liberty file, found none")
        return read_library(liberty)
    if name == "osu018" or (name is None and OSU018.is_file()):
        if not OSU018.is_file():
            raise InputError(f"{OSU018}: not found; Debian's package qflow-tech-osu018 brings it")
        return read_library(OSU018)
    return structural_library()
