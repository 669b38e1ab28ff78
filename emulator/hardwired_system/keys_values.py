"""Keys and values: what attention to them costs, and where they are kept."""

from dataclasses import dataclass
from fractions import Fraction

from emulator.hardwired_system.machine import Partition, SystemMachine
from emulator.hardwired_system.model import SystemModel


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


def resident_bytes(model: SystemModel, machine: SystemMachine) -> tuple[int, int]:
    """Buffer bytes of a chip that one sequence has for a windowed and for a full layer.

    Windows come first, because they are used again and again; full layers share the rest evenly.
    """
    tokens, windowed = machine.in_flight(model.layers), sum(model.windowed)
    window = attention_cost(model, machine).bytes(model.window)
    if tokens * windowed * window > machine.buffer_bytes:
        return machine.buffer_bytes // (tokens * windowed), 0
    rest = machine.buffer_bytes - tokens * windowed * window
    return window, rest // (tokens * max(1, model.full_layers))


def sequence_limit(model: SystemModel, machine: SystemMachine, positions: int) -> int:
    """Sequences of so many positions whose keys and values a chip's buffer and HBM hold together."""
    cost = attention_cost(model, machine)
    one = sum(cost.bytes(model.attended(n, positions)) for n in range(model.layers))
    return (machine.buffer_bytes + machine.hbm_bytes) // one
