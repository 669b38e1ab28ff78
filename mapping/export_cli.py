"""`lpu export`: a model as a packed checkpoint."""

from pathlib import Path

import click

from emulator.console import json_option, print_facts, print_json

FORMATS = ("awq-gemm", "awq-gemv", "gptq", "gptq-v2", "qserve", "mxfp4")
"""`mapping.frontend.quantization.LAYOUTS`, whose import is slow."""


@click.command("export")
@click.argument("model")
@click.option("--format", "layout", required=True, type=click.Choice(FORMATS), help="Layout.")
@click.option(
    "--group", type=int, help="Inputs that share a scale (default: 128, 64 or 32, as inputs allow)."
)
@click.option("--symmetric", is_flag=True, help="All zero points are 8 (awq and gptq formats).")
@click.option(
    "--activation-order",
    is_flag=True,
    help="Groups of inputs of like size on the model's calibration.txt (gptq formats).",
)
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder to write."
)
@json_option
def export_command(
    model: str,
    layout: str,
    group: int | None,
    symmetric: bool,
    activation_order: bool,
    output: Path,
    as_json: bool,
) -> None:
    """Write MODEL as a quantized Hugging Face folder, its weights rounded to nearest.

    The layouts are those that AWQ, GPTQ, QServe and MXFP4 checkpoints have; the folder can be compiled like any
    other. Nothing is calibrated: this is for interchange and tests, not for the least loss.
    """
    from mapping.export import export_model
    from mapping.frontend.model import load_model

    facts = export_model(
        load_model(model),
        layout,
        output,
        group=group,
        symmetric=symmetric,
        activation_order=activation_order,
    )
    if as_json:
        print_json(facts)
        return
    print_facts({name.replace("_", " "): value for name, value in facts.items()})
