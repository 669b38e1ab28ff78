"""Files and folders that appear complete or not at all."""

import contextlib
import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from hw.spec.errors import InputError

_unique = itertools.count()


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a path beside `path` to write to, and rename it to `path` when the body ends well.

    The body creates a file or a folder at the path it is given (same suffix, same file system). When the
    body raises, or the process is interrupted, what it wrote is removed and `path` is as it was.

    Parameters
    ----------
    path
        Final name. A file replaces a file. A folder becomes `path` in one step where there is none; in a
        folder that exists, each new file replaces the one of its name, and others are left alone.

    Raises
    ------
    InputError
        If the folder that is to hold `path` does not exist.
    FileNotFoundError
        If the body wrote nothing.

    Examples
    --------
    >>> with atomic_write("report.json") as part:
    ...     part.write_text("{}")
    """
    check_output(path)
    final = Path(path).absolute()
    part = final.with_name(f".part-{os.getpid()}-{next(_unique)}-{final.name}")
    try:
        yield part
        if part.is_dir() and final.is_dir():
            _merge(part, final)
        else:
            os.replace(part, final)
    finally:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def check_output(path: str | os.PathLike[str]) -> None:
    """Refuse, before long work, an output file for which there is no folder.

    Raises
    ------
    InputError
        If the folder that is to hold `path` does not exist.
    """
    parent = Path(path).absolute().parent
    if not parent.is_dir():
        raise InputError(f"{path}: the folder {parent} does not exist")


def check_picture(path: str | os.PathLike[str]) -> None:
    """As `check_output`, and refuse what is no picture by its suffix.

    Raises
    ------
    InputError
    """
    if Path(path).suffix not in (".png", ".svg"):
        raise InputError(f"{path}: expected a picture, *.png or *.svg")
    check_output(path)


def _merge(part: Path, final: Path) -> None:
    for source in sorted(part.rglob("*")):
        target = final / source.relative_to(part)
        if source.is_dir():
            target.mkdir(exist_ok=True)
        else:
            os.replace(source, target)
