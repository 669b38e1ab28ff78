"""The picture of `lpu pe compare`: fidelity against area x energy, and the front of the best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hw.spec.output import atomic_write

__all__ = ["pareto_front", "plot_pareto"]

_NEIGHBOURS = 1.0
"""Decibels between points whose labels would cross each other."""
_ABOVE = 2.0
"""Decibels from a point to its upright label."""
_APART = 1.045
"""Least ratio of the places of two upright labels."""
_BESIDE = 1.03


@dataclass(frozen=True)
class _Label:
    """A point and its name; `upright` is the place of an upright one along the axis."""

    text: str
    x: float
    y: float
    upright: float | None


def _place_labels(rows: Sequence[Mapping[str, Any]]) -> list[_Label]:
    """Names beside lonely points, and upright above many of equal fidelity, side by side."""
    groups: list[list[Mapping[str, Any]]] = []
    for row in sorted(rows, key=lambda r: r["snr_decibels"]):
        if groups and row["snr_decibels"] - groups[-1][-1]["snr_decibels"] < _NEIGHBOURS:
            groups[-1].append(row)
        else:
            groups.append([row])
    labels = []
    for group in groups:
        place = 0.0
        for row in sorted(group, key=lambda r: r["area_energy_over_int8"]):
            x, y = row["area_energy_over_int8"], row["snr_decibels"]
            place = max(x, place * _APART)
            upright = place if len(group) > 2 else None
            labels.append(_Label(row["element"], x, y, upright))
    return labels


def plot_pareto(report: Mapping[str, Any], path: Path) -> None:
    """Fidelity against area x energy of one product, and the front of the best.

    Raises
    ------
    InputError
        If the folder of `path` does not exist.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = report["elements"]
    figure, axes = pyplot.subplots(figsize=(9, 7), layout="constrained")
    axes.set_xscale("log")
    for label in _place_labels(rows):
        axes.plot(label.x, label.y, "o", color="tab:blue", markersize=5)
        upright = label.upright is not None
        axes.annotate(
            label.text,
            (label.x, label.y),
            xytext=(label.upright or label.x * _BESIDE, label.y + (_ABOVE if upright else 0)),
            rotation=90 if upright else 0,
            ha="center" if upright else "left",
            va="bottom" if upright else "center",
            fontsize=7,
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "shrinkB": 2} if upright else None,
        )
    front = pareto_front(rows)
    axes.step(
        [row["area_energy_over_int8"] for row in front],
        [row["snr_decibels"] for row in front],
        where="post",
        color="tab:red",
        label="Pareto front",
    )
    axes.set_xlabel(
        f"area x energy of a product, {report['baseline']} = 1 (synthesized x simulated)"
    )
    axes.set_ylabel("quantization signal to noise, dB (measured on the bundled model)")
    axes.legend()
    with atomic_write(path) as part:
        figure.savefig(part, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def pareto_front(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows that no other beats in both area x energy and fidelity, the cheapest first."""
    front: list[Mapping[str, Any]] = []
    for row in sorted(rows, key=lambda r: (r["area_energy_over_int8"], -r["snr_decibels"])):
        if not front or row["snr_decibels"] > front[-1]["snr_decibels"]:
            front.append(row)
    return front
