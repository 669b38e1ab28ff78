"""FST wave files from the VCD that a simulator writes, while it writes it.

Verilator's own FST writer is compiled against zlib and LZ4; the package `pylibfst` brings the same library
compiled, so that a compiler is all that is needed.
"""

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hw.spec.errors import InputError

TIMESCALE = "1ps"


def check_fst() -> None:
    """Check that FST files can be written.

    Raises
    ------
    InputError
        If the package is missing.
    """
    try:
        import pylibfst  # noqa: F401  # looked for, used below
    except ImportError:
        raise InputError(
            "--wave: *.fst needs the package pylibfst: pip install 'openlpu[sim]', "
            "or write *.vcd, which needs nothing"
        ) from None


def write_fst(lines: Iterable[bytes], path: Path) -> int:
    """Write the content of a VCD file as FST.

    Parameters
    ----------
    lines : iterable of bytes
        Lines of the VCD; each is looked at once, and not kept.
    path : Path

    Returns
    -------
    int
        Changes of values that were written.

    Raises
    ------
    ValueError
        If a line is none of VCD.
    OSError
        If the file cannot be written.
    """
    from pylibfst import ffi, lib

    file = lib.fstWriterCreate(str(path).encode(), 1)
    if file == ffi.NULL:
        raise OSError(f"{path}: cannot be written")
    handles: dict[bytes, tuple[int, int]] = {}
    changes = 0
    try:
        rest = iter(lines)
        _declare(rest, file, handles)
        for line in rest:
            first = line[:1]
            if first == b"#":
                lib.fstWriterEmitTimeChange(file, int(line[1:]))
            elif first in b"01xz" and first:
                lib.fstWriterEmitValueChange(file, handles[line[1:].strip()][0], first)
                changes += 1
            elif first == b"b":
                value, code = line[1:].split()
                handle, width = handles[code]
                fill = value[:1] if value[:1] in b"xz" else b"0"
                lib.fstWriterEmitValueChange(file, handle, value.rjust(width, fill))
                changes += 1
            elif line.strip() and first != b"$":
                raise ValueError(f"not a line of VCD: {line!r}")
    finally:
        lib.fstWriterClose(file)
    return changes


def _declare(lines: Iterator[bytes], file: object, handles: dict[bytes, tuple[int, int]]) -> None:
    """Scopes and signals; those of one code in VCD are one signal with several names."""
    from pylibfst import ffi, lib

    lib.fstWriterSetTimescaleFromString(file, TIMESCALE.encode())
    for line in lines:
        match line.split():
            case [b"$timescale", scale, b"$end"]:
                lib.fstWriterSetTimescaleFromString(file, scale)
            case [b"$scope", _, name, b"$end"]:
                lib.fstWriterSetScope(file, lib.FST_ST_VCD_MODULE, name, ffi.NULL)
            case [b"$upscope", b"$end"]:
                lib.fstWriterSetUpscope(file)
            case [b"$var", _, width, code, *name, b"$end"]:
                alias = handles[code][0] if code in handles else 0
                handle = lib.fstWriterCreateVar(
                    file,
                    lib.FST_VT_VCD_WIRE,
                    lib.FST_VD_IMPLICIT,
                    int(width),
                    b" ".join(name),
                    alias,
                )
                handles.setdefault(code, (handle, int(width)))
            case [b"$enddefinitions", *_]:
                return
    raise ValueError("a VCD file without an end of its definitions")


@contextmanager
def fst_from_pipe(pipe: Path, path: Path) -> Iterator[None]:
    """Write to `path` as FST what a program that runs inside writes to the named pipe `pipe` as VCD.

    Raises
    ------
    ValueError, OSError
        As `write_fst`, at the end.
    """
    os.mkfifo(pipe)
    # A writer of its own keeps the reader from seeing an end before the program begins, or waiting for one that never does.
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    kept = os.open(pipe, os.O_WRONLY)
    os.set_blocking(reading, True)
    failures: list[Exception] = []

    def convert() -> None:
        with open(reading, "rb", buffering=1 << 20) as stream:
            try:
                write_fst(stream, path)
            except (ValueError, OSError, KeyError) as error:
                failures.append(error)
                while stream.read(1 << 20):  # the program must not wait for a reader
                    pass

    thread = threading.Thread(target=convert)
    thread.start()
    try:
        yield
    finally:
        os.close(kept)
        thread.join()
    if failures:
        raise failures[0]
