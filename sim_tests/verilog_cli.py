"""The command `lpu verilog`; what is slow to import is imported inside its body."""

from pathlib import Path

import click

from hw.spec.errors import InputError


def verilog_commands() -> list[click.Command]:
    """Commands of this module."""
    return [verilog_command]


@click.command("verilog")
@click.option("--target", required=True, help="A bundled target, or a target file.")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder to write."
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def verilog_command(target: str, output: Path, as_json: bool) -> None:
    """Write the Verilog of a processor, a file list, a summary, and a bench that checks itself."""
    from emulator.console import note
    from hw.spec.machine import load_machine
    from hw.spec.output import atomic_write, check_output
    from hw.verilog_files import verilog_files, write_files
    from sim_tests.verilog_bench import bench_files, readme_text

    spec = load_machine(target)
    check_output(output)
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: expected a folder, found a file")
    files = verilog_files(spec)
    bench, reason = {}, None
    try:
        bench = bench_files(spec)
    except InputError as error:
        reason = str(error)
        note(f"no bench: {reason}")
    with atomic_write(output) as part:
        write_files(part, files | {"README.txt": readme_text(spec, reason)})
        if bench:
            write_files(part / "bench", bench)
    click.echo(files["summary.json" if as_json else "summary.txt"], nl=False)
