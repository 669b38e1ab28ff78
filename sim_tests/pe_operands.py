"""Operands for tests of processing elements: every legal bit pattern can come, corners come often."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hw.spec.processing_element import (
    BIT_TERM_BITS,
    BIT_TERM_LANES,
    FusionWidth,
    Operand,
    ProcessingElementSpec,
)

__all__ = ["OperandStream", "every_pair", "random_stream"]

Ports = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class OperandStream:
    """What the ports of an element see, time along the first axis."""

    weight: Ports
    activation: Ports
    control: Ports
    valid: Flags
    clear: Flags


def fusion_modes() -> list[int]:
    """The nine legal values of BitFusion's `control`."""
    return [a.value | w.value << 2 for w in FusionWidth for a in FusionWidth]


def random_stream(
    spec: ProcessingElementSpec, shape: tuple[int, ...], seed: int, sum_length: int = 50
) -> OperandStream:
    """Random operands, gaps included.

    Parameters
    ----------
    shape : tuple of int
        Cycles, and any number of independent streams; each begins with a valid first product.
    sum_length : int
        Mean number of products of a sum.
    """
    rng = np.random.default_rng(seed)
    valid = rng.random(shape) < 0.85
    clear = rng.random(shape) < 1 / sum_length
    valid[0] = clear[0] = True
    control = rng.integers(0, 1 << spec.control_bits, shape, dtype=np.uint64)
    if spec.name == "bitfusion":
        control = rng.choice(np.array(fusion_modes(), np.uint64), shape)
    weight = _operand(spec.weight, spec.weight_bits, shape, rng)
    activation = _operand(spec.activation, spec.activation_bits, shape, rng)
    return OperandStream(weight, activation, control, valid, clear)


def _operand(
    operand: Operand, bits: int, shape: tuple[int, ...], rng: np.random.Generator
) -> Ports:
    if operand is Operand.BIT_TERM:
        lanes = (*shape, BIT_TERM_LANES)
        flags = rng.integers(0, 4, lanes, dtype=np.uint64)
        exponents: Ports = rng.integers(0, 5, lanes, dtype=np.uint64)
        return _join(exponents | flags << np.uint64(3), BIT_TERM_BITS)
    if operand is Operand.FP16:
        return _join(_float16(rng, (*shape, bits // 16)), 16)
    top = np.uint64((1 << bits) - 1)
    codes = rng.integers(0, top, shape, dtype=np.uint64, endpoint=True)
    sign = np.uint64(1 << (bits - 1))
    corners = np.array([0, 1, top, sign, sign - np.uint64(1)], np.uint64)
    return np.where(rng.random(shape) < 0.1, rng.choice(corners, shape), codes)


def _float16(rng: np.random.Generator, shape: tuple[int, ...]) -> Ports:
    """All patterns; most with exponents near each other, so that sums cancel, round and carry."""
    near = rng.integers(11, 20, shape, dtype=np.uint64) << 10 | rng.integers(
        0, 1024, shape, dtype=np.uint64
    )
    near |= rng.integers(0, 2, shape, dtype=np.uint64) << 15
    anything = rng.integers(0, 1 << 16, shape, dtype=np.uint64)
    special = np.array([0, 1, 0x3FF, 0x400, 0x7BFF, 0x7C00, 0x7E00, 0x8000, 0xFC00], np.uint64)
    choice = rng.random(shape)
    result = np.where(choice < 0.7, near, anything)
    return np.where(choice > 0.98, rng.choice(special, shape), result)


def _join(lanes: Ports, bits: int) -> Ports:
    """Operands along the last axis in one word, the first lowest."""
    places = np.arange(lanes.shape[-1], dtype=np.uint64) * np.uint64(bits)
    return np.bitwise_or.reduce(lanes << places, axis=-1)


def every_pair(spec: ProcessingElementSpec, seed: int = 1, streams: int = 64) -> OperandStream:
    """Every pair of operands once, in random order, summed up without gaps; small formats only.

    Returns
    -------
    OperandStream
        With an axis for independent streams, so that a golden twin can do them side by side.
    """
    bits = spec.weight_bits + spec.activation_bits
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.arange(1 << bits, dtype=np.uint64)).reshape(-1, streams)
    valid = np.ones(codes.shape, bool)
    clear = rng.random(codes.shape) < 1 / 16
    clear[0] = True
    control = rng.integers(0, 1 << spec.control_bits, codes.shape, dtype=np.uint64)
    weight = codes & np.uint64((1 << spec.weight_bits) - 1)
    return OperandStream(weight, codes >> np.uint64(spec.weight_bits), control, valid, clear)


def flat(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Streams one behind the other."""
    return values.T.ravel()
