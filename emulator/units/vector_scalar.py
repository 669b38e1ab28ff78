"""SFU operations on single numbers: the same arithmetic on Python floats, which costs a tenth of an array.

A double holds every product of two FP32 numbers exactly, and enough of a sum that rounding it again to FP32
gives the correctly rounded sum (53 >= 2*24 + 2 bits).
"""

import functools
import math
import struct
from collections.abc import Mapping
from zlib import crc32

import numpy as np

from emulator.numerics.floating import canonical
from emulator.numerics.functions import apply
from emulator.state import MachineState
from hw.spec.functions import Function
from hw.spec.instructions import Reduce, Source, Target

__all__ = ["execute_scalar", "is_scalar"]

_SMALLEST = 2.0**-126
_LARGEST = (2.0 - 2.0**-23) * 2.0**127
_TARGETS = (Target.SCALAR, Target.MATRIX_SCALE)
_SOURCES = (Source.NONE, Source.SCALAR, Source.CONSTANT)
_FUNCTIONS = sorted(Function, key=lambda function: function.value)


def is_scalar(operation: Mapping[str, int]) -> bool:
    """Whether one number from files and constants goes to one file entry."""
    return (
        operation["rows"] == 1
        and operation["a_source"] == Source.SCALAR
        and operation["target"] in _TARGETS
        and operation["reduce"] == Reduce.NONE
        and operation["b_source"] in _SOURCES
        and operation["c_source"] in _SOURCES
    )


def execute_scalar(state: MachineState, operation: Mapping[str, int]) -> int:
    """Apply an operation for which `is_scalar` holds; returns its checksum."""
    value = _operand(state, operation, "a")
    if operation["b_source"] != Source.NONE:
        value = _rounded(value * _operand(state, operation, "b"))
    if operation["c_source"] != Source.NONE:
        value = _rounded(value + _operand(state, operation, "c"))
    if operation["function"]:
        value = float(apply(_FUNCTIONS[operation["function"]], np.array([value], np.float32))[0])
    file = state.scalars if operation["target"] == Target.SCALAR else state.matrix_scales
    file[operation["d"] % len(file)] = value
    return crc32(struct.pack("<f", value))


def _operand(state: MachineState, operation: Mapping[str, int], name: str) -> float:
    if operation[f"{name}_source"] == Source.SCALAR:
        return float(state.scalars[operation[name] % len(state.scalars)])
    return _constant(operation[f"{name}_constant"])


@functools.cache
def _constant(bits: int) -> float:
    return float(canonical(np.array(bits, np.uint32).view(np.float32)))


def _rounded(exact: float) -> float:
    """Flushed by its magnitude before rounding, saturated, rounded to nearest even."""
    magnitude = abs(exact)
    if magnitude < _SMALLEST:
        return math.copysign(0.0, exact)
    if magnitude > _LARGEST:
        return math.copysign(_LARGEST, exact)
    return float(np.float32(exact))
