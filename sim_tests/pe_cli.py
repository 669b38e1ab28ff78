"""The group `lpu pe`; each subcommand lives in a module of its own."""

import click

from emulator.console import json_option, print_json, print_table
from sim_tests.pe_compare_cli import compare_command
from sim_tests.pe_synth_cli import synth_command
from sim_tests.systolic_cli import array_command


def pe_commands() -> list[click.Command]:
    """Commands of this module."""
    return [pe]


@click.group("pe")
def pe() -> None:
    """Processing elements: list, synthesis, comparison at equal area, systolic array."""


@pe.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """Every processing element: operands, product, accumulator."""
    from hw.spec.element_family import ELEMENTS

    rows = [
        {
            "element": spec.name,
            "title": spec.title,
            "weight": spec.weight.value,
            "activation": spec.activation.value,
            "product_bits": spec.product_bits,
            "accumulator": "fp32" if spec.fp32 else f"int{spec.accumulator_bits}",
            "products_per_cycle": spec.products_per_cycle,
            "latency": spec.latency,
            "zero_point": spec.zero_point.value,
        }
        for spec in ELEMENTS.values()
    ]
    if as_json:
        print_json(rows)
        return
    columns = list(rows[0])
    print_table("Processing elements", columns, [[row[c] for c in columns] for row in rows])


pe.add_command(array_command)
pe.add_command(synth_command)
pe.add_command(compare_command)
