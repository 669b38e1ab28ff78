"""The three tables of `lpu pe compare`, and the exploration."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from emulator.pe.array_model import Product, total_cycles
from hw.spec.element_family import element_spec
from sim_tests.pe_charges import SHARED, Areas, Scaling
from sim_tests.pe_compare import candidate, evaluate, picojoules, synthesize_surroundings
from sim_tests.pe_design import Candidate, Choices, Design, Skew, best_at_area, equal_count
from sim_tests.pe_family import Family
from sim_tests.pe_models import model_products
from sim_tests.pe_published import published_rows

__all__ = ["compare"]

SIDE = 32
"""Rows and columns of the INT8 array whose area is the budget."""

AS_GENERATED = Choices((Scaling.FLOAT,), (True,), (1,), (Skew.PORT,))
"""Arrays as `hw.pe.array` makes them, dequantization as in the paper: FP32, a unit a column."""

STEPS = {
    "generated, FP32 scaling": AS_GENERATED,
    "generated, integer scales": Choices(shadows=(True,), shared=(1,), skews=(Skew.PORT,)),
    "generated, units shared by columns": Choices(shadows=(True,), skews=(Skew.PORT,)),
    "no shadow registers": Choices(skews=(Skew.PORT,)),
    "narrow skew registers": Choices(skews=(Skew.PORT, Skew.STORED)),
    "skew by addresses": Choices(skews=tuple(Skew)),
    "generated, with output scaling and result buffers": Choices(
        shadows=(True,), skews=(Skew.PORT,), outputs=True
    ),
    "the same, output scaling shared by 16 columns": Choices(
        shadows=(True,), skews=(Skew.PORT,), outputs=True, columns_per_output=16
    ),
}
"""What a search may choose from, step by step more."""


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
    areas = Areas(family.library)
    synthesize_surroundings(map(element_spec, family.elements), areas)
    candidates = {name: candidate(name, family, areas) for name in family.elements}
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
    built = _at_area(candidates, baseline, budget, products, unit, AS_GENERATED)
    explored = _at_area(candidates, baseline, budget, products, unit, Choices())
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
        "steps": _steps(candidates, baseline, budget, products),
    }


def _steps(
    candidates: Mapping[str, Candidate],
    baseline: Candidate,
    budget: float,
    products: Sequence[Product],
) -> list[dict[str, Any]]:
    """What each step brings: the fastest W4A8 element of MixPE over the INT8 one with the same choices."""
    mixpe = [c for name, c in candidates.items() if name.startswith("mixpe-a8")]
    rows = []
    square = equal_count(baseline, SIDE, SIDE)
    with_outputs = min(
        replace(square, columns_per_unit=shared, outputs=True).area for shared in SHARED
    )
    for step, choices in STEPS.items():
        room = with_outputs if choices.outputs else budget
        found = [best_at_area(c, room, products, choices) for c in (baseline, *mixpe)]
        designs = [(total_cycles(d.model, products), d) for d in found if d is not None]
        if found[0] is None or len(designs) < 2:
            continue
        cycles, best = min(designs[1:], key=lambda pair: (pair[0], pair[1].area))
        rows.append({
            "step": step,
            "element": best.candidate.spec.name,
            "rows": best.rows,
            "columns": best.columns,
            "shadow": best.shadow,
            "scaling": best.scaling.value if best.scaling else None,
            "columns_per_unit": best.columns_per_unit,
            "skew": best.skew.value,
            "skew_bits": best.skew_bits,
            "cycles": cycles,
            "int8_cycles": designs[0][0],
            "speed_over_int8": designs[0][0] / cycles,
        })
    return rows


def _at_area(
    candidates: Mapping[str, Candidate],
    baseline: Candidate,
    budget: float,
    products: Sequence[Product],
    unit: float,
    choices: Choices,
) -> list[dict[str, Any]]:
    """The fastest array of each element in an area, over that of the baseline."""
    reference = best_at_area(baseline, budget, products, choices)
    assert reference is not None
    figures = evaluate(reference, products, unit)
    rows = []
    for kind in candidates.values():
        design = best_at_area(kind, budget, products, choices)
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
        "skew": design.skew.value,
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
