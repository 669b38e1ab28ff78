"""`lpu pe synth`: area, delay and FPGA resources of the processing elements."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from emulator.console import json_option, print_json, print_table, progress

_Command = TypeVar("_Command", bound=Callable[..., Any])


def library_options(command: _Command) -> _Command:
    """Add `--liberty` and `--library`; the function gets `liberty` and `library_name`."""
    command = click.option(
        "--liberty",
        type=click.Path(path_type=Path),
        help="Liberty file of the cells to map to.",
    )(command)
    return click.option(
        "--library",
        "library_name",
        type=click.Choice(["structural", "osu018"]),
        help="Instead: transistor counts, or the library of Debian's qflow-tech-osu018 (default if installed).",
    )(command)


@click.command("synth")
@click.option("--element", "names", multiple=True, help="Only this element; may be repeated.")
@click.option("--fpga", is_flag=True, help="Also map to UltraScale+ and to 7 series.")
@library_options
@json_option
def synth_command(
    names: tuple[str, ...],
    fpga: bool,
    liberty: Path | None,
    library_name: str | None,
    as_json: bool,
) -> None:
    """Area and longest path of every processing element, by Yosys; kept between runs, with what arrays have around them.

    All elements go through one flow: flattened, flip-flops without enable, mapped for area. The longest path
    follows the delay tables of the cells, without wires. Areas compare within one library only. FPGA columns:
    look-up tables, flip-flops and DSP blocks of UltraScale+ (whose accumulator Yosys leaves in fabric), and DSP
    blocks of 7 series, which show the packing.
    """
    from hw.spec.element_family import element_spec
    from sim_tests.pe_charges import Areas
    from sim_tests.pe_compare import synthesize_surroundings
    from sim_tests.pe_family import synthesize_family
    from sim_tests.pe_libraries import find_library

    for name in names:
        element_spec(name)
    library = find_library(liberty, library_name)
    with progress("synthesis", None) as done:
        family = synthesize_family(library, names, fpga, done)
        # For `lpu pe compare`, which is quick then.
        synthesize_surroundings(map(element_spec, family.elements), Areas(library), done)
    rows = family.rows()
    if as_json:
        print_json({
            "library": library.name,
            "origin": "synthesized",
            "baseline": family.baseline,
            "elements": rows,
        })
        return
    hidden = {"area_unit", "time_unit"}
    columns = [column for column in rows[0] if column not in hidden]
    print_table(
        f"Processing elements in {library.name} (synthesized; area in {library.unit}, "
        f"longest path in {library.time_unit})",
        columns,
        [[row[column] for column in columns] for row in rows],
    )
