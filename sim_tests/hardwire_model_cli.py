"""The command `lpu hardwire model`; what is slow to import is imported inside its body."""

from pathlib import Path

import click

from emulator.console import json_option, print_json, print_table


def model_commands() -> list[click.Command]:
    """Commands of this module."""
    return [model_command]


@click.command("model")
@click.argument("program", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder to write."
)
@json_option
def model_command(program: Path, output: Path, as_json: bool) -> None:
    """Base netlists and metal programs of all matrices of PROGRAM, proved to be its weights.

    PROGRAM is one of a machine whose weights are wires, as `lpu compile --target hardwired-tiny` writes it.
    """
    from hw.spec.output import check_output
    from hw.spec.program import load_program
    from sim_tests.hardwire_model import generate_model

    loaded = load_program(program)
    check_output(output)
    reports = generate_model(loaded, output)
    if as_json:
        print_json({"program": str(program), "matrices": reports})
        return
    print_table(
        f"{loaded.information.get('model')}: base netlists and metal programs (structural)",
        [
            "matrix",
            "inputs x outputs",
            "ports a neuron",
            "slack",
            "wires",
            "full adders",
            "weights proved",
        ],
        [
            [
                r["matrix"],
                r["shape"],
                r["ports_per_neuron"],
                f"{r['slack']:.0%}",
                r["wires"],
                r["neuron"]["full_adders"] * r["outputs"],
                r["weights_proved"],
            ]
            for r in reports
        ],
    )
    total = sum(r["weights_proved"] for r in reports)
    click.echo(f"{total:,} weights are what {len(reports)} base netlists with their wires compute")
