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
    return [system_command, report_command, accuracy_command]


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
        change = dict(entry.get("change_of_tokens_per_second_percent") or {})
        swing = [change.pop(key, None) for key in ("minus_20_percent", "plus_20_percent")]
        other = [f"{key.removeprefix('if_')}: {value:+.1f} %" for key, value in change.items()]
        rows.append([
            entry["name"],
            str(entry["value"]),
            *("" if value is None else f"{value:+.1f} %" for value in swing),
            ", ".join(other),
            f"{entry['source']}: {entry['why']}",
        ])
    print_table(
        "Assumptions, and tokens a second with 20 % less and more",
        ["name", "value", "-20 %", "+20 %", "otherwise", "why"],
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


@click.command("report")
@click.argument("model")
@click.option("--systems", type=int, default=1, show_default=True, help="Systems that are built.")
@json_option
def report_command(model: str, systems: int, as_json: bool) -> None:
    """Chips, area, wires and cost of MODEL with its weights as wires (modelled).

    Costs are ranges, low and high, because the paper gives the cost of a mask set as one.
    """
    from emulator.hardwired_cost import (
        CostInputs,
        costs,
        list_inputs,
        place,
        weight_um2,
        zero_share,
    )
    from emulator.hardwired_system.machine import SystemMachine
    from emulator.hardwired_system.published import published
    from emulator.hardwired_system.study import measure
    from emulator.hardwired_tables import check_tables, contradictions
    from mapping.frontend.model import load_model
    from mapping.hardwired import hardwired_weights, system_model

    inputs = CostInputs()
    config = load_model(model).config
    reference = hardwired_weights(load_model(published()["model"]).config)
    weights = hardwired_weights(config)
    chips = place(weights, weight_um2(inputs, reference), inputs)
    ends = [costs(chips, inputs, end, systems) for end in (0, 1)]
    zeros = zero_share()
    facts: dict[str, Any] = {
        "model": config.name,
        "kind": "modelled",
        "systems": systems,
        "hardwired_weights": weights,
        "chips": chips.count,
        "array_mm2_per_chip": chips.array_mm2,
        "chip_mm2": chips.chip_mm2,
        "total_mm2": chips.total_mm2,
        "wires": round(weights * (1 - zeros)),
        "wires_per_chip": round(weights * (1 - zeros) / chips.count),
        "zero_weight_share": zeros,
        **{name: {"low": ends[0][name], "high": ends[1][name]} for name in ends[0]},
        "inputs": list_inputs(inputs),
    }
    if config.name == published()["model"]:
        rate = measure(system_model(config), SystemMachine(), published()["throughput"]["context"])
        facts["published_tables"] = check_tables(chips, inputs, rate.tokens_per_second)
        facts["contradictions"] = contradictions(chips, inputs)
    if as_json:
        print_json(facts)
        return
    _print_costs(facts)


def _print_costs(facts: dict[str, Any]) -> None:
    plain = {k.replace("_", " "): v for k, v in facts.items() if not isinstance(v, (dict, list))}
    print_facts(plain)
    ranges = {k: v for k, v in facts.items() if isinstance(v, dict)}
    rows = [[name.replace("_", " "), v["low"], v["high"]] for name, v in ranges.items()]
    print_table("Cost and carbon, modelled", ["what", "low", "high"], rows)
    rows = [[i["name"], i["low"], i["high"], f"{i['source']}: {i['why']}"] for i in facts["inputs"]]
    print_table("Inputs", ["name", "low", "high", "source"], rows)
    for table in facts.get("published_tables", [])[:1]:
        rows = [list(row.values()) for row in facts["published_tables"]]
        print_table("Against the published tables", list(table), rows)
    for line in facts.get("contradictions", []):
        click.echo(f"In the paper: {line}")


LARGEST_FOR_ACCURACY = 1 << 26
"""Weights of a model whose arithmetic is followed bit for bit."""


@click.command("accuracy")
@click.argument("model", default="pydoc-gpt-oss")
@click.option(
    "--text", type=click.Path(path_type=Path), help="Text file. [default: the bundled one]"
)
@click.option("--limit", type=int, default=512, show_default=True, help="Tokens to predict.")
@click.option("--window", type=int, default=128, show_default=True, help="Tokens of a window.")
@json_option
def accuracy_command(model: str, text: Path | None, limit: int, window: int, as_json: bool) -> None:
    """What variants of the 16-chip machine cost in accuracy, bit for bit, on a small MODEL (emulated)."""
    import numpy as np

    from emulator.hardwired_system.accuracy import compare
    from emulator.hardwired_system.variants import numeric_variants
    from mapping.frontend.model import MODELS_FOLDER, load_model
    from mapping.hardwired_weights import hardwired_model
    from mapping.reference_gpt_oss import GptOssReference

    loaded = load_model(model)
    if loaded.parameters > LARGEST_FOR_ACCURACY:
        raise InputError(
            f"{loaded.name}: expected a model of at most {LARGEST_FOR_ACCURACY:,} weights, "
            f"found {loaded.parameters:,}: accuracy is measured at small size"
        )
    if limit < 1 or not 1 <= window <= loaded.config.maximum_positions:
        raise InputError(
            f"--limit {limit}, --window {window}: expected 1 or more, and a window of at most "
            f"{loaded.config.maximum_positions} positions"
        )
    reference, wires = GptOssReference(loaded), hardwired_model(loaded)
    path = text or MODELS_FOLDER / "pydoc-llama" / "heldout.txt"
    try:
        content = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: expected UTF-8 text") from None
    tokens = np.array(loaded.tokenizer.encode(content)[: limit + 1], np.int64)
    if len(tokens) < 2:
        raise InputError(f"{path}: expected two tokens or more")
    variants = numeric_variants()
    with progress("measuring", len(variants) + 1) as advance:
        rows = compare(wires, variants, reference.logits, tokens, window, advance)
    if as_json:
        print_json({
            "model": loaded.name,
            "kind": "emulated, bit for bit",
            "tokens": len(tokens) - 1,
            "window": window,
            "variants": rows,
        })
        return
    title = f"{loaded.name}: {len(tokens) - 1} tokens in windows of {window}"
    columns = ["name", "nats a token", "KL, nats", "largest KL", "same choice", "what"]
    names = ("name", "nll", "kl_divergence", "largest_kl_divergence", "same_first_choice", "what")
    print_table(title, columns, [[row[name] for name in names] for row in rows])
