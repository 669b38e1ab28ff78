"""Compilation of the emulator's inner loops, with a cache that no change of a source file makes stale.

numba keeps compiled code beside the source file and checks that file only; the code has the functions and
constants of other files in it, though. Here the folder of the cache is named after the content of all of
them, and lies where the user's other caches do, so that the package itself may be read-only.
"""

import functools
import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numba import config, njit, types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array
from numba.np.numpy_support import carray

# Its attributes come from the environment, so that type checkers do not know them.
_settings: Any = config
_Function = TypeVar("_Function", bound=Callable[..., object])
_Array = TypeVar("_Array", bound=np.ndarray[Any, Any])
_ROOT = Path(__file__).resolve().parent.parent
_SOURCES = ("emulator/**/*.py", "hw/spec/*.py", "hw/spec/*.json")


def compiled(function: _Function, *, nogil: bool = False) -> _Function:
    """Compile `function` when it is first called, or take it from the cache; with `nogil` threads may run it at once.

    The cache is in `NUMBA_CACHE_DIR` or the user's cache folder; where that cannot be written there is none.
    """
    folder = cache_folder()
    if folder is None:
        return cast(_Function, njit(nogil=nogil)(function))
    before = _settings.CACHE_DIR
    _settings.CACHE_DIR = str(folder)
    try:
        return cast(_Function, njit(cache=True, nogil=nogil)(function))
    finally:
        _settings.CACHE_DIR = before


def _elements(_typing: object, array: Any) -> Any:
    """Where the elements of an array are."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return make_array(signature.args[0])(context, builder, arguments[0]).data

    return types.CPointer(array.dtype)(array), generate


# In compiled code it takes the array alone.
_pointer: Any = intrinsic(_elements)


@njit(inline="always")
def borrowed(array: _Array) -> _Array:
    """The same array without a count of references, for compiled loops whose caller keeps it.

    Counting takes atomic instructions wherever a part of an array is named or passed on: most of the time of a loop
    that does little else.
    """
    elements: Any = carray(_pointer(array), array.shape)
    return elements


@functools.cache
def cache_folder() -> Path | None:
    """Folder of the code that was compiled from the source files as they are now; None: none can be written."""
    if given := os.environ.get("NUMBA_CACHE_DIR"):
        base = Path(given)
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches" / "openlpu"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home())) / "openlpu" / "cache"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "openlpu"
    folder = base / _digest()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return None


def _digest() -> str:
    """Of every file whose code or constants may end up in a compiled function."""
    digest = hashlib.sha256()
    for pattern in _SOURCES:
        for path in sorted(_ROOT.glob(pattern)):
            digest.update(path.name.encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
