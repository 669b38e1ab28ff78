"""Base netlist and metal program of a matrix, written to a folder, with the proof that they are the matrix."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from emulator.hardwired.metal import read_metal
from emulator.hardwired.weights import SmallWeights
from hw.hardwired.adder_algebra import check_base_neuron
from hw.hardwired.base import BaseSpec, build_base_neuron, plan_base
from hw.hardwired.base_verilog import base_verilog, metal_verilog
from hw.hardwired.metal import MetalProgram, fit
from hw.spec.errors import CheckFailed
from hw.spec.output import atomic_write

__all__ = ["check_program", "generate", "plan_for"]

NAME = "hardwired"
VERILOG_POINTS = 300_000
"""Programs of more wires are written as arrays only."""


def plan_for(
    weights: SmallWeights,
    expected: SmallWeights | None = None,
    *,
    taps: int = 1,
    bits: int = 1,
    margin: float | None = None,
) -> BaseSpec:
    """A base for matrices like `expected`, or like the weights themselves."""
    outputs, inputs = weights.values.shape
    shares = (expected or weights).shares()
    return plan_base(inputs, outputs, shares, taps=taps, bits=bits, margin=margin)


def check_program(spec: BaseSpec, metal: MetalProgram, weights: SmallWeights) -> int:
    """Prove that base and metal program together are the weights; returns how many were compared.

    The neuron is proved by algebra for all inputs and all wirings, and the wires are followed one by one.

    Raises
    ------
    CheckFailed
        Naming what is not so.
    """
    check_base_neuron(spec)
    read, biases = read_metal(
        metal.ports,
        metal.slots,
        metal.initial,
        slot_values=np.repeat(spec.magnitudes, spec.slots).tolist(),
        slice_ports=spec.slice_ports,
        inputs=spec.inputs,
        taps=spec.taps,
        digits=spec.schedule.cycles * spec.bits,
        result_bits=spec.result_bits,
        base_constant=build_base_neuron(spec, keep=False).constant,
    )
    wanted = weights.integers()
    if not np.array_equal(read, wanted):
        row, column = np.argwhere(read != wanted)[0].tolist()
        raise CheckFailed(
            f"metal program: output {row}, input {column}: the wires spell {read[row, column]}, "
            f"the weight is {wanted[row, column]}"
        )
    if biases.any():
        raise CheckFailed(f"metal program: output {int(biases.argmax())} has a bias")
    return read.size


def generate(weights: SmallWeights, spec: BaseSpec, folder: Path) -> dict[str, Any]:
    """Write `base.v`, `metal.npz`, `report.json` and, for small programs, `metal.v`; returns the report.

    Raises
    ------
    InputError
        If the weights do not fit the base.
    CheckFailed
        If base and metal program are not the weights.
    """
    began = time.perf_counter()
    metal = fit(spec, weights.values, weights.exponents)
    fitted = time.perf_counter()
    checked = check_program(spec, metal, weights)
    proved = time.perf_counter()
    counts = build_base_neuron(spec, keep=False).netlist.counts()
    figures = metal.report(spec)
    size = spec.inputs * spec.outputs
    report = {
        "weights": weights.source,
        "inputs": spec.inputs,
        "outputs": spec.outputs,
        "magnitudes": spec.magnitudes,
        "cycles": spec.schedule.cycles,
        "bits_per_cycle": spec.bits,
        "taps": spec.taps,
        **figures,
        "slices_per_neuron": spec.slices,
        "slots_by_magnitude": spec.slots,
        "neuron": counts.as_dict(),
        "area": counts.area * spec.outputs,
        "area_per_weight": counts.area * spec.outputs / size,
        "weights_proved": checked,
        "fit_seconds": fitted - began,
        "proof_seconds": proved - fitted,
    }
    with atomic_write(folder) as part:
        part.mkdir()
        (part / "base.v").write_text(base_verilog(spec, NAME))
        np.savez(
            part / "metal.npz",
            ports=metal.ports,
            slots=metal.slots,
            start=_bits(metal, spec),
            exponents=metal.exponents,
        )
        if figures["programmable_points"] <= VERILOG_POINTS:
            (part / "metal.v").write_text(metal_verilog(spec, metal, NAME))
        report["total_seconds"] = time.perf_counter() - began
        (part / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def _bits(metal: MetalProgram, spec: BaseSpec) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Bits of the accumulators' starts, lowest first: [outputs, result_bits]."""
    rows = [[value >> k & 1 for k in range(spec.result_bits)] for value in metal.initial]
    return np.array(rows, np.uint8)
