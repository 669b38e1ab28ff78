"""Published points and emulated curves in one picture."""

from pathlib import Path
from typing import TYPE_CHECKING

from emulator.hardwired_system.machine import SystemMachine
from emulator.hardwired_system.model import SystemModel
from emulator.hardwired_system.published import published, published_shares
from emulator.hardwired_system.study import LONGEST_PUBLISHED, Measurement, measure
from emulator.hardwired_system.variants import improvements
from hw.spec.output import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CONTEXTS = tuple(1 << power for power in range(9, 20, 2)) + (1 << 16,)
_COLOURS = {
    "links": "#2b6ca3",
    "projection": "#3f9b6d",
    "attention": "#c2693a",
    "stall": "#8a4f9e",
    "other": "#777777",
}


def plot_system(path: str | Path, model: SystemModel, machine: SystemMachine) -> None:
    """Write a picture: tokens a second and shares of a token's time, over the context.

    Parameters
    ----------
    path
        PNG or SVG file, by its suffix.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    contexts = sorted({c for c in CONTEXTS if c <= LONGEST_PUBLISHED} | set(published_shares()))
    ours = [measure(model, machine, context) for context in contexts]
    _throughput(left, model, contexts, ours)
    _shares(right, model, contexts, ours)
    with atomic_write(path) as part, rc_context({"svg.hashsalt": "openlpu"}):
        metadata = {"Date": None} if part.suffix == ".svg" else {"Software": None}
        figure.savefig(part, dpi=150, metadata=metadata)


def _throughput(
    axes: "Axes", model: SystemModel, contexts: list[int], ours: list[Measurement]
) -> None:
    axes.plot(
        contexts, [m.tokens_per_second for m in ours], "-", label="published machine, emulated"
    )
    for name in ("real resources", "heads"):
        machine = next(v.machine for v in improvements() if v.name == name)
        rates = [measure(model, machine, context).tokens_per_second for context in contexts]
        axes.plot(contexts, rates, "--", label=f"variant '{name}', emulated")
    paper = published()
    if model.name == paper["model"]:
        point = paper["throughput"]
        axes.plot(point["context"], point["tokens_per_second"], "ko", label="HNLPU, published")
        for other, marker in (("WSE-3", "s"), ("H100", "^")):
            rate = paper["others"][other]["tokens_per_second"]
            axes.plot(point["context"], rate, f"k{marker}", fillstyle="none",
                      label=f"{other}, published")  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="context, positions", ylabel="tokens a second")
    axes.set_title(f"{model.name}, all users together")
    axes.legend(frameon=False, fontsize=7)


def _shares(axes: "Axes", model: SystemModel, contexts: list[int], ours: list[Measurement]) -> None:
    for name, colour in _COLOURS.items():
        axes.plot(contexts, [100 * m.shares[name] for m in ours], "-", color=colour, label=name)
        if model.name == published()["model"]:
            points = {c: 100 * row[name] for c, row in published_shares().items()}
            axes.plot(list(points), list(points.values()), "o", color=colour)
    axes.set(xscale="log", xlabel="context, positions", ylabel="per cent of a token's time")
    axes.set_title("lines emulated, dots published")
    axes.legend(frameon=False, fontsize=7)
