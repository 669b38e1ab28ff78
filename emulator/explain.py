"""What `lpu explain` and `lpu demo` leave in a folder: trace, timeline, roofline."""

from pathlib import Path

from emulator.roofline import phases, plot_roofline
from hw.spec.program import Program


def write_explanation(program: Program, prompt_length: int, tokens: int, folder: Path) -> dict[str, str]:
    """Write everything that pictures a run of so many tokens; gives what each file is, by name."""
    folder.mkdir(exist_ok=True)
    plot_roofline(program.machine, phases(program, prompt_length, tokens), folder / "roofline.png")
    return {"roofline.png": "how near prefill and decode come to what ports and multipliers allow"}
