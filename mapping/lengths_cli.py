"""`lpu lengths`: what one program for every length saves."""

import click

from emulator.console import json_option, print_json, print_table
from mapping.options import choose_recipe_of, recipe_option, target_option


@click.command("lengths")
@click.argument("model")
@target_option
@recipe_option
@click.option(
    "--context", type=int, default=2048, show_default=True, help="Longest sequence of tokens."
)
@json_option
def lengths_command(
    model: str, target: str, recipe: str | None, context: int, as_json: bool
) -> None:
    """Program bytes of MODEL for all lengths: a program for each length, for each bucket, or one for all.

    The program of a length has no loops and no run-time registers, as in FlightLLM's instruction set; its instructions are
    those that the one program executes at that length. Buckets are FlightLLM's: 128 tokens of a prompt, 16 of a context.
    """
    from hw.spec.machine_file import load_machine
    from mapping.frontend.model import load_model
    from mapping.lengths import DECODE_BUCKET, PREFILL_BUCKET, PUBLISHED, compare_lengths

    loaded, machine = load_model(model), load_machine(target)
    formats = choose_recipe_of(recipe, loaded, machine)
    facts = compare_lengths(loaded.config, machine, formats, context)
    if as_json:
        print_json(facts)
        return
    rows = []
    for name, mode in (
        ("every_length", "a program for each length"),
        ("bucket", f"buckets of {PREFILL_BUCKET} (prefill) and {DECODE_BUCKET} (decode)"),
        ("program", "one program, run-time registers"),
    ):
        published = PUBLISHED.get(f"{name}_bytes")
        rows.append([
            mode,
            f"{facts[f'{name}_programs']:,}",
            f"{facts[f'{name}_bytes']:,}",
            "" if published is None else f"{published:,.0f}",
        ])
    title = f"{loaded.name} on {machine.name}, {formats.name}: lengths up to {context} (counted from the lowered program)"
    columns = ["mode", "programs", "bytes", "FlightLLM, LLaMA2-7B on U280 (published)"]
    print_table(title, columns, rows)
