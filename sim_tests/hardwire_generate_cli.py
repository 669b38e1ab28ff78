"""`lpu hardwire generate`: base netlist and metal program of one matrix."""

from pathlib import Path

import click

from emulator.console import json_option, print_facts, print_json
from hw.spec.errors import InputError
from sim_tests.hardwire_compare_cli import weight_options


@click.command("generate")
@weight_options
@click.option("--bits", default=1, show_default=True, help="Of an element a cycle: 1, 2, 4 or 8.")
@click.option(
    "--taps",
    default=4,
    show_default=True,
    help="Block scales may be this many binades, less one, apart.",
)
@click.option(
    "--base",
    type=click.Path(path_type=Path),
    help="Folder of an earlier run: program the same silicon, byte for byte, with these weights.",
)
@click.option("--margin", type=float, help="Standard deviations of slack.  [default: by outputs]")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder to write to."
)
@json_option
def generate_command(
    shape: str | None,
    path: Path | None,
    tensor: str | None,
    expert: int | None,
    kind: str,
    seed: int,
    bits: int,
    taps: int,
    margin: float | None,
    base: Path | None,
    output: Path,
    as_json: bool,
) -> None:
    """Write a base netlist that knows no weights, and the metal program that makes it a matrix.

    The base depends on the shape and on how often each magnitude is expected; the program is a list of
    wires. Together they are proved to be the weights. With --base the silicon of an earlier run is kept
    (--taps, --bits and --margin are then its own), and only the wires are new.
    """
    from hw.spec.output import check_output
    from sim_tests.hardwire_generate import generate, load_base, plan_for
    from sim_tests.hardwire_weights import read_weights

    check_output(output)
    if not 1 <= taps <= 8:
        raise InputError(f"--taps: expected 1 to 8, found {taps}")
    weights = read_weights(path, tensor, shape, kind, seed, expert)
    if base is None:
        spec = plan_for(weights, taps=taps, bits=bits, margin=margin)
    else:
        spec = load_base(base)
    report = generate(weights, spec, output)
    if as_json:
        print_json(report)
    else:
        print_facts({
            name: str(value) if isinstance(value, (tuple, dict)) else value
            for name, value in report.items()
        })


def generate_commands() -> list[click.Command]:
    """Commands of the group `hardwire`."""
    return [generate_command]
