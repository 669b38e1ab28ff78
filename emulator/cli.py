"""Commands of the emulator; what is slow to import is imported inside their bodies."""

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emulator.console import json_option, note, print_facts, print_json, print_table, progress

if TYPE_CHECKING:
    from emulator.roofline import Phase
    from emulator.run import Generation
    from emulator.text import ProgramText
    from emulator.timing import TimingResult
    from emulator.work import Work
    from hw.spec.instructions import Unit
    from hw.spec.program import Program


def commands() -> list[click.Command]:
    """Commands for the front door, `lpu`."""
    return [run_command, explain_command]


def _file_option(name: str, help: str) -> Any:
    return click.option(name, type=click.Path(path_type=Path), help=help)


@click.command("run")
@click.argument("program", type=click.Path(path_type=Path))
@click.option("--prompt", help="Text to continue.")
@click.option("--prompt-ids", help="Token ids to continue, separated by commas.")
@click.option(
    "--tokens", type=int, default=32, show_default=True, help="Tokens to generate, at most."
)
@click.option(
    "--target", help="Clock and memory timing of this target instead; it must be the same machine."
)
@_file_option("--trace", "Trace to write, for Perfetto or chrome://tracing.")
@_file_option("--plot", "Picture of the trace to write, PNG or SVG.")
@click.option("--check/--no-check", default=True, help="Look for races and overruns while running.")
@json_option
def run_command(
    program: Path,
    prompt: str | None,
    prompt_ids: str | None,
    tokens: int,
    target: str | None,
    trace: Path | None,
    plot: Path | None,
    check: bool,
    as_json: bool,
) -> None:
    """Run PROGRAM on the emulator.

    The text is that of the hardware, bit for bit, and the cycles are those that it takes.
    """
    from emulator.report import bandwidth_cycles, utilisation
    from emulator.run import Generation
    from emulator.text import ProgramText, parse_prompt
    from hw.spec.output import check_output, check_picture

    if trace is not None:
        check_output(trace)
    if plot is not None:
        check_picture(plot)
    loaded = _load(program, target)
    text = ProgramText(loaded, str(program))
    generation = Generation(loaded, parse_prompt(text, prompt, prompt_ids), tokens, check)
    expected = generation.forecast()
    note(
        f"{expected.instructions:,} instructions, {expected.cycles:,} cycles of the target: "
        f"about {_duration(expected.seconds)} of emulation"
    )
    if as_json:
        _run_quietly(generation)
    else:
        _run_aloud(generation, text)
    timing = generation.timing(record=trace is not None or plot is not None)
    if trace is not None or plot is not None:
        _picture(generation, timing, trace, plot)
    speed, uses = generation.speed(timing), utilisation(timing)
    facts = {
        "program": str(program),
        "model": loaded.information.get("model"),
        "target": loaded.machine.name,
        "recipe": loaded.information.get("recipe"),
        "prompt_tokens": generation.prompt,
        "tokens": generation.generated,
        "text": text.decode([*generation.prompt, *generation.generated]),
        "stopped": generation.stopped,
        "cycles": timing.cycles,
        **dataclasses.asdict(speed),
        "bandwidth_fraction": bandwidth_cycles(
            loaded.machine, timing.bytes_read + timing.bytes_written
        )
        / timing.cycles,
        "bytes_read": timing.bytes_read * loaded.machine.channels,
        "bytes_written": timing.bytes_written * loaded.machine.channels,
        "utilisation": {
            use.unit.name: dict(zip(("busy", "waiting", "idle"), use.fractions, strict=True))
            for use in uses
        },
        "instructions": expected.instructions,
        "predicted_emulation_seconds": expected.seconds,
        "emulation_seconds": generation.seconds,
    }
    if as_json:
        print_json(facts)
        return
    _print_run(facts, loaded.machine.clock_hz)


def _load(path: Path, target: str | None) -> "Program":
    """A program, on its own machine or on another target of the same geometry."""
    from hw.spec.machine_file import load_machine
    from hw.spec.program import load_program

    if target is None:
        return load_program(path)
    machine = load_machine(target)
    return dataclasses.replace(load_program(path, machine), machine=machine)


def _picture(
    generation: "Generation", timing: "TimingResult", trace: Path | None, plot: Path | None
) -> None:
    """Write trace and timeline of a recorded run."""
    from emulator.plots import plot_timeline
    from emulator.trace import write_trace

    if trace is not None:
        write_trace(trace, generation.engine, timing)
        note(f"{trace}: open it with ui.perfetto.dev")
    if plot is not None:
        plot_timeline(plot, timing, title=f"{timing.cycles:,} cycles (emulated)")


def _run_quietly(generation: "Generation") -> None:
    with progress("tokens", generation.tokens) as advance:
        for _ in generation.stream():
            advance(1)


def _run_aloud(generation: "Generation", text: "ProgramText") -> None:
    """Print the prompt, then the text as it is generated."""
    shown = text.decode(generation.prompt)
    click.echo(
        " ".join(map(str, generation.prompt)) + " |"
        if shown is None
        else click.style(shown, bold=True),
        nl=False,
    )
    if shown is None:
        click.echo(" ", nl=False)
    sys.stdout.flush()
    for piece in text.pieces(generation.prompt, generation.stream()):
        click.echo(piece, nl=False)
        sys.stdout.flush()
    click.echo("\n")


