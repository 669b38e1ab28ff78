"""Pictures of timed runs, for reports and manuals: matplotlib without a display."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from emulator.timing import (
    BURST_FIRST,
    BURST_IS_WRITE,
    BURST_LAST,
    RECORD_END,
    RECORD_ISSUE,
    RECORD_TAKEN,
    RECORD_WAIT_FROM,
    TimingResult,
)
from hw.spec.instructions import Unit
from hw.spec.output import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BUSY, _WAITING, _READ, _WRITE = "#2b6ca3", "#d9d9d9", "#3f9b6d", "#c2693a"


def plot_timeline(
    path: str | Path, result: TimingResult, first: int = 0, last: int | None = None, title: str = ""
) -> None:
    """Picture of units over time: execution, waiting for tokens (shaded), and the bus.

    Parameters
    ----------
    path
        PNG or SVG file, by its suffix.
    result
        Of a run with `record=True`.
    first, last
        Cycles shown; by default all.
    title
        Above the picture.
    """
    last = result.cycles if last is None else last
    figure = _figure(10, 3.2)
    axes = figure.add_subplot()
    rows = [unit.name for unit in Unit] + ["bus"]
    for row, unit in enumerate(Unit):
        records = result.records[unit]
        waits = records[:, [RECORD_WAIT_FROM, RECORD_TAKEN]]
        executions = records[:, [RECORD_ISSUE, RECORD_END]]
        axes.broken_barh(
            _spans(waits, first, last), (row - 0.4, 0.8), facecolors=_WAITING, linewidth=0
        )
        axes.broken_barh(
            _spans(executions, first, last), (row - 0.3, 0.6), facecolors=_BUSY, linewidth=0
        )
    for direction, colour in ((0, _READ), (1, _WRITE)):
        bursts = result.bursts[result.bursts[:, BURST_IS_WRITE] == direction]
        beats = bursts[:, [BURST_FIRST, BURST_LAST]] + [0, 1]
        axes.broken_barh(
            _spans(beats, first, last), (len(Unit) - 0.3, 0.6), facecolors=colour, linewidth=0
        )
    axes.set(xlim=(first, last), ylim=(len(rows) - 0.4, -0.6), xlabel="cycle", title=title)
    axes.set_yticks(range(len(rows)), rows)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    _legend(
        figure,
        {"executes": _BUSY, "waits for tokens": _WAITING, "bus reads": _READ, "bus writes": _WRITE},
    )
    _save(figure, path)


def plot_bars(
    path: str | Path,
    groups: Mapping[str, Mapping[str, float]],
    title: str = "",
    unit: str = "cycles",
) -> None:
    """Bars side by side, such as bound, emulator and RTL cycles of several programs.

    Parameters
    ----------
    path
        PNG or SVG file, by its suffix.
    groups
        Value by series (a colour) by group (a place on the axis); a group may lack a series.
    title, unit
        Above the picture; beside the axis.
    """
    series = list(dict.fromkeys(name for values in groups.values() for name in values))
    figure = _figure(max(4.0, 1.2 * len(groups) * max(1, len(series)) / 2 + 2), 3.6)
    axes = figure.add_subplot()
    width = 0.8 / max(1, len(series))
    for i, name in enumerate(series):
        places = [
            g + (i - (len(series) - 1) / 2) * width
            for g, v in enumerate(groups.values())
            if name in v
        ]
        values = [v[name] for v in groups.values() if name in v]
        bars = axes.bar(places, values, 0.92 * width, label=name)
        axes.bar_label(bars, [f"{value:,.0f}" for value in values], fontsize=7)
    axes.set_xticks(range(len(groups)), list(groups))
    axes.set(ylabel=unit, title=title)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    _save(figure, path)


def _spans(pairs: np.ndarray, first: int, last: int) -> Sequence[tuple[float, float]]:
    """Starts and widths of the pairs' parts within the picture; those that touch are joined."""
    result: list[tuple[float, float]] = []
    for begin, end in np.clip(pairs, first, last).tolist():
        if result and begin <= result[-1][0] + result[-1][1]:
            start = result[-1][0]
            result[-1] = (start, max(end, start + result[-1][1]) - start)
        elif end > begin:
            result.append((begin, end - begin))
    return result


def _figure(width: float, height: float) -> "Figure":
    # A figure of its own, not one of pyplot's: no display is looked for and nothing has to be closed.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _legend(figure: "Figure", colours: Mapping[str, str]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=colour, label=name) for name, colour in colours.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)


def _save(figure: "Figure", path: str | Path) -> None:
    from matplotlib import rc_context

    with atomic_write(path) as part, rc_context({"svg.hashsalt": "openlpu"}):
        # Without dates, so that the same picture is the same file.
        metadata = {"Date": None} if part.suffix == ".svg" else {"Software": None}
        figure.savefig(part, dpi=150, metadata=metadata)
