"""Figures of the designs of one hardwired matrix: cells, area, time, activity, and ratios between them."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from emulator.hardwired.product import multiply
from hw.hardwired.counts import CellCounts
from hw.hardwired.designs import DESIGNS
from hw.hardwired.frame import feed_counts
from hw.hardwired.operator import Feed, Operator, OperatorSpec
from hw.spec.errors import CheckFailed
from sim_tests.gate_simulation import GateSimulation, run_operator

__all__ = ["DesignFigures", "measure", "ratios"]

KEPT_WEIGHTS = 20_000
"""Up to this size networks are kept, simulated and, if wanted, written; larger ones are only counted."""
SAMPLE_ROWS = 4
SAMPLE_RUNS = 64
SAMPLE_VECTORS = 4
SAMPLE_ELEMENTS = 4096
BASELINE = "neuron"


@dataclass(frozen=True)
class DesignFigures:
    """What one design of a matrix costs.

    Parameters
    ----------
    counts : CellCounts
        Structural, exact, of the whole matrix, without what feeds it.
    feed : CellCounts
        Registers that hold the input vector and give it out in digits; none where it comes whole.
    cycles, bits : int
        Cycles of a vector, and bits of an element a cycle.
    depth : int or None
        Cells on the longest path, of a sample of rows where the matrix is large.
    toggles : float or None
        Changes of cell outputs for each weight and vector, without glitches, random inputs; of a sample.
    checked : int
        Results of the generated network that were compared with the integer reference.
    seconds : float
        To generate or count it.
    """

    name: str
    counts: CellCounts
    feed: CellCounts
    cycles: int
    bits: int
    depth: int | None
    toggles: float | None
    checked: int
    seconds: float
    facts: Mapping[str, float]

    def as_dict(self, weights: int) -> dict[str, Any]:
        """Figures by name, areas in um2 (structural)."""
        return {
            "title": DESIGNS[self.name].title,
            **self.counts.as_dict(),
            "area": self.counts.area,
            "area_per_weight": self.counts.area / weights,
            "area_with_feed": (self.counts + self.feed).area,
            "cycles": self.cycles,
            "bits_per_cycle": self.bits,
            "area_cycles": self.counts.area * self.cycles,
            "depth": self.depth,
            "toggles_per_weight": self.toggles,
            "results_checked": self.checked,
            "generation_seconds": self.seconds,
            **({"facts": dict(self.facts)} if self.facts else {}),
        }


def measure(
    name: str, spec: OperatorSpec, save: Callable[[Operator], None] | None = None
) -> DesignFigures:
    """Generate a design, count it, and compare it with the integer reference on random vectors.

    Matrices of more than `KEPT_WEIGHTS` weights are counted without being kept; simulation and depth are
    then those of a few of their rows.

    Parameters
    ----------
    save : callable, optional
        Is given the design, where it is kept.

    Raises
    ------
    CheckFailed
        If a result is wrong.
    """
    weights = spec.inputs * spec.outputs
    kept = weights <= KEPT_WEIGHTS
    began = time.perf_counter()
    operator = DESIGNS[name].build(spec, kept)
    seconds = time.perf_counter() - began
    if kept and save is not None:
        save(operator)
    sample = operator if kept else DESIGNS[name].build(_some_rows(spec), True)
    toggles, checked = _simulate(sample)
    return DesignFigures(
        name=name,
        counts=operator.netlist.counts(),
        feed=feed_counts(spec.inputs, operator.schedule),
        cycles=operator.schedule.cycles,
        bits=operator.schedule.bits,
        depth=sample.netlist.depth(),
        toggles=toggles if kept or name != "adder_graph" else None,
        checked=checked,
        seconds=seconds,
        facts=operator.facts,
    )


def _some_rows(spec: OperatorSpec) -> OperatorSpec:
    """A few rows, fewer if they are long."""
    rows = max(1, min(SAMPLE_ROWS, spec.outputs, 2 * SAMPLE_ELEMENTS // spec.inputs))
    chosen = np.linspace(0, spec.outputs - 1, rows).astype(int).tolist()
    biases = tuple(spec.biases[row] for row in chosen) if spec.biases else ()
    return replace(spec, weights=tuple(spec.weights[row] for row in chosen), biases=biases)


def _simulate(operator: Operator) -> tuple[float, int]:
    """Changes for each weight and vector, and how many results were compared."""
    spec = operator.spec
    rng = np.random.default_rng(7)
    simulation = GateSimulation(operator.netlist, SAMPLE_RUNS)
    # The memory design needs a cycle for each element: long matrices take their time.
    vectors = SAMPLE_VECTORS if operator.schedule.feed is not Feed.ELEMENTS else 2
    for number in range(vectors):
        inputs = rng.integers(-128, 128, (SAMPLE_RUNS, spec.inputs))
        if number == 0:
            inputs[0], inputs[1] = -128, 127
        got = run_operator(operator, inputs, simulation)
        wanted = multiply(spec.weights, inputs, spec.biases or None)
        if not np.array_equal(got, wanted):
            run, output = np.argwhere(got != wanted)[0].tolist()
            raise CheckFailed(
                f"{operator.name}: output {output}: expected {wanted[run, output]}, "
                f"found {got[run, output]}"
            )
    toggles = simulation.toggles / (SAMPLE_RUNS * vectors * spec.inputs * spec.outputs)
    return toggles, SAMPLE_RUNS * vectors * spec.outputs


def ratios(
    figures: Mapping[str, DesignFigures], neurons: Mapping[int, DesignFigures]
) -> dict[str, dict[str, float | None]]:
    """Each design over the hardwired neuron: area, area x time, and area at equal bits a cycle.

    Parameters
    ----------
    figures : mapping
        All designs, by name.
    neurons : mapping of int to DesignFigures
        The hardwired neuron by the bits that it is fed a cycle; 8 is a vector a cycle.

    Returns
    -------
    dict
        Three ratios for each design. `equal_bits` compares with the neuron that is fed as many bits a
        cycle, and is None for a design that is fed elements one after another.
    """
    base = figures[BASELINE]
    table: dict[str, dict[str, float | None]] = {}
    for name, design in figures.items():
        equal = neurons.get(design.bits)
        sequential = name == "memory_mac"
        table[name] = {
            "area": design.counts.area / base.counts.area,
            "area_time": design.counts.area * design.cycles / (base.counts.area * base.cycles),
            "equal_bits": None
            if equal is None or sequential
            else design.counts.area / equal.counts.area,
        }
    return table


def bit_serial_share(figures: Mapping[str, DesignFigures]) -> dict[str, float]:
    """How the ratio of cell embedding to hardwired neuron comes about, as two factors.

    Returns
    -------
    dict
        `total`, and its factors: `serial` for doing the same a few bits a cycle in one merged tree,
        `regions` for grouping by value.
    """
    cell, serial, neuron = (figures[name].counts.area for name in ("cell", "serial_cell", BASELINE))
    return {"total": cell / neuron, "serial": cell / serial, "regions": serial / neuron}


def all_figures(
    spec: OperatorSpec,
    names: Sequence[str],
    save: Callable[[Operator], None] | None = None,
    progress: Callable[[int], None] = lambda steps: None,
) -> tuple[dict[str, DesignFigures], dict[int, DesignFigures]]:
    """Figures of the named designs, and of neurons by bits a cycle for `ratios`."""
    figures: dict[str, DesignFigures] = {}
    for name in names:
        figures[name] = measure(name, spec, save)
        progress(1)
    neurons = {spec.bits: figures[BASELINE]}
    for bits in {design.bits for design in figures.values()} - {spec.bits}:
        neurons[bits] = measure(BASELINE, replace(spec, bits=bits))
        progress(1)
    return figures, neurons
