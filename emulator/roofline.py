"""How near a run comes to what memory ports and multipliers allow: figures and a picture."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emulator.report import bandwidth_cycles, multiplications
from emulator.timing import TimingEngine
from hw.spec.machine import MachineSpec
from hw.spec.output import atomic_write
from hw.spec.program import Program


@dataclass(frozen=True)
class Phase:
    """One phase of a run.

    Attributes
    ----------
    name : str
    macs : int
        Multiplications that the matrix engine was asked for, padding included.
    bytes : int
        Moved between memory and the processor, all channels, both directions.
    cycles : int
        Emulated.
    bandwidth_bound, compute_bound : int
        Cycles that the ports alone, and the multipliers alone, would need.
    """

    name: str
    macs: int
    bytes: int
    cycles: int
    bandwidth_bound: int
    compute_bound: int


def phases(program: Program, prompt_length: int, tokens: int) -> list[Phase]:
    """Prefill (to the first generated token), decode (if there are more), and the whole run."""
    engine = TimingEngine(program)
    first = _phase("prefill", program, engine, prompt_length, 1)
    if tokens == 1:
        return [first]
    whole = _phase("whole run", program, engine, prompt_length, tokens)
    spec = program.machine
    decode = _bounded(
        "decode",
        spec,
        whole.macs - first.macs,
        whole.bytes - first.bytes,
        whole.cycles - first.cycles,
    )
    return [first, decode, whole]


def _phase(
    name: str, program: Program, engine: TimingEngine, prompt_length: int, tokens: int
) -> Phase:
    result = engine.run(prompt_length, tokens)
    moved = (result.bytes_read + result.bytes_written) * program.machine.channels
    return _bounded(
        name, program.machine, multiplications(program, prompt_length, tokens), moved, result.cycles
    )


def _bounded(name: str, spec: MachineSpec, macs: int, moved: int, cycles: int) -> Phase:
    ports = bandwidth_cycles(spec, moved // spec.channels)
    most = spec.multipliers * spec.matrix_columns
    return Phase(name, macs, moved, cycles, math.ceil(ports), math.ceil(macs / most))


def plot_roofline(spec: MachineSpec, points: list[Phase], path: Path) -> None:
    """Draw the phases under the roof of a machine; PNG or SVG by the suffix."""
    from matplotlib.figure import Figure

    memory = spec.memory
    bandwidth = spec.word_bytes * memory.beat_numerator / memory.beat_denominator
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    intensities = [point.macs / point.bytes for point in points]
    multipliers = spec.multipliers * spec.matrix_columns
    ridge = multipliers / bandwidth
    x = np.geomspace(min([*intensities, ridge]) / 4, max([*intensities, ridge]) * 4, 200)
    axes.plot(
        x,
        np.minimum(x * bandwidth, multipliers),
        color="black",
        label="roof: ports and multipliers",
    )
    for point, intensity in zip(points, intensities, strict=True):
        reached = point.macs / point.cycles
        share = reached / min(intensity * bandwidth, multipliers)
        axes.plot(
            intensity, reached, "o", label=f"{point.name}: {share:.0%} of the roof (emulated)"
        )
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="multiplications a byte moved",
        ylabel="multiplications a cycle",
        title=f"{spec.name}: {multipliers} multipliers, {bandwidth:g} bytes a cycle",
    )
    axes.grid(which="both", alpha=0.25)
    axes.legend()
    with atomic_write(path) as part:
        figure.savefig(part, format=path.suffix.lstrip(".") or "png", dpi=120)
