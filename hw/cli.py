"""Commands of the hardware generator; what is slow to import is imported inside their bodies."""

from typing import Any

import click

from emulator.console import json_option, note, print_json, print_table, progress


def commands() -> list[click.Command]:
    """Commands for the front door, `lpu`."""
    return [synth_command]


@click.command("synth")
@click.option("--target", required=True, help="A bundled target, or a target file.")
@click.option(
    "--component",
    "components",
    multiple=True,
    help="Only this one: dsp48e2, pair_mac, chain, array, ..., or a module of the core.",
)
@click.option(
    "--clock/--no-clock", default=True, help="Place and route critical components on an ECP5."
)
@json_option
def synth_command(target: str, components: tuple[str, ...], clock: bool, as_json: bool) -> None:
    """Resources and clocks of a processor's components, without vendor tools.

    Resources are those of UltraScale+ by Yosys, with DSP48E2 primitives: each module is synthesized by
    itself and counted as often as it is there. Clocks are those of an ECP5-85 of speed grade 6 by
    nextpnr, with inferred multipliers and with the part's own. Results are kept between runs.
    """
    from hw.spec.machine import load_machine
    from hw.synthesis_report import SynthesisReport
    from hw.tools import tool_version

    for program in ("yosys", "nextpnr-ecp5"):
        tool_version(program)
    report = SynthesisReport(load_machine(target))
    steps = report.tasks([report.check(name) for name in components], clock)
    rows: list[Any] = []
    with progress("components", len(steps)) as advance:
        for step in steps:
            rows += step()
            advance(1)
    result = report.describe(rows)
    if as_json:
        print_json(result)
    else:
        _print(result)


def _print(result: dict[str, Any]) -> None:
    resources, clocks = result["resources"], result["clocks"]
    for failure in result["failures"]:
        note(f"{failure['component']}: no resources: {failure['reason']}")
    kinds = ("dsp", "lut", "ff", "bram", "uram")
    columns = ["component", "of", "instances", *(f"{k} each" for k in kinds), *kinds]
    print_table(
        f"{result['target']}: resources, {resources['source']}",
        columns,
        [
            [r["component"], r["of"], r["instances"]]
            + [_whole(r[part][k]) for part in ("each", "total") for k in kinds]
            for r in resources["rows"]
        ],
    )
    if clocks["rows"]:
        print_table(
            f"{result['target']}: clocks, {clocks['source']}",
            [
                "component",
                "multiplier",
                "MHz",
                "wanted",
                "slowest path: from",
                "to",
                "logic ns",
                "routing ns",
            ],
            [
                [
                    r["component"],
                    r["multiplier"],
                    round(r["clock_hz"] / 1e6, 1),
                    r["wanted_hz"] / 1e6,
                    *(r["path"][k] for k in ("from", "to", "logic_ns", "routing_ns")),
                ]
                for r in clocks["rows"]
            ],
        )


def _whole(value: float) -> float:
    return int(value) if value == int(value) else value
