"""`lpu pe compare`: whole models on arrays of each processing element."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from emulator.console import json_option, print_facts, print_json, print_table, progress
from sim_tests.pe_synth_cli import library_options

TABLES = {
    "elements": "Elements (area and longest path synthesized; energy simulated on real tensors, modelled in pJ; "
    "signal to noise measured on the bundled model)",
    "published_configuration": "1. Configuration published by the authors: unequal arrays, time over FP16 "
    "(modelled from it, and published)",
    "equal_count": "2. Equal element count, 32 x 32 (modelled; areas synthesized)",
    "equal_area": "3. Equal area, arrays as generated (shadow registers, a unit a column), dequantization of groups in FP32 as "
    "in the paper, charged (modelled; areas synthesized)",
    "explored": "Fastest array found at that area, the INT8 one as well: integer scales, shared units, other shapes, "
    "no shadow registers, narrow skew registers (modelled; areas synthesized)",
    "steps": "What each step brings, the fastest W4A8 array of MixPE over the INT8 one that may choose the same "
    "(modelled; areas synthesized)",
}


@click.command("compare")
@click.option(
    "--model",
    default="llama-2-7b",
    show_default=True,
    help="A name that `lpu list models` prints, opt-6.7b, vit-b or vit-h.",
)
@click.option(
    "--tokens",
    type=click.IntRange(1),
    default=2048,
    show_default=True,
    help="Length of the prompt, all of it at once.",
)
@click.option(
    "--element",
    "names",
    multiple=True,
    help="Only this element, the INT8 ones and FP16; may be repeated.",
)
@click.option(
    "--plot", type=click.Path(path_type=Path), help="Picture of the Pareto front, *.png or *.svg."
)
@library_options
@json_option
def compare_command(
    model: str,
    tokens: int,
    names: tuple[str, ...],
    plot: Path | None,
    liberty: Path | None,
    library_name: str | None,
    as_json: bool,
) -> None:
    """Speed and energy of a whole model with each processing element, at equal area.

    Charged at equal area: operand registers, shadow registers, skew registers, dequantization of groups with the scales it
    keeps and what chooses between columns that share a unit, row sums, decoders, aligners, and the memory of sums over groups (a
    bit is a quarter of a flip-flop, assumed). What every array does once an output, scaling by column and row and a buffer of
    results, is charged in two of the steps only, to INT8 as well. One clock for all; the column
    `at_own_clock` scales the speed by the longest path of the element instead.
    Energies are scaled so that the FP16 element has its published 0.77 pJ in 28 nm; memories have published
    energies. Products of two activations take as many passes as their bits need at the weight port. Leakage and
    wires are not counted.
    """
    from hw.spec.element_family import element_spec
    from hw.spec.output import check_picture
    from sim_tests.pe_family import INT8_ELEMENTS, synthesize_family
    from sim_tests.pe_libraries import find_library
    from sim_tests.pe_models import model_products
    from sim_tests.pe_picture import plot_pareto
    from sim_tests.pe_report import compare

    # What is wrong with the options is told before the long work.
    model_products(model, tokens)
    for name in names:
        element_spec(name)
    if plot is not None:
        check_picture(plot)
    library = find_library(liberty, library_name)
    chosen = list(dict.fromkeys([*INT8_ELEMENTS, *names, "fp16"])) if names else []
    with progress("synthesis", None) as done:
        family = synthesize_family(library, chosen, done=done)
    report = compare(family, model, tokens)
    if plot is not None:
        plot_pareto(report, plot)
    if as_json:
        print_json(report)
        return
    print_facts({
        name: report[name]
        for name in ("model", "tokens", "library", "baseline", "area_budget", "area_unit")
    })
    for name, title in TABLES.items():
        click.echo()
        _print_rows(title, report[name])


def _print_rows(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    columns = list(rows[0])
    print_table(title, columns, [[row[column] for column in columns] for row in rows])
