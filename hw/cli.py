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
@click.option(
    "--parts",
    is_flag=True,
    help="Instead: the resources of the whole, part by part; parts that the table lacks are synthesized and added.",
)
@json_option
def synth_command(
    target: str, components: tuple[str, ...], clock: bool, parts: bool, as_json: bool
) -> None:
    """Resources and clocks of a processor's components, without vendor tools.

    Resources are those of UltraScale+ by Yosys, with DSP48E2 primitives: each module is synthesized by
    itself and counted as often as it is there. Clocks are those of an ECP5-85 of speed grade 6 by
    nextpnr, with inferred multipliers and with the part's own. Results are kept between runs.
    """
    from hw.spec.machine_file import load_machine
    from hw.synthesis_report import SynthesisReport
    from hw.tools import tool_version

    if parts:
        _parts(target, as_json)
        return
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
        note(f"{failure['component']}: no {failure['figure']}: {failure['reason']}")
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


def _parts(target: str, as_json: bool) -> None:
    """Bring the table of parts up to date, and print the sums beside what the target's board has."""
    from hw.part_synthesis import synthesize_parts
    from hw.spec.board import KINDS, load_board
    from hw.spec.design import design_parts, design_resources, total_resources
    from hw.spec.machine_file import load_machine

    spec, board = load_machine(target), load_board(target)
    family = board.family if board else "xcup"
    with progress("parts", len(design_parts(spec))) as advance:
        for _ in synthesize_parts(spec, family):
            advance(1)
    found = design_resources(spec, family)
    total, available = total_resources(found), board.resources() if board else None
    if as_json:
        rows = [
            {"part": p.part.name, "instances": p.part.instances, "each": p.each, "source": p.source}
            for p in found
        ]
        print_json({"target": spec.name, "parts": rows, "total": total, "available": available})
        return
    rows = [
        [p.part.name, p.part.instances, *(_whole(p.each[k]) for k in KINDS), p.source]
        for p in found
    ]
    rows.append(["all", None, *(_whole(round(total[k])) for k in KINDS), "sum"])
    if board and available:
        rows.append([board.part, None, *(available[k] for k in KINDS), "published"])
    print_table(
        f"{spec.name}: resources of its parts ({family}), each by itself",
        ["part", "instances", *KINDS, "origin"],
        rows,
    )
