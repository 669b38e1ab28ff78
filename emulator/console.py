"""What commands print: tables and progress for people, JSON for programs."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import click
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

_Command = TypeVar("_Command", bound=Callable[..., Any])


def json_option(command: _Command) -> _Command:
    """Add `--json` to a command that reports figures; its function gets `as_json: bool`."""
    return click.option("--json", "as_json", is_flag=True, help="Print figures as JSON.")(command)


def print_json(value: Any) -> None:
    """Print a value as JSON; NumPy numbers and arrays are allowed, NaN and infinity are not."""
    click.echo(json.dumps(value, indent=2, allow_nan=False, default=_plain))


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table; integers get thousands separators, floats four digits, both at the right."""
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD)
    for index, column in enumerate(columns):
        numbers = rows and all(isinstance(row[index], (int, float, type(None))) for row in rows)
        table.add_column(Text(column), justify="right" if numbers else "left")
    for row in rows:
        # Text, because brackets in a cell are not markup.
        table.add_row(*(Text(_cell(value)) for value in row))
    console = Console()
    if console.is_terminal:
        console.print(table)
        return
    # In a pipe Rich assumes 80 columns, and would cut cells there.
    console = Console(width=1000)
    with console.capture() as captured:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in captured.get().rstrip().splitlines()))


def print_facts(facts: Mapping[str, Any]) -> None:
    """Print names and values, one to a line, values aligned."""
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        click.echo(f"{name:<{width}}  {_cell(value)}")


def note(message: str) -> None:
    """Tell a person something on standard error, out of the way of results."""
    click.echo(message, err=True)


@contextlib.contextmanager
def progress(description: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a bar on standard error while the body runs, and nothing where that is not a terminal.

    Parameters
    ----------
    description
        Shown before the bar.
    total
        Steps in all; None where it is not known.

    Yields
    ------
    Function that is called with the number of steps just done.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task(description, total=total)
        yield lambda steps: bar.advance(task, steps)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    return str(value)
