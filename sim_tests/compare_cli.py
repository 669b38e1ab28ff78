"""`lpu compare`: one run by four accounts, side by side."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from emulator.console import json_option, note, print_json, print_table, progress
from hw.spec.errors import CheckFailed, InputError

if TYPE_CHECKING:
    from sim_tests.compare import Row


def compare_commands() -> list[click.Command]:
    """Commands for `sim_tests.cli`."""
    return [compare_command]


@click.command("compare")
@click.argument("program", required=False, type=click.Path(path_type=Path))
@click.option(
    "--published", is_flag=True, help="Instead: LLaMA2-7B estimated, beside published figures."
)
@click.option(
    "--prompt-length",
    type=click.IntRange(1),
    default=4,
    show_default=True,
    help="Tokens of the prompt.",
)
@click.option(
    "--tokens", type=click.IntRange(1), default=4, show_default=True, help="Tokens to generate."
)
@click.option(
    "--engine", type=click.Choice(["native", "cocotb"]), default="native", show_default=True
)
@click.option("--rtl/--no-rtl", default=True, help="Simulate the hardware too, in Verilator.")
@click.option("--plot", type=click.Path(path_type=Path), help="Picture to write, PNG or SVG.")
@json_option
def compare_command(
    program: Path | None,
    published: bool,
    prompt_length: int,
    tokens: int,
    engine: str,
    rtl: bool,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Count cycles of PROGRAM in four ways.

    Side by side: bandwidth bound, compute bound, emulator, hardware in simulation.
    """
    from emulator.machine import check_request
    from hw.spec.output import check_picture
    from hw.spec.program import load_program
    from sim_tests.compare import MEASURED, compare_rows, plot_rows

    if published:
        if program is not None:
            raise InputError("compare: give either a program or --published")
        print_published(as_json)
        return
    if program is None:
        raise InputError("compare: give a program file, or --published")
    if plot is not None:
        check_picture(plot)
    loaded = load_program(program)
    check_request(loaded, [0] * prompt_length, tokens)
    if rtl:
        note(
            f"simulating {loaded.machine.name} in Verilator; its first build takes a minute or two"
        )
    rows = compare_rows(loaded, prompt_length, tokens, rtl, engine)
    title = f"{loaded.information.get('model', program.name)} on {loaded.machine.name}: "
    title += f"{prompt_length} prompt and {tokens} generated tokens"
    if plot is not None:
        plot_rows(rows, title, plot)
    cycles = {row.source: row.cycles for row in rows}
    emulated = rows[2].cycles
    equal = cycles[MEASURED] == emulated if rtl else None
    if as_json:
        print_json({
            "program": str(program),
            "target": loaded.machine.name,
            "prompt_length": prompt_length,
            "tokens": tokens,
            "rows": [dataclasses.asdict(row) for row in rows],
            "emulator_equals_rtl": equal,
        })
    else:
        print_rows(rows, title)
        if plot is not None:
            click.echo(f"\nthe picture is {plot}")
    if equal is False:
        raise CheckFailed(
            f"{program}: the emulator says {emulated} cycles, the hardware took {cycles[MEASURED]}"
        )


def print_rows(rows: "list[Row]", title: str) -> None:
    """Print rows with, for each unit, the share of the run in which it was busy and in which it waited."""
    from hw.spec.instructions import Unit

    columns = ["", "cycles", "these are", *(f"{unit.name} busy / waits" for unit in Unit)]
    print_table(
        title,
        columns,
        [[row.name, row.cycles, row.source, *(_share(row, u.name) for u in Unit)] for row in rows],
    )


def _share(row: "Row", unit: str) -> str:
    busy = f"{row.busy[unit]:.1%}" if unit in row.busy else "-"
    return f"{busy} / {row.waiting[unit]:.1%}" if unit in row.waiting else busy


def print_published(as_json: bool) -> None:
    """Print estimates of LLaMA2-7B beside published figures and what is wanted."""
    from emulator.published import FIGURES, MODEL
    from sim_tests.compare_published import published_rows

    with progress("estimates", len(FIGURES)) as advance:
        rows = published_rows(advance)
    if as_json:
        print_json({"model": MODEL, "rows": [row.to_dict() for row in rows]})
        return
    columns = ["target", "figure", "unit", "published", "of", "wanted", "here", "origin", "met"]
    print_table(
        f"{MODEL}: published, wanted, and here",
        columns,
        [
            [
                row.figure.target, row.figure.name, row.figure.unit, _scaled(row.figure.published, row.figure.unit),
                row.figure.source or "-", row.figure.wanted, _scaled(row.value, row.figure.unit), row.origin,
                row.figure.met(row.value),
            ]
            for row in rows
        ],
    )  # fmt: skip


def _scaled(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    value *= 100 if unit == "%" else 1
    return f"{value:,.4g}" if value < 10_000 else f"{value:,.0f}"
