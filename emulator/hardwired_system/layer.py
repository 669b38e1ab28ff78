"""What a token does in one layer: an ordered list of operations, each with the resource it needs.

All chips do the same at the same time, so one list stands for all; a collective is over when the last
message of it has arrived anywhere. The numbers follow from the widths of the model and the parameters of
the machine alone.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from fractions import Fraction

from emulator.hardwired_system.machine import Arbitration, Partition, Reduction, SystemMachine
from emulator.hardwired_system.model import SystemModel

STAGES = 7
"""Six of a layer, and one for what follows the layers."""


class Category(IntEnum):
    """Where the time of a token goes; waiting for a resource counts as its use."""

    LINKS = 0
    PROJECTION = 1
    ATTENTION = 2
    STALL = 3
    OTHER = 4


class Kind(IntEnum):
    """Which resource an operation needs."""

    LINK = 0
    """Links of columns, of rows, or both."""
    WIRES = 1
    """The hardwired matrix of one step of one layer: four a layer."""
    VECTOR = 2
    """The vector pipeline of one layer."""
    ATTENTION = 3
    """A lane of the attention unit; the keys and values must be there."""


@dataclass(frozen=True)
class Operation:
    """One step of a token, in ticks.

    Members
    -------
    name : str
    stage : int
        Of the six.
    kind : Kind
    column, row, extra : int
        LINK: ticks for which a message has its column link, its row link; `extra` ticks more on the link
        to the chip that keeps this position's keys and values.
    occupied, total : int
        WIRES and VECTOR: ticks until the resource takes the next token, and until the result is there.
    step : int
        WIRES: which of the layer's four.
    messages : tuple[tuple[str, int], ...]
        LINK: data bytes of the message to each peer of the column ("column"), of the row ("row"), and
        what the keeper gets besides ("keeper").
    """

    name: str
    stage: int
    kind: Kind
    column: int = 0
    row: int = 0
    extra: int = 0
    occupied: int = 0
    total: int = 0
    step: int = 0
    messages: tuple[tuple[str, int], ...] = field(default=())

    @property
    def category(self) -> Category:
        """Where its time counts."""
        return {
            Kind.LINK: Category.LINKS,
            Kind.WIRES: Category.PROJECTION,
            Kind.VECTOR: Category.OTHER,
            Kind.ATTENTION: Category.ATTENTION,
        }[self.kind]


def _packed(count: int, bits: int) -> int:
    """Bytes of so many numbers, side by side without gaps."""
    return -(-count * bits // 8)


class _Builder:
    """Appends operations; sizes are rounded up where they do not divide."""

    def __init__(self, model: SystemModel, machine: SystemMachine) -> None:
        self.model, self.machine = model, machine
        self.operations: list[Operation] = []
        self.stage = 0

    def sums(self, count: int) -> int:
        """Bytes of so many partial sums in a message."""
        return _packed(count, self.machine.partial_sum_bits)

    def values(self, count: int) -> int:
        """Bytes of so many gathered activations in a message."""
        return _packed(count, self.machine.activation_bits)

    def link(self, name: str, column: int = 0, row: int = 0, keeper: int = 0) -> None:
        """Messages of so many bytes to every peer of column and row; `keeper` bytes more to one."""
        layers, machine = self.model.layers, self.machine
        whole = machine.link_ticks(column + keeper, layers)
        base = machine.link_ticks(column, layers)
        sizes = (("column", column), ("row", row), ("keeper", keeper))
        self.operations.append(
            Operation(
                name,
                self.stage,
                Kind.LINK,
                column=base,
                row=machine.link_ticks(row, layers),
                extra=whole - base,
                messages=tuple((what, size) for what, size in sizes if size),
            )
        )

    def wires(
        self, name: str, step: int, inputs: int, outputs: int, feeds: int = 1, ports: int = 1
    ) -> None:
        """One hardwired matrix: load, bit-serial pass with its adder tree, unload through `ports`."""
        machine = self.machine
        outputs = -(-outputs // ports)
        load = feeds * -(-inputs * machine.input_bits // (8 * machine.operand_bus_bytes))
        passed = machine.input_bits + (inputs - 1).bit_length()
        unload = -(-outputs * machine.result_bits // (8 * machine.operand_bus_bytes))
        total = load + passed + unload
        occupied = max(load, unload, machine.input_bits) if machine.double_buffered else total
        cycle = machine.ticks_per_cycle
        self.operations.append(
            Operation(
                name,
                self.stage,
                Kind.WIRES,
                occupied=occupied * cycle,
                total=total * cycle,
                step=step,
            )
        )

    def vector(self, name: str, *widths: int) -> None:
        """Passes of the vector pipeline over vectors of these widths, one after the other."""
        machine = self.machine
        cycles = sum(-(-width // machine.vector_lanes) + machine.vector_latency for width in widths)
        ticks = cycles * machine.ticks_per_cycle
        self.operations.append(
            Operation(name, self.stage, Kind.VECTOR, occupied=ticks, total=ticks)
        )

    def attention(self) -> None:
        self.operations.append(Operation("attention", self.stage, Kind.ATTENTION))


def layer_operations(
    model: SystemModel, machine: SystemMachine, turns: int = 1
) -> tuple[Operation, ...]:
    """Return what a token does in one layer.

    Parameters
    ----------
    turns : int
        Largest number of the token's experts that sit on one chip.
    """
    build = _Builder(model, machine)
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


def _queries_to_chips(build: _Builder, queries: int, both: int) -> None:
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
        column=_packed(queries // rows, wide),
        keeper=_packed(both // rows, wide),
    )
    build.vector("bias and rotation", queries + both, queries + both)


def _attention_outputs(build: _Builder, queries: int) -> None:
    """Outputs of attention become the input of Wo on every chip of the column."""
    machine, rows = build.machine, build.machine.rows
    if machine.partition is Partition.HEADS:
        build.vector("divide and quantize", queries // rows, queries // rows, queries // rows)
        build.link("O column all-gather", column=build.values(queries // rows) + SCALE_BYTES)
        return
    # A largest score and a sum a head; never narrower than 16 bits.
    count = -(-2 * build.model.heads // (machine.columns * rows))
    statistics = _packed(count, max(16, machine.partial_sum_bits))
    build.link("softmax statistics reduce-scatter", column=statistics)
    build.link("softmax statistics all-gather", column=statistics)
    build.vector("rescale", queries)
    build.link("O column reduce-scatter", column=build.sums(queries // rows))
    build.link("O column all-gather", column=build.values(queries // rows))
    build.vector("divide and quantize", queries, queries)


SCALE_BYTES = 8
"""A sum of squares or a scale, and a largest magnitude, four bytes each, beside the data."""


def _scatter_grid(build: _Builder, name: str, width: int) -> None:
    """Reduce-scatter over the grid: half of the vector takes rows first, half columns."""
    rows, columns = build.machine.rows, build.machine.columns
    build.link(
        f"{name} first reduce-scatter",
        column=build.sums(-(-width // (2 * rows))),
        row=build.sums(-(-width // (2 * columns))),
    )
    small = build.sums(-(-width // (2 * rows * columns)))
    build.link(f"{name} second reduce-scatter", column=small, row=small)


def _norm_statistics(build: _Builder, own: int) -> None:
    """A chip adds to its sixteenth of the residual stream; sums of squares and maxima go round."""
    build.vector("add, squares and largest", own)
    build.link("norm statistics in rows", row=SCALE_BYTES)
    build.link("norm statistics in columns", column=SCALE_BYTES)
    build.vector("norm and quantize", own)


def _add_norm_gather(build: _Builder, own: int) -> None:
    """The residual stream in sixteenths becomes an INT8 vector on all chips."""
    _norm_statistics(build, own)
    half = build.values(-(-own // 2))
    build.link("X first all-gather", column=half, row=half)
    build.link(
        "X second all-gather", column=half * build.machine.columns, row=half * build.machine.rows
    )


def head_operations(model: SystemModel, machine: SystemMachine) -> tuple[Operation, ...]:
    """Return what follows the last layer: logits, a choice, and the embedding of the next token."""
    build = _Builder(model, machine)
    build.stage = STAGES - 1
    share = model.vocabulary // machine.chips
    build.vector("add, norm and quantize", model.hidden, model.hidden, model.hidden)
    build.wires("unembedding", 0, model.hidden, share, ports=machine.ports)
    build.vector("sample", share)
    build.link("best of rows", row=SCALE_BYTES)
    build.link("best of columns", column=SCALE_BYTES)
    build.vector("embedding", model.hidden)
    return tuple(build.operations)


@dataclass(frozen=True)
class AttentionCost:
    """Time of attention and size of keys and values of one layer and sequence on a chip.

    Members
    -------
    heads : int
        Query heads that a chip works on.
    share : int
        Chips among which positions are divided.
    dots, cycle : int
        Dot products a lane does in a cycle, those of values overlapping those of scores; ticks of a cycle.
    position_bytes : int
        Bytes of one position.
    numerator, denominator : int
        Ticks that the HBM needs for a byte.
    """

    heads: int
    share: int
    dots: int
    cycle: int
    position_bytes: int
    numerator: int
    denominator: int

    def ticks(self, attended: int) -> int:
        """Ticks for which one lane is busy."""
        return -(-self.heads * -(-attended // self.share) // self.dots) * self.cycle

    def bytes(self, attended: int) -> int:
        """Bytes that a chip holds."""
        return self.position_bytes * -(-attended // self.share)

    def fetch_ticks(self, attended: int, resident: int) -> int:
        """Ticks to bring from HBM what is not resident."""
        return -(-max(0, self.bytes(attended) - resident) * self.numerator // self.denominator)


def attention_cost(model: SystemModel, machine: SystemMachine) -> AttentionCost:
    """Return the cost of attention under the machine's partition."""
    by_heads = machine.partition is Partition.HEADS
    parts = machine.chips if by_heads else machine.columns
    byte_ticks = Fraction(machine.ticks_per_second, machine.hbm_bytes_per_second)
    return AttentionCost(
        heads=model.heads // parts,
        share=1 if by_heads else machine.rows,
        dots=machine.attention_dots,
        cycle=machine.ticks_per_cycle,
        position_bytes=-(
            -2 * max(1, model.kv_heads // parts) * model.head_dim * machine.kv_bits // 8
        ),
        numerator=byte_ticks.numerator,
        denominator=byte_ticks.denominator,
    )


def link_bytes(model: SystemModel, machine: SystemMachine) -> dict[str, int]:
    """Data bytes a token and layer put on a column link, a row link, and the keeper's link besides."""
    totals = {"column": 0, "row": 0, "keeper": 0}
    for operation in layer_operations(model, machine):
        for what, size in operation.messages:
            totals[what] += size
    return totals


def is_static(machine: SystemMachine) -> bool:
    """Whether each token in flight owns its share of the links."""
    return machine.arbitration is Arbitration.STATIC
