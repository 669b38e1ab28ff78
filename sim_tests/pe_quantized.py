"""One matrix product, in numbers and in the format of a processing element."""

from dataclasses import dataclass

from sim_tests.pe_number_formats import Codes, Matrix

__all__ = ["Quantized", "Tensors"]


@dataclass(frozen=True)
class Tensors:
    """Weights [N, K] and activations [M, K] of one matrix product, K a multiple of the group."""

    weight: Matrix
    activation: Matrix


@dataclass(frozen=True)
class Quantized:
    """One matrix product in the format of an element.

    Parameters
    ----------
    weight_codes, activation_codes : ndarray of uint64
        Bit patterns at the ports over the cycles of one sum: [N, cycles] and [M, cycles].
    control : ndarray of uint64
        [N, cycles] at the control port.
    weight, activation : ndarray of float64
        Numbers that the codes and their scales stand for, [N, K] and [M, K].
    group_cycles : int
        Cycles after which the sum begins again.
    """

    weight_codes: Codes
    activation_codes: Codes
    control: Codes
    weight: Matrix
    activation: Matrix
    group_cycles: int
