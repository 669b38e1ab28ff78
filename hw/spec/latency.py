"""Latencies of the flight processor, in cycles; `docs/isa.md` says between which events."""

from hw.spec.cascade import cascade_cycles
from hw.spec.floating import (
    FLOAT_ADD_LATENCY,
    FLOAT_MULTIPLY_LATENCY,
    FROM_INTEGER_LATENCY,
    FUNCTION_LATENCY,
    TO_INTEGER_LATENCY,
)
from hw.spec.machine import MachineSpec

FETCH_CYCLES = 2
"""From fetch to the first cycle in which tokens can be taken."""
EVALUATE_CYCLES = 2
"""Operand evaluation, between the taking of tokens and the offer to the unit."""
CONTROL_CYCLES = 5
"""From the fetch of a control instruction to the next fetch."""
LOAD_CYCLES = 2
"""From the last beat on the R channel to the end of a load."""
STORE_CYCLES = 3
"""From the issue of a store to its first write request."""
TOKEN_CYCLES = 3
"""From issue to end of SYS's token instruction."""

MATRIX_INPUT_CYCLES = 3
"""Issue to the first products: ring address, ring read, operand registers."""
MATRIX_DECODE_CYCLES = 1
"""Weights and metadata of a step, wherever they lie in two words, to the operands of the multipliers."""
MATRIX_SUM_CYCLES = 5
"""From the first products to their accumulation: adder tree, group sum, scale, place, accumulate."""
VECTOR_READ_CYCLES = 2
"""From the address of a beat, which is out in the cycle behind issue, to its operands: buffer read, selection."""
VECTOR_TREE_LEVELS = 2
"""Levels of the vector unit's adder and comparison trees between two registers."""
VECTOR_REDUCE_CYCLES = 3
"""Behind the tree: accumulation over beats, write, checksum."""


def matrix_element_cycles(spec: MachineSpec) -> int:
    """Cycles that the products of a step and their sum take beyond those of inferred multipliers and adders."""
    return cascade_cycles(spec) if spec.matrix_element == "dsp" else 0


def matrix_latency(spec: MachineSpec) -> int:
    """Cycles of an MPE instruction beyond its blocks and the last drain."""
    return (
        MATRIX_INPUT_CYCLES
        + MATRIX_DECODE_CYCLES
        + matrix_element_cycles(spec)
        + MATRIX_SUM_CYCLES
        + (spec.rows_per_scaler - 1)
        + FROM_INTEGER_LATENCY
        + FLOAT_MULTIPLY_LATENCY
        + 1
    )


def vector_tree_cycles(spec: MachineSpec) -> int:
    """Registers of the vector unit's adder and comparison trees over the lanes."""
    levels = (spec.lanes - 1).bit_length()
    return -(-levels // VECTOR_TREE_LEVELS)


def vector_latency(spec: MachineSpec) -> int:
    """Cycles of an SFU instruction beyond its beats: the longest way, that of a SUM to the scalar file."""
    arithmetic = FLOAT_MULTIPLY_LATENCY + FLOAT_ADD_LATENCY + FUNCTION_LATENCY + TO_INTEGER_LATENCY
    reduction = vector_tree_cycles(spec) + VECTOR_REDUCE_CYCLES + FROM_INTEGER_LATENCY
    return VECTOR_READ_CYCLES + arithmetic + reduction


def matrix_cycles(
    spec: MachineSpec, blocks: int, steps: int, step_cycles: int = 1, vectors: int = 1
) -> int:
    """Cycles from issue to end of an MPE instruction; `step_cycles` is `StepFormat.cycles`."""
    columns = min(spec.matrix_columns, vectors)
    passes = blocks * -(-vectors // spec.matrix_columns)
    drain = columns * spec.drain_cycles
    return matrix_latency(spec) + passes * max(steps * step_cycles, drain) + drain


def wired_lead_cycles(spec: MachineSpec, inputs: int) -> int:
    """Cycles by which the blocks of a hardwired product are later than those of a product of one step.

    One for each row of the activation buffer that is read, and one for each digit.
    """
    return inputs // spec.activation_row_bytes + spec.wired_digits


def wired_cycles(spec: MachineSpec, number: int, blocks: int) -> int:
    """Cycles from issue to end of a product with hardwired matrix `number`, counted from 1."""
    lead = wired_lead_cycles(spec, spec.wired_matrices[number - 1].inputs)
    return lead + matrix_cycles(spec, blocks, 1)


def vector_beats(spec: MachineSpec, length: int) -> int:
    """Beats of one row of `length` elements."""
    return -(-length // spec.granule) * (spec.granule // spec.lanes)


def vector_cycles(
    spec: MachineSpec, rows: int, length: int, exchange: bool = False, reduce: bool = False
) -> int:
    """Cycles from issue to end of an SFU instruction; `length` is that of the last row.

    With `exchange` elements of all cores are written one core after another; where rows are reduced, only the results
    pass between cores.
    """
    cycles = rows * vector_beats(spec, length)
    if exchange and reduce:
        return vector_latency(spec) + spec.exchange_latency + cycles
    if exchange:
        return vector_latency(spec) + spec.exchange_latency + cycles * spec.cores
    return vector_latency(spec) + cycles


def token_cycles(spec: MachineSpec) -> int:
    """Cycles from issue to end of SYS's instruction."""
    return TOKEN_CYCLES + (spec.exchange_latency if spec.cores > 1 else 0)
