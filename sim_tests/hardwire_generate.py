"""Base netlist and metal program of a matrix, written to a folder, with the proof that they are the matrix."""

import json
import time
from dataclasses import asdict
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any

import numpy as np

from emulator.hardwired.metal import read_metal
from emulator.hardwired.weights import SmallWeights
from hw.hardwired.adder_algebra import check_base_neuron
from hw.hardwired.base import BaseSpec, build_base_neuron, plan_base
from hw.hardwired.base_verilog import base_verilog, metal_verilog
from hw.hardwired.metal import MetalProgram, fit
from hw.spec.errors import CheckFailed, InputError
from hw.spec.output import atomic_write
from mapping.frontend.files import read_json_object

__all__ = ["check_program", "generate", "load_base", "plan_for"]

NAME = "hardwired"
BASE_NETLIST, BASE_SPEC = "base.v", "base.json"
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


def load_base(folder: Path) -> BaseSpec:
    """The base that an earlier `generate` wrote, whose netlist has to be what its spec makes, byte for byte.

    Raises
    ------
    InputError
        If a file is missing or its content is no base.
    CheckFailed
        If the netlist is another.
    """
    path = folder / BASE_SPEC
    fields = read_json_object(path)
    names = {field.name for field in dataclass_fields(BaseSpec)}
    if set(fields) != names:
        raise InputError(f"{path}: expected the fields {', '.join(sorted(names))}")
    for name, value in fields.items():
        numbers = value if isinstance(value, list) else [value]
        if isinstance(value, list) != (name in {"magnitudes", "slots"}) or not all(
            isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 1 << 20 for n in numbers
        ):
            raise InputError(f"{path}: {name}: expected whole numbers, found {str(value)[:40]}")
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    spec = BaseSpec(**values)
    netlist = folder / BASE_NETLIST
    if not netlist.is_file():
        raise InputError(f"{netlist}: expected the base netlist, found none")
    if netlist.read_bytes() != base_verilog(spec, NAME).encode():
        raise CheckFailed(
            f"{netlist}: is not the netlist of {path}; the silicon would not be the same"
        )
    return spec


def generate(weights: SmallWeights, spec: BaseSpec, folder: Path) -> dict[str, Any]:
    """Write the base (`base.v`, `base.json`), the program (`metal.npz`, and `metal.v` if it is small) and a report.

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
        (part / BASE_NETLIST).write_text(base_verilog(spec, NAME))
        (part / BASE_SPEC).write_text(json.dumps(asdict(spec), indent=2) + "\n")
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