def _print_run(facts: dict[str, Any], clock_hz: int) -> None:
    ending = " (ended by a stop token)" if facts["stopped"] else ""
    decode = facts["tokens_per_second"]
    lines = {
        "tokens": f"{len(facts['prompt_tokens'])} of the prompt, {len(facts['tokens'])} generated{ending}",
        "cycles": f"{facts['cycles']:,} (emulated; equal to the hardware's on the target's memory model)",
        "time": f"{facts['seconds'] * 1e3:,.3f} ms at {clock_hz / 1e6:,.0f} MHz, "
        f"{facts['prompt_seconds'] * 1e3:,.3f} ms of them to the first token",
        "decode": "-" if decode is None else f"{decode:,.1f} tokens/s",
        "memory ports": f"{facts['bandwidth_fraction']:.1%} of their bandwidth used",
        "emulation": f"{_duration(facts['emulation_seconds'])} (predicted {_duration(facts['predicted_emulation_seconds'])})",
    }
    print_facts(lines)
    click.echo()
    rows = [
        [name, *(f"{share:.1%}" for share in shares.values())]
        for name, shares in facts["utilisation"].items()
    ]
    print_table(
        "share of the run", ["unit", "busy", "waiting for others", "fetching, or done"], rows
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _print_work(
    title: str, cycles: int, work: "list[Work]", waits: "dict[tuple[Unit, str], int]"
) -> None:
    """Cycles by unit and kind of work, and what units wait for."""
    rows = [
        [
            row.unit.name,
            row.kind,
            row.instructions,
            row.busy,
            f"{row.critical / cycles:.1%}",
            row.waited,
        ]
        for row in work
        if max(row.busy, row.critical) >= cycles / 1000
    ]
    print_table(
        title,
        ["unit", "work", "instructions", "busy", "on the critical chain", "waited before"],
        rows,
    )
    click.echo(
        "The critical chain is what the end of the run waited for, step by step back to its start; it adds up to 100 %."
    )
    click.echo("Rows below a thousandth of the run are left out here, not in --json.\n")
    ordered = sorted(waits.items(), key=lambda item: (item[0][0], -item[1]))
    rows = [[unit.name, name, waited, f"{waited / cycles:.1%}"] for (unit, name), waited in ordered]
    print_table("waiting for tokens", ["unit", "waits for", "cycles", "of the run"], rows)


def _print_phases(points: "list[Phase]") -> None:
    """Prefill and decode beside the bounds of ports and multipliers."""
    click.echo()
    rows = [
        [point.name, point.cycles, point.bandwidth_bound, point.compute_bound,
         f"{max(point.bandwidth_bound, point.compute_bound) / point.cycles:.1%}"]
        for point in points
    ]  # fmt: skip
    columns = [
        "phase",
        "cycles (emulated)",
        "bandwidth bound (modelled)",
        "compute bound (modelled)",
        "of the bound reached",
    ]
    print_table("against the machine's bounds", columns, rows)


@click.command("explain")
@click.argument("program", type=click.Path(path_type=Path))
@click.option(
    "--prompt-length",
    type=click.IntRange(1),
    default=32,
    show_default=True,
    help="Tokens of the prompt.",
)
@click.option(
    "--tokens", type=click.IntRange(1), default=16, show_default=True, help="Tokens to generate."
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Folder for trace and pictures."
)
@json_option
def explain_command(
    program: Path, prompt_length: int, tokens: int, output: Path | None, as_json: bool
) -> None:
    """Show where the cycles of PROGRAM go.

    By unit, by kind of work, and on the chain of instructions that sets the length of a run; with -o, as a trace
    and pictures too.
    """
    from emulator.explain import write_explanation
    from emulator.machine import check_request
    from emulator.roofline import phases
    from emulator.timing import TimingEngine
    from emulator.work import waits_for, work_table
    from hw.spec.output import check_output
    from hw.spec.program import load_program

    if output is not None:
        check_output(output)
    loaded = load_program(program)
    check_request(loaded, [0] * prompt_length, tokens)
    result = TimingEngine(loaded).run(prompt_length, tokens, record=True)
    work = work_table(loaded, result)
    waits = waits_for(loaded, result)
    points = phases(loaded, prompt_length, tokens)
    if output is not None:
        write_explanation(loaded, prompt_length, tokens, output)
    if as_json:
        print_json({
            "program": str(program),
            "target": loaded.machine.name,
            "prompt_length": prompt_length,
            "tokens": tokens,
            "cycles": result.cycles,
            "work": [{**dataclasses.asdict(row), "unit": row.unit.name} for row in work],
            "waits": [
                {"unit": unit.name, "for": name, "cycles": n} for (unit, name), n in waits.items()
            ],
            "phases": [dataclasses.asdict(point) for point in points],
        })
        return
    title = f"{prompt_length} prompt and {tokens} generated tokens"
    _print_work(f"{title}: {result.cycles:,} cycles (emulated)", result.cycles, work, waits)
    _print_phases(points)
    if output is not None:
        click.echo(f"trace and pictures are in {output}")
