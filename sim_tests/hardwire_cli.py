"""The group `lpu hardwire`: weights as wires. What its commands do lives in the packages that they belong to."""

import click

from sim_tests.hardwire_compare_cli import compare_commands
from sim_tests.hardwire_generate_cli import generate_commands
from sim_tests.hardwire_model_cli import model_commands
from sim_tests.hardwire_system_cli import system_commands


@click.group("hardwire")
def hardwire() -> None:
    """Weights as wires: operators and their cost, the 16-chip system, reports."""


def hardwire_commands() -> list[click.Command]:
    """Commands for the front door, `lpu`."""
    groups = (compare_commands, generate_commands, model_commands, system_commands)
    for commands in groups:
        for command in commands():
            hardwire.add_command(command)
    return [hardwire]
