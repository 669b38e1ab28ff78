"""What `lpu explain` and `lpu demo` leave in a folder: trace, timelines, roofline."""

from pathlib import Path

from emulator.plots import plot_timeline
from emulator.roofline import phases, plot_roofline
from emulator.timing import RECORD_END, TimingEngine
from emulator.trace import write_trace
from hw.spec.instructions import Unit
from hw.spec.program import Program


def write_explanation(
    program: Program, prompt_length: int, tokens: int, folder: Path
) -> dict[str, str]:
    """Write everything that pictures a run of so many tokens; gives what each file is, by name."""
    folder.mkdir(exist_ok=True)
    engine = TimingEngine(program)
    result = engine.run(prompt_length, tokens, record=True)
    target = program.machine.name
    write_trace(folder / "trace.json", engine, result)
    plot_timeline(
        folder / "timeline.png", result, title=f"{target}: {result.cycles:,} cycles (emulated)"
    )
    # The last step: the units between the last two tokens.
    steps = result.records[Unit.SYS][:, RECORD_END]
    first = int(steps[-2]) if len(steps) > 1 else 0
    plot_timeline(
        folder / "step.png", result, first, result.cycles, f"{target}: the last token (emulated)"
    )
    plot_roofline(program.machine, phases(program, prompt_length, tokens), folder / "roofline.png")
    return {
        "trace.json": "every instruction and burst of a run; open it with ui.perfetto.dev",
        "timeline.png": "the same as a picture",
        "step.png": "its last token",
        "roofline.png": "how near prefill and decode come to what ports and multipliers allow",
    }
