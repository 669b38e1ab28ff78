"""The group `lpu hardwire`: weights as wires. What its commands do lives in the packages that they belong to."""

import click


@click.group("hardwire")
def hardwire() -> None:
    """Weights as wires: operators and their cost, the 16-chip system, reports."""


def hardwire_commands() -> list[click.Command]:
    """Commands for the front door, `lpu`."""
    return [hardwire]
