"""`lpu demo`: the whole story on the bundled model."""

from pathlib import Path

import click

FOLDER = Path("lpu-demo")


def demo_commands() -> list[click.Command]:
    """Commands for `sim_tests.cli`."""
    return [demo_command]


@click.command("demo")
@click.option("--model", help="Another model than the bundled one.")
@click.option(
    "--target", default="small", show_default=True, help="Bundled target, or a target's YAML file."
)
@click.option(
    "--recipe", default="w4a8", show_default=True, help="Bundled recipe, or a recipe's YAML file."
)
@click.option("--prompt", help="Text to continue.")
@click.option(
    "--tokens",
    type=click.IntRange(1),
    default=32,
    show_default=True,
    help="Tokens to generate on the emulator.",
)
@click.option(
    "--rtl-tokens",
    type=click.IntRange(1),
    default=4,
    show_default=True,
    help="Tokens to generate on the hardware.",
)
@click.option(
    "--engine", type=click.Choice(["native", "cocotb"]), default="native", show_default=True
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=FOLDER,
    show_default=True,
    help="Folder for what is left.",
)
def demo_command(
    model: str | None,
    target: str,
    recipe: str,
    prompt: str | None,
    tokens: int,
    rtl_tokens: int,
    engine: str,
    output: Path,
) -> None:
    """Show the whole story on a trained model.

    Text on the emulator, the processor as Verilog, the same tokens on that in Verilator, and what of it differs:
    nothing.
    """
    from sim_tests.demo import MODEL, PROMPT, Demo

    Demo(model or MODEL, target, recipe, prompt or PROMPT, tokens, rtl_tokens, engine, output).run()
