"""Commands of the hardware; what is slow to import is imported inside their bodies."""

import json
from pathlib import Path

import click

from hw.spec.errors import InputError


def commands() -> list[click.Command]:
    """Commands for the front door, `lpu`."""
    return [list_command, verilog_command]


@click.command("list")
@click.argument("what", type=click.Choice(["targets"]), default="targets")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_command(what: str, as_json: bool) -> None:
    """List what there is: targets."""
    from hw.spec.machine import list_targets, load_machine

    machines = [load_machine(name) for name in list_targets()]
    rows = [
        {
            "target": spec.name,
            "clock_mhz": spec.clock_hz / 1e6,
            "channels": spec.channels,
            "bus_bytes": spec.bus_bytes,
            "multipliers": spec.multipliers,
            "lanes": spec.lanes,
            "memory_bytes": spec.memory.words * spec.word_bytes,
            "machine_hash": f"{spec.hash:08x}",
        }
        for spec in machines
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        click.echo(
            f"{row['target']:12s} {row['clock_mhz']:6.0f} MHz  {row['channels']:2d} x {row['bus_bytes']:3d} byte "
            f"channels  {row['multipliers']:6d} multipliers  {row['lanes']:3d} vector lanes  "
            f"{row['memory_bytes'] / 2**20:8.1f} MiB"
        )


@click.command("verilog")
@click.option("--target", required=True, help="A bundled target, or a target file.")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder to write."
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def verilog_command(target: str, output: Path, as_json: bool) -> None:
    """Write the Verilog of a processor, a file list, a summary, and a bench that checks itself."""
    from hw.spec.machine import load_machine
    from hw.spec.output import atomic_write
    from hw.verilog_bench import bench_files, verilog_files, write_files

    spec = load_machine(target)
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: expected a folder, found a file")
    files = verilog_files(spec)
    with atomic_write(output) as part:
        write_files(part, files)
        if bench := bundled_bench(spec.name, spec.hash):
            write_files(part / "bench", bench_files(spec, *bench))
    click.echo(files["summary.json" if as_json else "summary.txt"], nl=False)


def bundled_bench(target: str, machine_hash: int) -> tuple | None:
    """The program that the bench of a target runs, and what is expected of it; None where there is none.

    `hw/targets/<target>.lpu` is the program; `hw/targets/<target>.bench.json` has `prompt` (token ids), `tokens`
    (to generate), `trace` and `results`, the arguments of `hw.verilog_bench.bench_files`.
    """
    from hw.spec.machine import TARGETS
    from hw.spec.program import load_program

    program_file, expected_file = TARGETS / f"{target}.lpu", TARGETS / f"{target}.bench.json"
    if not program_file.is_file() or not expected_file.is_file():
        return None
    program = load_program(program_file)
    if program.machine_hash != machine_hash:
        return None
    expected = json.loads(expected_file.read_text())
    return program, expected["prompt"], expected["tokens"], expected["trace"], expected["results"]
