"""Everything that `lpu hardwire system` tells, gathered in one dictionary."""

from collections.abc import Callable
from typing import Any

from emulator.hardwired_system.machine import SystemMachine, assumptions
from emulator.hardwired_system.model import SystemModel
from emulator.hardwired_system.published import (
    published,
    published_shares,
    share_deviation,
)
from emulator.hardwired_system.study import (
    DEFAULT_STEPS,
    bound,
    bounds,
    check_context,
    facts,
    measure,
    sensitivity,
)
from emulator.hardwired_system.variants import improvements, readings

THROUGHPUT_TOLERANCE = 1.5
"""Per cent of the published throughput."""
SHARE_TOLERANCE = 3.0
"""Percentage points of a published share."""

Told = Callable[[int], None]


def system_report(
    model: SystemModel,
    machine: SystemMachine,
    context: int,
    steps: int = DEFAULT_STEPS,
    study: bool = True,
    told: Told = lambda done: None,
) -> dict[str, Any]:
    """Measure a machine, and compare it with what was published and with what could be.

    Parameters
    ----------
    study
        Whether readings, variants and the sensitivity of each assumption are measured too.
    told
        Called with 1 when a part is done; there are four with the study, one without.

    Raises
    ------
    InputError
        If the context or the number of steps is not possible.
    """
    check_context(model, context)
    measured = measure(model, machine, context, steps)
    alone = measure(model, machine, context, users=1)
    name, _ = bound(model, machine, context)
    result: dict[str, Any] = {"model": model.name, "kind": "emulated", **facts(measured)}
    result["tokens_per_second_single_user_alone"] = alone.tokens_per_second
    result["bound"] = name
    result["bounds"] = bounds(model, machine, context)
    result["beyond_maximum_positions"] = context > model.maximum_positions
    result["published"] = comparison(model, context, measured.tokens_per_second, measured.shares)
    result["assumptions"] = assumptions(machine)
    told(1)
    if not study:
        return result
    changes = sensitivity(model, machine, context)
    for entry in result["assumptions"]:
        entry["change_of_tokens_per_second_percent"] = changes.get(entry["name"])
    told(1)
    result["readings"] = compare_readings(model)
    result["statement"] = statement(result["readings"])
    told(1)
    result["variants"] = compare_variants(model, context)
    told(1)
    return result


def comparison(
    model: SystemModel, context: int, tokens_per_second: float, shares: dict[str, float]
) -> dict[str, Any] | None:
    """Return published figures of this model and context beside ours, or None if there are none."""
    paper = published()
    if model.name != paper["model"]:
        return None
    result: dict[str, Any] = {}
    if context == paper["throughput"]["context"]:
        rate = paper["throughput"]["tokens_per_second"]
        result["tokens_per_second"] = rate
        result["deviation_percent"] = 100 * (tokens_per_second / rate - 1)
    if context in published_shares():
        result["time_shares"] = published_shares()[context]
        result["largest_share_deviation_points"] = share_deviation(context, shares)
    return {"source": paper["source"], **result} if result else None


def compare_readings(model: SystemModel) -> list[dict[str, Any]]:
    """Measure each reading at every published context."""
    result = []
    for reading in readings():
        points = []
        for context in published_shares():
            measured = measure(model, reading.machine, context)
            points.append({
                **facts(measured),
                "published": comparison(
                    model, context, measured.tokens_per_second, measured.shares
                ),
            })
        result.append({"name": reading.name, "what": reading.change, "points": points})
    return result


def fits(reading: dict[str, Any]) -> bool:
    """Whether a reading is within tolerance of every published figure."""
    for point in reading["points"]:
        paper = point["published"]
        if paper is None:
            return False
        if abs(paper.get("deviation_percent", 0.0)) > THROUGHPUT_TOLERANCE:
            return False
        if paper.get("largest_share_deviation_points", 0.0) > SHARE_TOLERANCE:
            return False
    return True


def statement(found: list[dict[str, Any]]) -> str:
    """Say in words which reading the published figures allow, from the measured ones alone."""
    if found[0]["points"][0]["published"] is None:
        return "nothing was published of this model"
    good = [reading for reading in found if fits(reading)]
    bad = [reading for reading in found if not fits(reading)]
    words = [f"{reading['name']}: {reading['what']}" for reading in good]
    text = "Published figures are met by " + ("; ".join(words) or "no reading")
    for reading in bad:
        worst = max(
            reading["points"], key=lambda p: p["published"]["largest_share_deviation_points"]
        )
        points = worst["published"]["largest_share_deviation_points"]
        text += (
            f". Not by {reading['name']}: {points:.1f} points off at {worst['context']} positions"
        )
    return text + "."


def compare_variants(model: SystemModel, context: int) -> list[dict[str, Any]]:
    """Measure the steps from the published machine to the best variant."""
    base = measure(model, SystemMachine(), context).tokens_per_second
    rows = []
    for variant in improvements():
        measured = measure(model, variant.machine, context)
        alone = measure(model, variant.machine, context, users=1)
        rows.append({
            "name": variant.name,
            "what": variant.change,
            **facts(measured),
            "tokens_per_second_single_user_alone": alone.tokens_per_second,
            "over_published_machine": measured.tokens_per_second / base,
            "bound": bound(model, variant.machine, context)[0],
            "partial_sum_bits": variant.machine.partial_sum_bits,
        })
    return rows
