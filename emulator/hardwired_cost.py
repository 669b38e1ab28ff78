"""What hardwired weights cost: chips, masks, wafers, re-spins, a system over three years, carbon.

Weights live in ten of seventy masks, so that chips share the other sixty and a new set of weights needs
ten new masks a chip. Every input is a parameter with its source; where the paper gives a range, low and
high are computed side by side.
"""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hw.spec.errors import InputError

PAPER = "published: HNLPU, arXiv 2508.16151 v2"
ASSUMED = "assumed"
HOURS_A_YEAR = 8760


def _input(low: float, high: float, source: str, why: str) -> Any:
    return field(default=(low, high), metadata={"source": source, "why": why})


Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class CostInputs:
    """Inputs of the cost model, each (low, high) of cost."""

    masks: Range = _input(70, 70, PAPER, "masks of a full set")
    weight_masks: Range = _input(
        10, 10, PAPER, "masks that depend on the weights, M8 to M11; no EUV"
    )
    weight_mask_share: Range = _input(
        10 / 130,
        10 / 130,
        PAPER,
        "of the cost of a set: an EUV mask costs six DUV ones, a set is 130",
    )
    mask_set: Range = _input(15e6, 30e6, PAPER, "dollars of a full 5 nm set; 16 sets are $480M")
    array_mm2: Range = _input(573.16, 573.16, PAPER, "hardwired array of a full chip")
    other_mm2: Range = _input(253.92, 253.92, PAPER, "all else on a chip")
    chip_watts: Range = _input(308.39, 308.39, PAPER, "of a full chip")
    pue: Range = _input(1.4, 1.4, PAPER, "power of a data centre over that of its machines")
    years: Range = _input(3, 3, PAPER, "time of use")
    development: Range = _input(
        27.08e6, 58.74e6, "published, derived", "initial cost less masks and one set of modules"
    )
    wafer: Range = _input(
        17_000, 18_500, ASSUMED, "dollars of a 5 nm wafer, 300 mm; press estimates"
    )
    defects_cm2: Range = _input(0.10, 0.15, ASSUMED, "defects a square centimetre; Murphy's yield")
    hbm_gigabyte: Range = _input(10, 20, ASSUMED, "dollars of a gigabyte of HBM")
    hbm_gigabytes: Range = _input(192, 192, PAPER, "of a module")
    packaging: Range = _input(1_500, 3_000, ASSUMED, "dollars to package and test a module")
    electricity: Range = _input(0.10, 0.10, ASSUMED, "dollars a kilowatt-hour")
    infrastructure: Range = _input(
        218e3,
        218e3,
        "assumed, fitted to one published figure",
        "dollars a system in three years: server, network, building; from 50 systems at the low end",
    )
    updates: Range = _input(2, 2, PAPER, "new sets of weights in three years of annual updates")
    carbon_kwh: Range = _input(0.4, 0.4, ASSUMED, "kg of CO2 a kilowatt-hour")
    carbon_wafer: Range = _input(1_400, 1_400, ASSUMED, "kg of CO2 a 5 nm wafer, 2 kg a cm2")
    carbon_hbm: Range = _input(0.3, 0.3, ASSUMED, "kg of CO2 a gigabyte of HBM")
    carbon_gpu: Range = _input(
        164, 164, ASSUMED, "kg of CO2 to make an H100 with its share of a board"
    )

    def pick(self, end: int) -> dict[str, float]:
        """Return all inputs at the low (0) or the high (1) end of cost."""
        return {entry.name: getattr(self, entry.name)[end] for entry in dataclasses.fields(self)}


def list_inputs(inputs: CostInputs) -> list[dict[str, Any]]:
    """Every input with its source."""
    return [
        {
            "name": entry.name,
            "low": getattr(inputs, entry.name)[0],
            "high": getattr(inputs, entry.name)[1],
            "source": entry.metadata["source"],
            "why": entry.metadata["why"],
        }
        for entry in dataclasses.fields(inputs)
    ]


def dies_per_wafer(area_mm2: float, diameter_mm: float = 300.0) -> int:
    """Whole dies of a wafer: its area over theirs, less those that the edge cuts."""
    gross = math.pi * (diameter_mm / 2) ** 2 / area_mm2
    return max(1, int(gross - math.pi * diameter_mm / math.sqrt(2 * area_mm2)))


