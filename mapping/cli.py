"""Commands of the compiler; what is slow to import is imported inside their bodies."""

import click


def commands() -> list[click.Command]:
    """Commands for the front door, `lpu`."""
    return []
