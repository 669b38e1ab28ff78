"""The three tables of `lpu pe compare`, the exploration, and the picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emulator.pe.array_model import Product
from hw.spec.output import atomic_write
from sim_tests.pe_charges import Scaling
from sim_tests.pe_compare import (
    Candidate,
    Design,
    best_at_area,
    candidate,
    equal_count,
    evaluate,
    picojoules,
)
from sim_tests.pe_family import Family
from sim_tests.pe_models import model_products
from sim_tests.pe_published import published_rows

__all__ = ["compare", "plot_pareto"]

SIDE = 32
"""Rows and columns of the INT8 array whose area is the budget."""

PAPER_SCALING = (Scaling.FLOAT,)


def compare(family: Family, model: str, tokens: int) -> dict[str, Any]:
    """All figures of a comparison.

    Parameters
    ----------
    family : Family
        Synthesized elements, an INT8 and the FP16 one among them.
    model : str
        Name of a model.
    tokens : int
        Length of its prompt.
    """
    products = model_products(model, tokens)
    candidates = {name: candidate(name, family) for name in family.elements}
    unit = picojoules(candidates)
    assert family.baseline is not None
    baseline = candidates[family.baseline]
    budget = equal_count(baseline, SIDE, SIDE).area
    same = evaluate(equal_count(baseline, SIDE, SIDE), products, unit)
    count = [
        _row(equal_count(kind, SIDE, SIDE), products, unit, same, baseline)
        for kind in candidates.values()
    ]
    # As the generated arrays are, and then whatever is fastest, of the baseline too.
    built = _at_area(candidates, baseline, budget, products, unit, PAPER_SCALING, (True,))
    explored = _at_area(candidates, baseline, budget, products, unit, tuple(Scaling), (True, False))
    generated = next(row["cycles"] for row in built if row["element"] == family.baseline)
    for row in explored:
        row["speed_over_generated_int8"] = generated / row["cycles"]
    return {
        "model": model,
        "tokens": tokens,
        "library": family.library.name,
        "area_unit": family.library.unit,
        "baseline": family.baseline,
        "area_budget": budget,
        "elements": [_element_row(c, candidates, family, unit) for c in candidates.values()],
        "published_configuration": published_rows(),
        "equal_count": count,
        "equal_area": built,
        "explored": sorted(explored, key=lambda row: -row["speed_over_int8"]),
    }


def _at_area(
    candidates: Mapping[str, Candidate],
    baseline: Candidate,
    budget: float,
    products: Sequence[Product],
    unit: float,
    scalings: Sequence[Scaling],
    shadows: Sequence[bool],
) -> list[dict[str, Any]]:
    """The fastest array of each element in an area, over that of the baseline."""
    reference = best_at_area(baseline, budget, products, scalings, shadows)
    assert reference is not None
    figures = evaluate(reference, products, unit)
    rows = []
    for kind in candidates.values():
        design = best_at_area(kind, budget, products, scalings, shadows)
        if design is not None:
            rows.append(_row(design, products, unit, figures, baseline))
    return rows


def _element_row(
    kind: Candidate, candidates: Mapping[str, Candidate], family: Family, unit: float
) -> dict[str, Any]:
    assert family.baseline is not None
    energy = kind.switched * unit / kind.products_per_cycle
    area = kind.area / kind.products_per_cycle
    base = candidates[family.baseline]
    return {
        "element": kind.spec.name,
        "area": kind.area,
        "area_over_int8": kind.area / base.area,
        "longest_path": kind.delay,
        "products_per_cycle": kind.products_per_cycle,
        "picojoules_per_product": energy,
        "area_energy_over_int8": area * energy / (base.area * base.switched * unit),
        "snr_decibels": kind.snr,
    }


def _row(
    design: Design,
    products: Sequence[Product],
    unit: float,
    reference: Mapping[str, float],
    baseline: Candidate,
) -> dict[str, Any]:
    figures = evaluate(design, products, unit)
    return {
        "element": design.candidate.spec.name,
        "rows": design.rows,
        "columns": design.columns,
        "shadow": design.shadow,
        "scaling": design.scaling.value if design.scaling else None,
        "columns_per_unit": design.columns_per_unit,
        "area": design.area,
        "cycles": figures["cycles"],
        "speed_over_int8": reference["cycles"] / figures["cycles"],
        "at_own_clock": reference["cycles"]
        / figures["cycles"]
        * (baseline.delay / design.candidate.delay),
        "energy_millijoules": figures["energy_millijoules"],
        "energy_over_int8": figures["energy_millijoules"] / reference["energy_millijoules"],
        "snr_decibels": design.candidate.snr,
    }


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
    figure, axes = pyplot.subplots(figsize=(9, 6), layout="constrained")
    axes.set_xscale("log")
    for row in rows:
        x, y = row["area_energy_over_int8"], row["snr_decibels"]
        axes.plot(x, y, "o", color="tab:blue")
        axes.annotate(row["element"], (x, y), xytext=(4, 3), textcoords="offset points", fontsize=7)
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
