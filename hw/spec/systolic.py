"""Geometry of a systolic array of processing elements and of the memories beside it.

A target file of family `mixpe` describes one. The array computes ``Y = X W`` for activations X [M, K]
and weights W [K, N], where K is cut into groups that share a scale:

``Y[m, n] = a[m] * sum over groups g of s[g, n] * (P[m, g, n] - z[g, n] * S[m, g])``

with P the group's sum of products, S its sum of activations, and a the scale of the activations of a row.
`docs/systolic.md` says when everything happens; latencies are properties here.
"""

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from hw.spec.element_family import element_spec
from hw.spec.floating import FLOAT_ADD_LATENCY, FLOAT_MULTIPLY_LATENCY, FROM_INTEGER_LATENCY
from hw.spec.processing_element import ProcessingElementSpec, ZeroPoint
from hw.spec.systolic_parts import (
    RESULT_BUFFER_CYCLES,
    SUM_CYCLES,
    ZERO_CYCLES,
    Dataflow,
    Dequantization,
    OffChipSpec,
)

__all__ = ["SystolicSpec"]


@dataclass(frozen=True, kw_only=True)
class SystolicSpec:
    """One systolic array, its buffers and its memory.

    Parameters
    ----------
    rows, columns : int
        Elements from top to bottom and from left to right.
    dataflow : Dataflow
        Which operand stays.
    element : str
        Name of the processing element.
    group_size : int
        Longest run along K that shares a scale; a group's sum must fit the element's accumulator.
    dequantization : Dequantization
        What happens below each column.
    accumulator_rows : int
        Entries of the memory of sums over groups below each column; 0 without dequantization.
    result_rows : int
        Rows of outputs that can wait to be taken.
    weight_buffer_bytes, activation_buffer_bytes : int
        On-chip buffers; half of each is filled while the other half is used.
    memory : OffChipSpec
        What is off chip.
    columns_per_unit : int
        Columns that share a dequantization unit, a power of two, which takes their sums one column behind the other (output
        stationary, without row sums).
    """

    name: str
    clock_hz: int
    rows: int
    columns: int
    dataflow: Dataflow
    element: str
    group_size: int
    dequantization: Dequantization
    accumulator_rows: int
    result_rows: int
    weight_buffer_bytes: int
    activation_buffer_bytes: int
    memory: OffChipSpec
    columns_per_unit: int = 1

    @cached_property
    def processing_element(self) -> ProcessingElementSpec:
        """The element's own specification."""
        return element_spec(self.element)

    @property
    def output_stationary(self) -> bool:
        """Whether sums stay in the elements."""
        return self.dataflow is Dataflow.OUTPUT_STATIONARY

    @property
    def dequantizes(self) -> bool:
        """Whether there is anything below the columns."""
        return self.dequantization is not Dequantization.NONE

    @property
    def row_sums(self) -> bool:
        """Whether a column of adders sums the activations of each row."""
        return self.processing_element.zero_point is ZeroPoint.ROW_SUM

    @property
    def edge_zeros(self) -> bool:
        """Whether weights lose their zero point at the upper edge."""
        return self.processing_element.zero_point is ZeroPoint.EDGE

    @property
    def zero_bits(self) -> int:
        """Bits of a zero point in a word of scales; 0 if there is none."""
        return self.code_bits if self.row_sums or self.edge_zeros else 0

    @property
    def code_bits(self) -> int:
        """Bits of the weights of one beat and column, as they enter the array."""
        # A subtraction at the edge adds a bit.
        return self.processing_element.weight_bits - self.edge_zeros

    @property
    def weight_bits(self) -> int:
        """Bits that enter a column in a beat: weights, and what controls the element."""
        return self.code_bits + self.processing_element.control_bits

    @property
    def row_sum_bits(self) -> int:
        """Bits of the sum of a row's activations over a group."""
        return self.processing_element.activation_bits + (self.group_size - 1).bit_length()

    @property
    def accumulator_bits(self) -> int:
        """Bits of a sum over groups."""
        return {
            Dequantization.NONE: 0,
            Dequantization.FLOAT32: 32,
            Dequantization.INTEGER: 64,
            Dequantization.CHANNEL: 32,
        }[self.dequantization]

    @property
    def address_bits(self) -> int:
        """Bits of an entry's number in the memory of sums."""
        return max(self.accumulator_rows - 1, 0).bit_length()

    @property
    def units(self) -> int:
        """Dequantization units."""
        return self.columns // self.columns_per_unit

    @property
    def unit_sums(self) -> int:
        """Sums of a group that a unit takes: those of all rows, column by column (output stationary)."""
        return self.rows * self.columns_per_unit

    @property
    def slots(self) -> int:
        """Tiles of `rows` x `columns` outputs whose sums the array can hold beside each other."""
        return self.accumulator_rows // self.rows if self.dequantizes else 1

    # ------------------------------------------------------------------------------------ latencies

    @property
    def convert_cycles(self) -> int:
        """Cycles to make a group's sum FP32 (`Dequantization.FLOAT32`)."""
        return 0 if self.processing_element.fp32 else FROM_INTEGER_LATENCY

    @property
    def zero_cycles(self) -> int:
        """Cycles to subtract zero point times row sum."""
        return ZERO_CYCLES if self.row_sums else 0

    @property
    def sum_latency(self) -> int:
        """From a group's sum at the bottom of a column to the new sum over groups, readable."""
        scaled = {
            Dequantization.NONE: 0,
            # Conversion, product, sum.
            Dequantization.FLOAT32: self.convert_cycles
            + FLOAT_MULTIPLY_LATENCY
            + FLOAT_ADD_LATENCY,
            # Product with the mantissa, shift, sum.
            Dequantization.INTEGER: 3,
            # Product, sum.
            Dequantization.CHANNEL: 2,
        }[self.dequantization]
        return self.zero_cycles + scaled

    @property
    def unit_latency(self) -> int:
        """From a group's sum at the bottom of a column to the output that it completes."""
        final = {
            Dequantization.NONE: 0,
            Dequantization.FLOAT32: FLOAT_MULTIPLY_LATENCY,
            Dequantization.INTEGER: FROM_INTEGER_LATENCY + FLOAT_MULTIPLY_LATENCY,
            Dequantization.CHANNEL: FROM_INTEGER_LATENCY + 2 * FLOAT_MULTIPLY_LATENCY,
        }[self.dequantization]
        return self.sum_latency + final

    @property
    def accumulate_interval(self) -> int:
        """Fewest cycles between two additions to the same sum over groups."""
        # The read of the old sum is one cycle ahead of its use.
        return {
            Dequantization.NONE: 1,
            Dequantization.FLOAT32: FLOAT_ADD_LATENCY + 2,
            Dequantization.INTEGER: 2,
            Dequantization.CHANNEL: 2,
        }[self.dequantization]

    @property
    def drain_interval(self) -> int:
        """Fewest cycles between the last beats of two groups (output stationary).

        A unit takes `rows` cycles for a group of each of its columns, and a sum over groups cannot be added to faster than
        every `accumulate_interval` cycles. **With `group_size` of at least this there is no stall**, except
        behind the shorter group at the end of K.
        """
        return max(self.unit_sums, self.accumulate_interval)

    @property
    def load_interval(self) -> int:
        """Fewest cycles between the first beats of two passes (weight stationary).

        New weights may follow the first beat in `rows` - 1 cycles (or 1) and take `rows` cycles. **A pass of at least
        this many rows of X hides the loading of weights.** It must be no less than `accumulate_interval`.
        """
        return self.rows + max(self.rows - 1, 1)

    @property
    def output_latency(self) -> int:
        """From the acceptance of the beat that completes a row of outputs to the offer of that row.

        Output stationary: of the last beat of a tile, to the first of its rows (the lowest; the others follow
        one a cycle). Weight stationary: of a row's beat in its last pass.
        """
        bottom = SUM_CYCLES + self.rows + self.columns - 1
        # The last column waits for its unit, which begins with the unit's first column.
        shared = (self.columns_per_unit - 1) * (self.rows - 1)
        return bottom + shared + self.unit_latency + RESULT_BUFFER_CYCLES

    @property
    def least_result_rows(self) -> int:
        """Rows of outputs that must be able to wait, so that a taker that is always ready stalls nothing."""
        held = self.rows if self.output_stationary else 1
        return held + self.output_latency + 1

    @property
    def token_scale_rows(self) -> int:
        """Depth of the buffer of row scales: those of two tiles and of what is under way."""
        held = 2 * self.rows if self.output_stationary else 2
        return held + self.output_latency

    @property
    def scale_entries(self) -> int:
        """Groups (or passes) whose scales a column must hold, a power of two.

        A group's scales come with its first beat, or with its first weights, and are needed until the last
        column has dequantized its last row.
        """
        if self.output_stationary:
            busy = self.rows + self.unit_sums + self.columns + SUM_CYCLES + self.unit_latency
            groups = 1 - (-busy // self.drain_interval)
        else:
            busy = self.columns + SUM_CYCLES + self.unit_latency + 2
            groups = 2 - (-busy // self.load_interval)
        return 1 << (groups - 1).bit_length()

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary of every field, as a target file has it."""
        content = asdict(self)
        content["dataflow"] = self.dataflow.value
        content["dequantization"] = self.dequantization.value
        return content
