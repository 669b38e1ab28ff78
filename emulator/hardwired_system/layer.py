"""What a token does in one layer: an ordered list of operations, each with the resource it needs.

All chips do the same at the same time, so one list stands for all; a collective is over when the last
message of it has arrived anywhere. The numbers follow from the widths of the model and the parameters of
the machine alone.
"""

from emulator.hardwired_system.machine import Partition, Reduction, SystemMachine
from emulator.hardwired_system.model import SystemModel
from emulator.hardwired_system.operation import (
    STAGES,
    Operation,
    OperationBuilder,
    packed_bytes,
)

SCALE_BYTES = 8
"""A sum of squares or a scale, and a largest magnitude, four bytes each, beside the data."""


def layer_operations(
    model: SystemModel, machine: SystemMachine, turns: int = 1
) -> tuple[Operation, ...]:
    """Return what a token does in one layer.

    Parameters
    ----------
    turns : int
        Largest number of the token's experts that sit on one chip.
    """
    build = OperationBuilder(model, machine)
    rows, columns = machine.rows, machine.columns
    per_port = -(-turns // machine.ports)
    scattered = machine.reduction is Reduction.SCATTERED
    hidden, chips = model.hidden, machine.chips
    slice_width = hidden // rows
    queries = model.heads * model.head_dim // columns
    both = 2 * model.kv_heads * model.head_dim // columns

    if scattered:
        build.vector("quantize the input", slice_width)
    else:
        build.vector("add, norm and quantize the input", hidden, slice_width, slice_width)
    build.wires("Q, K, V", 0, slice_width, queries + both, ports=machine.ports)
    _queries_to_chips(build, queries, both)

    build.stage = 1
    build.attention()
    _attention_outputs(build, queries)

    build.stage = 2
    build.wires("Wo", 1, queries, slice_width, ports=machine.ports)
    build.link("Xo row reduce-scatter", row=build.sums(slice_width // columns))
    if scattered:
        _add_norm_gather(build, hidden // chips)
    else:
        build.link("Xo row all-gather", row=build.values(slice_width // columns))
        build.link("Xo column all-gather", column=build.values(slice_width))

    build.stage = 3
    if not scattered:
        build.vector("add, norm and quantize", hidden, hidden, hidden)
    # One load of X serves the router and all experts; only chosen experts' results leave.
    build.wires("router, up and gate", 2, hidden, per_port * 2 * model.inner + model.experts)
    build.vector("choose experts", *[model.experts] * (model.experts_per_token + 1))
    build.vector("SwiGLU and quantize", *[model.inner * turns] * 5)

    build.stage = 4
    build.wires("down", 3, model.inner, per_port * hidden, feeds=per_port)
    build.vector("weigh experts", hidden)

    build.stage = 5
    if scattered:
        _scatter_grid(build, "Y", hidden)
        _norm_statistics(build, hidden // chips)
        build.link("next input row all-gather", row=build.values(hidden // chips))
    else:
        build.link("Y row reduce-scatter", row=build.sums(hidden // columns))
        # Still partial: sums of one row of chips.
        build.link("Y row all-gather", row=build.sums(hidden // columns))
        build.link("Y column reduce-scatter", column=build.sums(slice_width))
        build.link("Y column all-gather", column=build.values(slice_width))
    return tuple(build.operations)


def _queries_to_chips(build: OperationBuilder, queries: int, both: int) -> None:
    """Partial sums of Q, K and V become vectors where attention needs them."""
    rows, machine = build.machine.rows, build.machine
    if machine.partition is Partition.HEADS:
        # A chip's share of the query heads, and the one key and value head that they use.
        used = 2 * build.model.head_dim * max(1, build.model.kv_heads // machine.chips)
        build.link("Q, K, V column scatter-reduce", column=build.sums(queries // rows + used))
        build.vector("bias and rotation", queries // rows + used, queries // rows + used)
        return
    build.link("Q, K, V column reduce-scatter", column=build.sums((queries + both) // rows))
    # Attention reads 16-bit vectors: these are no INT8 inputs of wires.
    wide = max(16, machine.activation_bits)
    build.link(
        "Q all-gather, K, V gather",
        column=packed_bytes(queries // rows, wide),
        keeper=packed_bytes(both // rows, wide),
    )
    build.vector("bias and rotation", queries + both, queries + both)


def _attention_outputs(build: OperationBuilder, queries: int) -> None:
    """Outputs of attention become the input of Wo on every chip of the column."""
    machine, rows = build.machine, build.machine.rows
    if machine.partition is Partition.HEADS:
        build.vector("divide and quantize", queries // rows, queries // rows, queries // rows)
        build.link("O column all-gather", column=build.values(queries // rows) + SCALE_BYTES)
        return
    # A largest score and a sum a head; never narrower than 16 bits.
    count = -(-2 * build.model.heads // (machine.columns * rows))
    statistics = packed_bytes(count, max(16, machine.partial_sum_bits))
    build.link("softmax statistics reduce-scatter", column=statistics)
    build.link("softmax statistics all-gather", column=statistics)
    build.vector("rescale", queries)
    build.link("O column reduce-scatter", column=build.sums(queries // rows))
    build.link("O column all-gather", column=build.values(queries // rows))
    build.vector("divide and quantize", queries, queries)


def _scatter_grid(build: OperationBuilder, name: str, width: int) -> None:
    """Reduce-scatter over the grid: half of the vector takes rows first, half columns."""
    rows, columns = build.machine.rows, build.machine.columns
    build.link(
        f"{name} first reduce-scatter",
        column=build.sums(-(-width // (2 * rows))),
        row=build.sums(-(-width // (2 * columns))),
    )
    small = build.sums(-(-width // (2 * rows * columns)))
    build.link(f"{name} second reduce-scatter", column=small, row=small)


def _norm_statistics(build: OperationBuilder, own: int) -> None:
    """A chip adds to its sixteenth of the residual stream; sums of squares and maxima go round."""
    build.vector("add, squares and largest", own)
    build.link("norm statistics in rows", row=SCALE_BYTES)
    build.link("norm statistics in columns", column=SCALE_BYTES)
    build.vector("norm and quantize", own)


def _add_norm_gather(build: OperationBuilder, own: int) -> None:
    """The residual stream in sixteenths becomes an INT8 vector on all chips."""
    _norm_statistics(build, own)
    half = build.values(-(-own // 2))
    build.link("X first all-gather", column=half, row=half)
    build.link(
        "X second all-gather", column=half * build.machine.columns, row=half * build.machine.rows
    )


def head_operations(model: SystemModel, machine: SystemMachine) -> tuple[Operation, ...]:
    """Return what follows the last layer: logits, a choice, and the embedding of the next token."""
    build = OperationBuilder(model, machine)
    build.stage = STAGES - 1
    share = model.vocabulary // machine.chips
    build.vector("add, norm and quantize", model.hidden, model.hidden, model.hidden)
    build.wires("unembedding", 0, model.hidden, share, ports=machine.ports)
    build.vector("sample", share)
    build.link("best of rows", row=SCALE_BYTES)
    build.link("best of columns", column=SCALE_BYTES)
    build.vector("embedding", model.hidden)
    return tuple(build.operations)


def link_bytes(model: SystemModel, machine: SystemMachine) -> dict[str, int]:
    """Data bytes a token and layer put on a column link, a row link, and the keeper's link besides."""
    totals = {"column": 0, "row": 0, "keeper": 0}
    for operation in layer_operations(model, machine):
        for what, size in operation.messages:
            totals[what] += size
    return totals
