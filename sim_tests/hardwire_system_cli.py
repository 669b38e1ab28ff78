"""`lpu hardwire system`: the 16-chip machine; what is slow to import is imported inside."""

from pathlib import Path
from typing import Any

import click

from emulator.console import (
    json_option,
    note,
    print_facts,
    print_json,
    print_table,
    progress,
)
from hw.spec.errors import InputError


def system_commands() -> list[click.Command]:
    """Commands of the group `lpu hardwire`."""
    return [system_command]


@click.command("system")
@click.argument("model")
@click.option(
    "--context", type=int, default=2048, show_default=True, help="Positions of every sequence."
)
@click.option("--steps", type=int, default=6, show_default=True, help="Tokens of every sequence.")
@click.option("--variant", help="Measure this variant instead of the published machine.")
@click.option("--study/--no-study", default=True, help="Sensitivity, readings and variants too.")
@click.option("--mixed", type=int, help="Serve so many sequences of different lengths instead.")
@click.option(
    "--prompt-length", type=int, default=256, show_default=True, help="Mean, with --mixed."
)
@click.option(
    "--tokens", type=int, default=64, show_default=True, help="Mean output, with --mixed."
)
@click.option(
    "--arrivals", type=float, help="Sequences a second, with --mixed. [default: all at once]"
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of lengths and arrivals.")
@click.option(
    "--plot", type=click.Path(path_type=Path), help="Draw published and emulated figures."
)
@json_option
def system_command(
    model: str,
    context: int,
    steps: int,
    variant: str | None,
    study: bool,
    mixed: int | None,
    prompt_length: int,
    tokens: int,
    arrivals: float | None,
    seed: int,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Throughput of MODEL, a gpt-oss, on sixteen chips whose wires are its weights (emulated).

    Tells tokens a second, shares of a token's time, which bound holds, every assumption that the paper
    does not state with what 20 % more or less of it change, and what faster variants give.
    """
    from emulator.hardwired_system.plot import plot_system
    from emulator.hardwired_system.report import system_report
    from emulator.hardwired_system.workload import mixed_requests, serve
    from hw.spec.output import check_output
    from mapping.frontend.model import load_model
    from mapping.hardwired import system_model

    if plot is not None:
        check_output(plot)
    shape = system_model(load_model(model).config)
    machine = _machine(variant)
    if mixed is not None:
        requests = mixed_requests(machine, mixed, prompt_length, tokens, arrivals, seed)
        facts = {"model": shape.name, "kind": "emulated", **serve(shape, machine, requests, seed)}
        if as_json:
            print_json(facts)
        else:
            _print_plain(facts)
        return
    parts = 4 if study else 1
    with progress("measuring", parts) as advance:
        facts = system_report(shape, machine, context, steps, study, advance)
    if facts["beyond_maximum_positions"]:
        note(
            f"{shape.name} has {shape.maximum_positions} positions: beyond them this is timing only"
        )
    if plot is not None:
        plot_system(plot, shape, machine)
    if as_json:
        print_json(facts)
    else:
        _print_report(facts)


def _machine(variant: str | None) -> Any:
    from emulator.hardwired_system.machine import SystemMachine
    from emulator.hardwired_system.variants import improvements, readings

    if variant is None:
        return SystemMachine()
    known = {v.name: v.machine for v in (*readings(), *improvements())}
    if variant not in known:
        raise InputError(f"--variant: expected one of {', '.join(known)}, found {variant!r}")
    return known[variant]


def _print_plain(facts: dict[str, Any]) -> None:
    plain = {k.replace("_", " "): v for k, v in facts.items() if not isinstance(v, (dict, list))}
    print_facts(plain)
    print_facts({f"time in {k}": f"{100 * v:.1f} %" for k, v in facts["time_shares"].items()})


def _print_report(facts: dict[str, Any]) -> None:
    _print_plain(facts)
    paper = facts["published"]
    if paper:
        names = ("deviation_percent", "largest_share_deviation_points")
        print_facts({f"published: {n.replace('_', ' ')}": paper[n] for n in names if n in paper})
    rows = []
    for entry in facts["assumptions"]:
        change = entry.get("change_of_tokens_per_second_percent") or {}
        rows.append([
            entry["name"],
            str(entry["value"]),
            *(
                f"{change[key]:+.1f} %" if key in change else ""
                for key in ("minus_20_percent", "plus_20_percent")
            ),
            f"{entry['source']}: {entry['why']}",
        ])
    print_table(
        "Assumptions, and tokens a second with 20 % less and more",
        ["name", "value", "-20 %", "+20 %", "why"],
        rows,
    )
    for reading in facts.get("readings", []):
        rows = [
            [p["context"], p["tokens_per_second"], *(100 * s for s in p["time_shares"].values())]
            for p in reading["points"]
        ]
        print_table(
            f"Reading '{reading['name']}': {reading['what']}",
            ["context", "tokens/s", "links %", "projection %", "attention %", "stall %", "other %"],
            rows,
        )
    if "statement" in facts:
        click.echo(facts["statement"])
    if "variants" in facts:
        print_table(
            "Variants, each on top of the one before",
            ["name", "tokens/s", "a user", "a user alone", "x", "bound", "what"],
            [
                [
                    v["name"],
                    v["tokens_per_second"],
                    v["tokens_per_second_per_user"],
                    v["tokens_per_second_single_user_alone"],
                    v["over_published_machine"],
                    v["bound"],
                    v["what"],
                ]
                for v in facts["variants"]
            ],
        )
