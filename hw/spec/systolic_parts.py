"""What a systolic array can be made with, and the widths and cycles that all of them have in common."""

from dataclasses import dataclass
from enum import Enum

__all__ = [
    "Dataflow",
    "Dequantization",
    "FRACTION_BITS",
    "INTEGER_SCALE_BITS",
    "MANTISSA_BITS",
    "OffChipSpec",
    "RESULT_BITS",
    "RESULT_BUFFER_CYCLES",
    "SCALE_BITS",
    "SUM_CYCLES",
    "ZERO_CYCLES",
]


class Dataflow(Enum):
    """Which operand stays in an element; the value is its name in target files."""

    OUTPUT_STATIONARY = "os"
    """Sums stay; weights flow down, activations to the right. Rows are rows of X."""

    WEIGHT_STATIONARY = "ws"
    """Weights stay; activations flow to the right, sums down. Rows are rows of W."""


class Dequantization(Enum):
    """What the unit below each column does with a group's sum; the value is its name in target files."""

    NONE = "none"
    """Nothing: the sum over all of K leaves as it is. There is one group."""

    FLOAT32 = "float32"
    """FP32, as in the paper: product with the FP16 group scale, sum over groups in their order."""

    INTEGER = "integer"
    """Free of order: the FP16 group scale is an 11-bit mantissa and a shift, the sum a 64-bit integer of
    unit 2**-24, made FP32 at the end. The arithmetic of the flight processor's matrix engine."""

    CHANNEL = "channel"
    """Group scales are unsigned 8-bit integers, the sum a 32-bit integer; it is made FP32 at the end and
    multiplied by one FP16 scale of the column (QServe)."""


FRACTION_BITS = 24
"""Of the 64-bit sums of `Dequantization.INTEGER`: the smallest FP16 number is 2**-24."""
MANTISSA_BITS = 11
"""Of an FP16 group scale, with its hidden bit."""
SCALE_BITS = 16
"""Of an FP16 scale."""
INTEGER_SCALE_BITS = 8
"""Of a group scale of `Dequantization.CHANNEL`."""
RESULT_BITS = 32
"""Of an output: FP32, or a sum as it is."""
SUM_CYCLES = 3
"""From the acceptance of a row's operands, without skew, to its sum at the bottom of its element's column:
operand register, product, sum, and the register that moves it down, less the row it already is in."""
ZERO_CYCLES = 2
"""Zero point times row sum, and its subtraction."""
RESULT_BUFFER_CYCLES = 2
"""From the write of a result to the cycle in which it is offered."""


@dataclass(frozen=True, kw_only=True)
class OffChipSpec:
    """The memory that holds models, as its bandwidth and latency.

    Parameters
    ----------
    bytes_numerator, bytes_denominator : int
        It carries `bytes_numerator` bytes every `bytes_denominator` cycles, in either direction.
    latency : int
        Cycles from a request to its first byte; requests of a transfer overlap, transfers do not wait for
        each other's latency.
    """

    bytes_numerator: int
    bytes_denominator: int
    latency: int
