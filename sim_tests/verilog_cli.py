"""The command `lpu verilog`; what is slow to import is imported inside its body."""

from pathlib import Path

import click

from hw.spec.errors import InputError

NETWORKS = ("counts", "cells", "base")


def verilog_commands() -> list[click.Command]:
    """Commands of this module."""
    return [verilog_command]


@click.command("verilog")
@click.option("--target", help="A bundled target, or a target file.")
@click.option(
    "--program",
    type=click.Path(path_type=Path),
    help="Instead: the machine of a compiled program; for machines whose weights are wires.",
)
@click.option(
    "--networks",
    type=click.Choice(NETWORKS),
    default="counts",
    show_default=True,
    help="Hardwired neurons: with sums of counted bits, adder by adder, or as base netlist and metal program.",
)
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder to write."
)
@click.option(
    "--primitives",
    is_flag=True,
    help="DSP slices are instances of the vendor's DSP48E2, with the same ports and cycles as the behaviour that the "
    "bench simulates; for targets with matrix_element dsp.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def verilog_command(
    target: str | None,
    program: Path | None,
    networks: str,
    output: Path,
    primitives: bool,
    as_json: bool,
) -> None:
    """Write the Verilog of a processor, a file list, a summary, and a bench that checks itself.

    Hardware whose weights are wires is that of one model: its program says which.
    """
    from emulator.console import note
    from hw.spec.machine_file import load_machine
    from hw.spec.output import atomic_write, check_output
    from hw.spec.program import load_program
    from hw.verilog_files import verilog_files, write_files
    from sim_tests.verilog_bench import bench_files, readme_text

    if (target is None) == (program is None):
        raise InputError("--target, --program: expected one of them")
    loaded = None if program is None else load_program(program)
    spec = load_machine(target or "") if loaded is None else loaded.machine
    if primitives and spec.matrix_element != "dsp":
        raise InputError(
            f"target {spec.name}: matrix_element: expected dsp with --primitives, found {spec.matrix_element}"
        )
    check_output(output)
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: expected a folder, found a file")
    wires = None if loaded is None else loaded.wires
    files = verilog_files(spec, wires, networks, vendor=primitives)
    bench, reason = {}, None
    try:
        bench = bench_files(spec, wires, networks)
    except InputError as error:
        reason = str(error)
        note(f"no bench: {reason}")
    with atomic_write(output) as part:
        write_files(part, files | {"README.txt": readme_text(spec, reason)})
        if bench:
            write_files(part / "bench", bench)
    click.echo(files["summary.json" if as_json else "summary.txt"], nl=False)