def murphy_yield(area_mm2: float, defects_cm2: float) -> float:
    """Share of good dies by Murphy's model."""
    faults = area_mm2 / 100 * defects_cm2
    return ((1 - math.exp(-faults)) / faults) ** 2


@dataclass(frozen=True)
class Chips:
    """How a model lies on chips.

    Members
    -------
    weights : int
        Hardwired weights: all matrices that multiply, no embedding table that is only read.
    count : int
    array_mm2, chip_mm2, total_mm2 : float
        Array and whole area of one chip, and of all.
    """

    weights: int
    count: int
    array_mm2: float
    chip_mm2: float

    @property
    def total_mm2(self) -> float:
        """Silicon of the system."""
        return self.count * self.chip_mm2


def weight_um2(inputs: CostInputs, published_weights: int) -> float:
    """Area of one weight in the published array: 16 chips of it hold all of gpt-oss-120b."""
    return 16 * inputs.array_mm2[0] * 1e6 / published_weights


def place(weights: int, um2: float, inputs: CostInputs) -> Chips:
    """Lay weights out on as few chips as their area allows, evenly.

    Raises
    ------
    InputError
        If there are no weights.
    """
    if weights < 1:
        raise InputError(f"weights: expected 1 or more, found {weights}")
    array = weights * um2 * 1e-6
    # A hair of slack, so that the published model fills its sixteen chips and no seventeenth.
    count = max(1, math.ceil(array / inputs.array_mm2[0] - 1e-9))
    each = array / count
    return Chips(weights, count, each, each + inputs.other_mm2[0])


def costs(chips: Chips, inputs: CostInputs, end: int, systems: int = 1) -> dict[str, float]:
    """Return dollars and kilograms of `systems` systems at the low (0) or high (1) end.

    Raises
    ------
    InputError
        If there is no system.
    """
    if systems < 1:
        raise InputError(f"systems: expected 1 or more, found {systems}")
    v = inputs.pick(end)
    good = dies_per_wafer(chips.chip_mm2) * murphy_yield(chips.chip_mm2, v["defects_cm2"])
    module = v["wafer"] / good + v["hbm_gigabyte"] * v["hbm_gigabytes"] + v["packaging"]
    modules = chips.count * module
    weight_masks = chips.count * v["weight_mask_share"] * v["mask_set"]
    shared_masks = (1 - v["weight_mask_share"]) * v["mask_set"]
    watts = chips.count * v["chip_watts"] * chips.chip_mm2 / (v["array_mm2"] + v["other_mm2"])
    kwh = watts * v["pue"] / 1000 * v["years"] * HOURS_A_YEAR
    masks = shared_masks + weight_masks
    initial = masks + v["development"] + modules
    respin = weight_masks + modules
    running = v["infrastructure"] + kwh * v["electricity"]
    static = initial + (systems - 1) * modules + systems * running
    updated = static + v["updates"] * (respin + (systems - 1) * modules)
    made = (1 + v["updates"]) * chips.count * systems
    carbon = made * (v["carbon_wafer"] / good + v["carbon_hbm"] * v["hbm_gigabytes"])
    return {
        "good_dies_per_wafer": good,
        "yield": good / dies_per_wafer(chips.chip_mm2),
        "module_dollars": module,
        "shared_masks_dollars": shared_masks,
        "weight_masks_dollars": weight_masks,
        "masks_dollars": masks,
        "full_sets_dollars": chips.count * v["mask_set"],
        "initial_dollars": initial,
        "respin_dollars": respin,
        "static_dollars": static,
        "updated_dollars": updated,
        "system_kilowatts": watts * v["pue"] / 1000,
        "carbon_kg": carbon + systems * kwh * v["carbon_kwh"],
    }


def zero_share(seed: int = 0, blocks: int = 20_000) -> float:
    """Share of MXFP4 codes that are zero when normal weights are rounded to it: these need no wire."""
    weights = np.random.default_rng(seed).standard_normal((blocks, 32))
    exponent = np.floor(np.log2(np.abs(weights).max(axis=1, keepdims=True))) - 2
    return float(np.mean(np.abs(weights) / 2.0**exponent <= 0.25))
