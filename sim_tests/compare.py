"""One run four times: what ports and multipliers allow, what the emulator says, what the hardware counts."""

from dataclasses import dataclass
from pathlib import Path

from emulator.roofline import phases
from emulator.timing import TimingEngine
from hw.spec.instructions import Unit
from hw.spec.output import atomic_write
from hw.spec.program import Program
from hw.spec.registers import ErrorCode
from sim_tests.simulate import simulate

MODELLED, EMULATED, MEASURED = "modelled bound", "emulated", "measured on RTL"


@dataclass(frozen=True)
class Row:
    """Cycles of a run by one of the four accounts.

    Attributes
    ----------
    name : str
    source : str
        MODELLED, EMULATED or MEASURED.
    cycles : int
    busy, waiting : dict of str to float
        Share of the cycles in which a unit worked, and waited for tokens; units of which this account knows nothing
        are absent.
    """

    name: str
    source: str
    cycles: int
    busy: dict[str, float]
    waiting: dict[str, float]


def compare_rows(
    program: Program, prompt_length: int, tokens: int, rtl: bool, engine: str
) -> list[Row]:
    """Bandwidth bound, compute bound, emulator and, if `rtl`, the hardware in simulation.

    No stop token ends the runs. Timing does not depend on the values of tokens, so the prompt is just a count.

    Raises
    ------
    InputError
        If the program cannot take so many tokens, or a tool is missing.
    RuntimeError
        If the simulation does not end well.
    """
    whole = phases(program, prompt_length, tokens)[-1]
    timing = TimingEngine(program).run(prompt_length, tokens)
    rows = [
        # A bound keeps the unit it is a bound of busy all the time, and knows nothing of the others.
        Row("bandwidth bound", MODELLED, whole.bandwidth_bound, {Unit.LD.name: 1.0}, {}),
        Row("compute bound", MODELLED, whole.compute_bound, {Unit.MPE.name: 1.0}, {}),
        Row(
            "emulator",
            EMULATED,
            timing.cycles,
            {unit.name: timing.busy[unit] / timing.cycles for unit in Unit},
            {unit.name: timing.waited[unit] / timing.cycles for unit in Unit},
        ),
    ]
    if rtl:
        rows.append(_rtl_row(program, prompt_length, tokens, engine, timing.cycles))
    return rows


def _rtl_row(program: Program, prompt_length: int, tokens: int, engine: str, expected: int) -> Row:
    vocabulary = program.information.get("vocabulary_size", 2)
    prompt = [i % vocabulary for i in range(1, prompt_length + 1)]
    limit = 2 * expected + program.machine.watchdog_cycles
    result = simulate(program.machine, program, prompt, tokens, engine, limit=limit)
    error = result.error
    if error.code != ErrorCode.NONE:
        unit = Unit(error.unit).name
        core = f"core {error.core}, " if program.machine.cores > 1 else ""
        raise RuntimeError(
            f"the hardware stopped with {error.code.name} in {core}{unit} at {error.pc}"
        )
    shares = {name: count / result.cycles for name, count in result.counters.items()}
    return Row(
        "RTL",
        MEASURED,
        result.cycles,
        {unit.name: shares[f"busy_{unit.name.lower()}"] for unit in Unit},
        {unit.name: shares[f"wait_{unit.name.lower()}"] for unit in Unit},
    )


def plot_rows(rows: list[Row], title: str, path: Path) -> None:
    """Draw cycles and utilisation side by side; PNG or SVG by the suffix."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = [f"{row.name}\n({row.source})" for row in rows]
    colours = [f"C{i}" for i in range(len(rows))]
    bars = left.barh(names, [row.cycles for row in rows], color=colours)
    left.bar_label(bars, [f"{row.cycles:,}" for row in rows], padding=3)
    left.margins(x=0.25)
    left.locator_params(axis="x", nbins=4)
    left.invert_yaxis()
    left.set(xlabel="cycles")
    shown = [
        (row, colour)
        for row, colour in zip(rows, colours, strict=True)
        if len(row.busy) == len(Unit)
    ]
    for number, (row, colour) in enumerate(shown):
        places = [i + 0.4 * number for i in range(len(Unit))]
        right.bar(
            places,
            [100 * row.busy[unit.name] for unit in Unit],
            0.36,
            color=colour,
            label=f"{row.name}: busy",
        )
        right.plot(
            places, [100 * row.waiting[unit.name] for unit in Unit], "_", color="black", ms=14
        )
    right.plot([], [], "_", color="black", ms=14, label="waiting for tokens")
    right.set_xticks(
        [i + 0.2 * (len(shown) - 1) for i in range(len(Unit))], [unit.name for unit in Unit]
    )
    right.set(ylabel="% of the run", ylim=(0, 105))
    right.legend(fontsize="small")
    figure.suptitle(title)
    with atomic_write(path) as part:
        figure.savefig(part, format=path.suffix.lstrip(".") or "png", dpi=120)
