"""The metal program: which wires make a base netlist compute with given weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hw.hardwired.base import BaseSpec, build_base_neuron
from hw.hardwired.serial import offset_correction
from hw.spec.errors import InputError

__all__ = ["GROUND", "MetalProgram", "fit"]

GROUND = 0
"""What a port or a slot that is not used is connected to; lines and slices are numbered from 1."""

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class MetalProgram:
    """Wires of all neurons.

    Parameters
    ----------
    ports : int32 [outputs, ports]
        Line that each port is connected to: ``1 + 2 * (input * taps + tap) + inverted``, or GROUND.
    slots : int32 [outputs, slots]
        Slice that each slot is connected to: ``1 + slice``, or GROUND.
    initial : tuple of int
        Start of each accumulator, as a number without sign.
    exponents : int64 [outputs]
        What the integer result of each output is to be multiplied by, as a power of two: the smallest
        block scale of the row.
    """

    ports: npt.NDArray[np.int32]
    slots: npt.NDArray[np.int32]
    initial: tuple[int, ...]
    exponents: Integers

    def report(self, spec: BaseSpec) -> dict[str, Any]:
        """Ports, wires and slack."""
        used = np.count_nonzero(self.ports, axis=1)
        ports = self.ports.shape[1]
        wires = int(used.sum()) + int(np.count_nonzero(self.slots)) * spec.count_bits
        return {
            "ports_per_neuron": ports,
            "ports_per_input": ports / spec.inputs,
            "ports_used_mean": float(used.mean()),
            "ports_used_max": int(used.max()),
            "slack": float(1 - used.mean() / ports),
            "slots_per_neuron": self.slots.shape[1],
            "slots_used_mean": float(np.count_nonzero(self.slots, axis=1).mean()),
            "wires": wires + spec.outputs * spec.result_bits,
            "programmable_points": spec.outputs
            * (ports + self.slots.shape[1] * spec.count_bits + spec.result_bits),
        }


def fit(
    spec: BaseSpec,
    weights: npt.ArrayLike,
    exponents: npt.ArrayLike | None = None,
    biases: Sequence[int] | None = None,
) -> MetalProgram:
    """Program a base.

    Parameters
    ----------
    weights : integers [outputs, inputs]
    exponents : integers [outputs, blocks], optional
        Power of two that a block of neighbouring inputs is scaled by; blocks divide a row evenly.
    biases : sequence of int, optional
        Added to the integer results, in units of the row's smallest scale.

    Raises
    ------
    InputError
        If shapes do not fit, a magnitude has no region, scales of a row are further apart than the base
        has taps, or a row needs more slices or slots than there are; with what would help.
    """
    matrix = np.asarray(weights, dtype=np.int64)
    if matrix.shape != (spec.outputs, spec.inputs):
        raise InputError(
            f"weights: expected a shape of {spec.outputs} by {spec.inputs}, found {matrix.shape}"
        )
    unknown = sorted(set(np.unique(np.abs(matrix)).tolist()) - {0, *spec.magnitudes})
    if unknown:
        raise InputError(
            f"weights: the base has no region for magnitude {unknown[0]}; plan it with the alphabet "
            "of these weights"
        )
    taps, lowest = _taps(spec, exponents)
    if biases is not None:
        _check_biases(spec, biases)
    ports = np.zeros((spec.outputs, spec.ports), np.int32)
    slots = np.zeros((spec.outputs, spec.slot_begin[-1]), np.int32)
    lines = 1 + 2 * (np.arange(spec.inputs) * spec.taps + taps) + (matrix < 0)
    for row in range(spec.outputs):
        _fit_row(spec, row, np.abs(matrix[row]), lines[row], ports[row], slots[row])
    # An inverted number that is offset by half its range is one less than the negated number, offset.
    sums = np.abs(matrix).sum(axis=1)
    negative = -matrix.clip(max=0).sum(axis=1)
    start = [
        offset_correction(spec.schedule, total) + excess
        for total, excess in zip(sums.tolist(), negative.tolist(), strict=True)
    ]
    constant = build_base_neuron(spec, keep=False).constant
    initial = tuple(
        (value + constant + (0 if biases is None else biases[row])) % (1 << spec.result_bits)
        for row, value in enumerate(start)
    )
    return MetalProgram(ports, slots, initial, lowest)


def _check_biases(spec: BaseSpec, biases: Sequence[int]) -> None:
    limit = 1 << spec.bias_bits - 1
    if len(biases) != spec.outputs:
        raise InputError(f"biases: expected {spec.outputs}, found {len(biases)}")
    for row, bias in enumerate(biases):
        if not -limit <= bias < limit:
            raise InputError(
                f"biases: output {row}: expected {spec.bias_bits} bits, found {bias}; plan the base "
                "with more bias bits"
            )


def _taps(spec: BaseSpec, exponents: npt.ArrayLike | None) -> tuple[Integers, Integers]:
    """Tap of each weight, and the smallest exponent of each row."""
    if exponents is None:
        return np.zeros((spec.outputs, 1), np.int64), np.zeros(spec.outputs, np.int64)
    scales = np.asarray(exponents, dtype=np.int64)
    if scales.ndim != 2 or len(scales) != spec.outputs or spec.inputs % scales.shape[1]:
        raise InputError(
            f"exponents: expected {spec.outputs} rows of blocks that divide {spec.inputs} inputs, "
            f"found a shape of {scales.shape}"
        )
    lowest = scales.min(axis=1)
    taps = scales - lowest[:, None]
    spread = int(taps.max())
    if spread >= spec.taps:
        row = int(taps.max(axis=1).argmax())
        raise InputError(
            f"exponents: row {row}: block scales are {spread} binades apart, the base has taps for "
            f"{spec.taps - 1}; plan it with {spread + 1} taps, or bring the scales of the row together"
        )
    return np.repeat(taps, spec.inputs // scales.shape[1], axis=1), lowest


def _fit_row(
    spec: BaseSpec,
    row: int,
    magnitudes: Integers,
    lines: Integers,
    ports: npt.NDArray[np.int32],
    slots: npt.NDArray[np.int32],
) -> None:
    """Fill slices from the first on, each with inputs of one magnitude, and connect slots to them."""
    next_slice = 0
    for region, value in enumerate(spec.magnitudes):
        (chosen,) = np.nonzero(magnitudes == value)
        needed = -(-len(chosen) // spec.slice_ports)
        begin = spec.slot_begin[region]
        if needed > spec.slots[region]:
            raise InputError(
                f"weights: row {row}: magnitude {value} needs {needed} slots, the base has "
                f"{spec.slots[region]}; plan it with a larger margin"
            )
        if next_slice + needed > spec.slices:
            more = sum(
                -(-int((magnitudes == v).sum()) // spec.slice_ports) for v in spec.magnitudes
            )
            raise InputError(
                f"weights: row {row}: needs {more} slices of {spec.slice_ports} ports, the base has "
                f"{spec.slices}; plan it with a larger margin"
            )
        first_port = next_slice * spec.slice_ports
        ports[first_port : first_port + len(chosen)] = lines[chosen]
        slots[begin : begin + needed] = np.arange(next_slice + 1, next_slice + needed + 1)
        next_slice += needed
