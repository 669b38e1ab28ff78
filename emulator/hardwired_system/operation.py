"""One step of a token: which resource it needs, and for how long; numbers follow from widths alone."""

from dataclasses import dataclass, field
from enum import IntEnum

from emulator.hardwired_system.machine import SystemMachine
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


def packed_bytes(count: int, bits: int) -> int:
    """Bytes of so many numbers, side by side without gaps."""
    return -(-count * bits // 8)


class OperationBuilder:
    """Appends operations; sizes are rounded up where they do not divide."""

    def __init__(self, model: SystemModel, machine: SystemMachine) -> None:
        self.model, self.machine = model, machine
        self.operations: list[Operation] = []
        self.stage = 0

    def sums(self, count: int) -> int:
        """Bytes of so many partial sums in a message."""
        return packed_bytes(count, self.machine.partial_sum_bits)

    def values(self, count: int) -> int:
        """Bytes of so many gathered activations in a message."""
        return packed_bytes(count, self.machine.activation_bits)

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
