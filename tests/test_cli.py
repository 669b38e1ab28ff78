"""The front door: exit statuses, one-line errors, and nothing left behind by what is interrupted."""

import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import click
import pytest

import lpu
from hw.spec.errors import CheckFailed, InputError
from hw.spec.output import atomic_write

ROOT = Path(__file__).resolve().parents[1]
Body = Callable[[], None]
Plant = Callable[[Body], None]


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Plant:
    """Put a command `planted` with this body behind the front door."""

    def put(body: Body) -> None:
        module = types.ModuleType("planted_commands")
        vars(module)["commands"] = lambda: [click.Command("planted", callback=body)]
        monkeypatch.setitem(sys.modules, "planted_commands", module)
        monkeypatch.setattr(lpu, "HOMES", ("planted_commands",))

    return put


def failing(error: BaseException) -> Body:
    def body() -> None:
        raise error

    return body


@pytest.mark.parametrize(
    "error, status, message",
    [
        (
            InputError("x.yaml: lanes: expected 1 or more, found 0"),
            2,
            "lpu: x.yaml: lanes: expected",
        ),
        (CheckFailed("cycle 7 differs"), 1, "lpu: cycle 7 differs"),
        (KeyboardInterrupt(), 130, "lpu: interrupted"),
        (ModuleNotFoundError("no", name="cocotb.handle"), 2, "pip install 'openlpu[sim]'"),
        (ModuleNotFoundError("no", name="torch"), 2, "pip install 'openlpu[reference]'"),
        (FileNotFoundError(2, "No such file or directory", "m.lpu"), 2, "lpu: m.lpu: No such file"),
        (click.UsageError("--tokens: expected a number"), 2, "lpu: --tokens: expected a number"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_an_error_is_one_line_and_a_status(
    plant: Plant,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
    message: str,
) -> None:
    plant(failing(error))
    assert lpu.main(["planted"]) == status
    printed = capsys.readouterr()
    assert printed.out.strip() == ""
    lines = printed.err.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def test_a_fault_of_the_program_is_not_hidden(plant: Plant) -> None:
    for error in (ZeroDivisionError(), ModuleNotFoundError("no", name="numpy"), OSError("lost")):
        plant(failing(error))
        with pytest.raises(type(error)):
            lpu.main(["planted"])


def test_done_is_status_zero(plant: Plant) -> None:
    plant(lambda: None)
    assert lpu.main(["planted"]) == 0


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "lpu.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"lpu, version {lpu.__version__}\n")


def test_an_unknown_command_is_one_line_and_status_two() -> None:
    done = run("no-such-command")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "no-such-command" in done.stderr


def test_help_lists_every_command_and_imports_nothing_slow() -> None:
    script = (
        "import sys, lpu; status = lpu.main(['--help']); "
        "slow = {'amaranth', 'cocotb', 'matplotlib', 'numba', 'tokenizers', 'torch'}; "
        "print(sorted(slow & set(sys.modules)), status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    *help_text, last = done.stdout.splitlines()
    assert last == "[] 0"
    listed = {line.split()[0] for line in help_text if line.startswith("  ") and line.strip()}
    names = {command.name for home in lpu.HOMES for command in lpu.commands_of(home)}
    assert names <= listed


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_command_leaves_no_file(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    script = """
import signal, sys, time, types, click, lpu
from hw.spec.output import atomic_write

# A shell starts background jobs with this signal ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

def body():
    with atomic_write("out.txt") as part:
        part.write_text("half")
        print("writing", flush=True)
        time.sleep(60)

module = types.ModuleType("planted_commands")
module.commands = lambda: [click.Command("planted", callback=body)]
sys.modules["planted_commands"] = module
lpu.HOMES = ("planted_commands",)
sys.exit(lpu.main(["planted"]))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        assert len(list(tmp_path.iterdir())) == 1, (
            "the half-written file is there while it is written"
        )
        time.sleep(0.05)
        process.send_signal(number)
        process.communicate(timeout=30)
    assert process.returncode == status
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_leaves_early_is_not_answered_with_a_traceback() -> None:
    script = "import sys, lpu; sys.exit(lpu.main(['--help']))"
    command = [sys.executable, "-c", script]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_atomic_write_in_a_command_keeps_the_old_file_on_failure(
    tmp_path: Path, plant: Plant, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out.json"
    target.write_text("old")

    def body() -> None:
        with atomic_write(target) as part:
            part.write_text("new, half")
            raise InputError("m.json: weights: not finite")

    plant(body)
    assert lpu.main(["planted"]) == 2
    assert "m.json" in capsys.readouterr().err
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
