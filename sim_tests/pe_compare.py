"""Speed and energy of whole models on arrays of each processing element, everything charged.

Area: synthesized elements, operand registers, shadow registers, skew registers, decoders, aligners, row
sums, dequantization units; memory of sums over groups by the bit (assumed). Time: closed form of an
output-stationary array, all at one clock. Energy: capacitance that the synthesized netlist switches on
real tensors, scaled so that the FP16 element has its published energy; memories published (CACTI).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from emulator.pe.array_model import Product, total_cycles, traffic
from emulator.pe.golden import sums
from hw.spec.element_family import element_spec
from hw.spec.errors import CheckFailed
from hw.spec.processing_element import Operand, ProcessingElementSpec
from sim_tests.gate_netlist import GateNetlist
from sim_tests.liberty import Library
from sim_tests.pe_charges import Areas, charge, surroundings
from sim_tests.pe_design import STORED_BITS, Candidate, Design
from sim_tests.pe_family import Family
from sim_tests.pe_tensors import quantize, real_tensors, signal_to_noise

__all__ = ["candidate", "evaluate", "group_of", "picojoules", "synthesize_surroundings"]

FP16_PICOJOULES = 0.77
"""Of an FP16 MAC in 28 nm; published (BitMoD, HPCA 2025). Fixes the unit of switched capacitance."""

DRAM_READ, DRAM_WRITE = 0.629, 0.766
WEIGHT_READ, ACTIVATION_READ, OUTPUT_WRITE = 0.033, 0.035, 0.013
"""Picojoules a bit in 28 nm; published (CACTI, in the public simulator of MixPE)."""

STREAMS = 24
"""Elements of the array whose operands are simulated, each over a whole sum."""

_GROUPED = {
    Operand.INT4: 128,
    Operand.UINT4: 128,
    Operand.INT5: 128,
    Operand.E2M1: 32,
    Operand.DECODED_FLINT: 128,
    Operand.BIT_TERM: 128,
}


def group_of(spec: ProcessingElementSpec) -> int | None:
    """Weights that share a scale."""
    return (
        None
        if spec.name == "tender"
        else _GROUPED.get(spec.weight, 128 if spec.name == "bitfusion" else None)
    )


def _passes(spec: ProcessingElementSpec) -> int:
    """Digits of an activation at a weight port, where both operands are activations."""
    if spec.name.startswith("dequant"):
        return 1  # the scale carries the number, with a weight of one
    if spec.name == "bitfusion":
        return 2  # one 8-bit product a cycle instead of two
    needed = {
        Operand.INT8: 8,
        Operand.FP16: 11,
        Operand.INT12: 11,
        Operand.INT14: 11,
        Operand.INT24: 11,
    }
    if spec.activation not in needed or spec.weight in (Operand.INT8, Operand.FP16, Operand.E2M1):
        return 1
    return -(-needed[spec.activation] // 4)


def _measured(name: str, netlist: str, library: Library) -> tuple[float, float]:
    """Switched capacitance a cycle, operand registers included, and decibels."""
    spec = element_spec(name)
    tensors = real_tensors()
    quantized = quantize(spec, tensors)
    rng = np.random.default_rng(1)
    rows = rng.integers(0, len(quantized.activation_codes), STREAMS)
    columns = rng.integers(0, len(quantized.weight_codes), STREAMS)
    weight = quantized.weight_codes[columns].T
    activation = quantized.activation_codes[rows].T
    control = quantized.control[columns].T
    clear = np.broadcast_to(
        (np.arange(len(weight)) % quantized.group_cycles == 0)[:, None], weight.shape
    )
    wanted = sums(spec, weight, activation, True, clear, control)
    ports = {"weight": weight, "activation": activation, "clear": clear}
    ports["valid"] = np.ones(weight.shape)
    if spec.control_bits:
        ports["control"] = control
    flat = {port: values.T.ravel().astype(np.uint64) for port, values in ports.items()}
    total = np.zeros(wanted.size, np.uint64)
    total[spec.latency :] = wanted.T.ravel()[: -spec.latency].astype(np.uint64)
    gates = GateNetlist(netlist, library)
    activity = gates.run_element(flat, total, wanted.size)
    if activity.errors:
        raise CheckFailed(
            f"{name}: {activity.errors} bits of sums differ between netlist and golden twin"
        )
    register = gates.registers[0].cell
    switched = activity.switched
    for port in ("weight", "activation", "control"):
        if port in flat:
            changes = np.bitwise_count(flat[port][1:] ^ flat[port][:-1]).mean()
            bits = getattr(spec, f"{port}_bits")
            switched += changes * register.capacitances[register.data]
            switched += 2 * bits * register.capacitances[register.clock]
    return float(switched), signal_to_noise(tensors, quantized)


def synthesize_surroundings(
    specs: Iterable[ProcessingElementSpec],
    areas: Areas,
    done: Callable[[int], None] = lambda steps: None,
) -> None:
    """Synthesize what elements need around them, on all cores; kept between runs."""
    circuits = [
        circuit
        for spec in specs
        for part in surroundings(spec, group_of(spec) is not None)
        for circuit in part
    ]
    areas.find(circuits, done)


def candidate(name: str, family: Family, areas: Areas) -> Candidate:
    """Everything about an element that a comparison needs."""
    spec, synthesized = element_spec(name), family.elements[name]
    group = group_of(spec)
    switched, snr = _measured(name, synthesized.netlist, family.library)
    scale_bits = 0.0 if group is None else (8 if group == 32 else 16) / group
    if spec.zero_point.value != "none" and group is not None:
        scale_bits += 4 / group
    weight_bits = 4 if name == "bitfusion" else STORED_BITS.get(spec.weight, spec.weight_bits)
    stored = 8 if name == "bitfusion" else spec.activation_bits
    activation_bits = 16 if name == "bitmod" else STORED_BITS.get(spec.activation, stored)
    return Candidate(
        spec=spec,
        area=synthesized.area,
        delay=synthesized.delay,
        charges=charge(spec, areas, group is not None),
        group=group,
        products_per_cycle=2 if name == "bitfusion" else spec.products_per_cycle,
        passes=_passes(spec),
        weight_bits=weight_bits + scale_bits,
        activation_bits=activation_bits,
        switched=switched,
        snr=snr,
    )


def evaluate(
    design: Design, products: Sequence[Product], picojoules_per_switched: float
) -> dict[str, Any]:
    """Cycles and energy of a list of products.

    Parameters
    ----------
    picojoules_per_switched : float
        Energy of the library's unit of capacitance; units at the edges switch as much for their area as
        the elements (assumed).
    """
    candidate, model = design.candidate, design.model
    cycles = total_cycles(model, products)
    beats = (
        sum(p.macs * (candidate.passes if p.of_activations else 1) for p in products)
        / candidate.products_per_cycle
    )
    cell_share = design.area / (design.rows * design.columns)
    operand_bits = sum((
        candidate.spec.weight_bits,
        candidate.spec.activation_bits,
        candidate.spec.control_bits,
        2,
    ))
    measured_area = candidate.area + operand_bits * candidate.charges.register
    overhead = max(cell_share / measured_area, 1.0)
    core = beats * candidate.switched * overhead * picojoules_per_switched
    moved = [traffic(model, product) for product in products]
    dram = sum(t.memory_read * DRAM_READ + t.memory_write * DRAM_WRITE for t in moved)
    buffers = sum(
        t.weight_reads * WEIGHT_READ
        + t.activation_reads * ACTIVATION_READ
        + t.outputs * OUTPUT_WRITE
        for t in moved
    )
    return {
        "cycles": cycles,
        "energy_millijoules": (core + dram + buffers) * 1e-9,
        "core_millijoules": core * 1e-9,
        "buffer_millijoules": buffers * 1e-9,
        "dram_millijoules": dram * 1e-9,
    }


def picojoules(candidates: Mapping[str, Candidate]) -> float:
    """Energy of a unit of switched capacitance, from the FP16 element."""
    return FP16_PICOJOULES / candidates["fp16"].switched
