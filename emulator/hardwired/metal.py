"""What a metal program means: the matrix and the biases that its wires spell."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hw.spec.errors import CheckFailed

__all__ = ["read_metal"]

Integers = npt.NDArray[np.int64]


def read_metal(
    ports: npt.ArrayLike,
    slots: npt.ArrayLike,
    initial: Sequence[int],
    *,
    slot_values: Sequence[int],
    slice_ports: int,
    inputs: int,
    taps: int,
    digits: int,
    result_bits: int,
    base_constant: int,
) -> tuple[Integers, Integers]:
    """Follow every wire from an input line to the region in which it is counted.

    Parameters
    ----------
    ports : integers [outputs, ports]
        Line of each port, from 1; 0 is ground. Lines are inputs, in them taps, in them plain and inverted.
    slots : integers [outputs, slots]
        Slice of each slot, from 1; 0 is ground.
    initial : sequence of int
        Start of each accumulator, modulo 2**result_bits.
    slot_values : sequence of int
        What each slot's count is multiplied by.
    digits : int
        Bits of an element that are fed in all.
    base_constant : int
        What the base needs in the accumulator besides.

    Returns
    -------
    int64 [outputs, inputs], int64 [outputs]
        Weights, taps included, and biases.

    Raises
    ------
    CheckFailed
        If a wire leads nowhere.
    """
    lines, slices = np.asarray(ports, dtype=np.int64), np.asarray(slots, dtype=np.int64)
    outputs, port_count = lines.shape
    slice_count = port_count // slice_ports
    if lines.min() < 0 or lines.max() > 2 * inputs * taps:
        raise CheckFailed("metal program: a port is connected to a line that does not exist")
    if slices.min() < 0 or slices.max() > slice_count:
        raise CheckFailed("metal program: a slot is connected to a slice that does not exist")
    weights = np.zeros((outputs, inputs), np.int64)
    biases = np.zeros(outputs, np.int64)
    values = np.asarray(slot_values, dtype=np.int64)
    # What a line carries is gain * x + shift, in offset numbers: x -> x + h plain, x -> h - 1 - x inverted.
    index = np.arange(2 * inputs * taps)
    inverted, tap = index % 2, index // 2 % taps
    gain = np.where(inverted, -1, 1) * 2**tap
    half = 2 ** (digits - 1)
    for row in range(outputs):
        factor = np.zeros(slice_count + 1, np.int64)
        np.add.at(factor, slices[row], values)
        per_port = np.repeat(factor[1:], slice_ports)
        (used,) = np.nonzero(lines[row])
        line = lines[row, used] - 1
        np.add.at(weights[row], line // (2 * taps), per_port[used] * gain[line])
        shift = int((per_port[used] * np.where(inverted[line], half - 1, half)).sum())
        bias = (initial[row] - base_constant + shift) % 2**result_bits
        biases[row] = bias - (bias >> result_bits - 1 << result_bits)
    return weights, biases
