"""Rows that are computed a digit at a time: the sum of a cycle, and the accumulator that shifts to the right."""

from collections.abc import Sequence

from hw.hardwired.compressor import Columns
from hw.hardwired.netlist import ONE, ZERO, Netlist
from hw.hardwired.operator import ACTIVATION_BITS, Feed, Schedule

__all__ = [
    "accumulate",
    "digit_schedule",
    "first_input",
    "offset_correction",
    "serial_correction",
]


def digit_schedule(bits: int, taps: int = 1) -> Schedule:
    """Schedule of a design that is fed `bits` bits of every element a cycle."""
    cycles = -(-(ACTIVATION_BITS + taps - 1) // bits)
    return Schedule(feed=Feed.DIGITS, cycles=cycles, bits=bits, taps=taps)


def offset_correction(schedule: Schedule, weight_sum: int) -> int:
    """What to add because digits come from numbers that are offset by half their range.

    Parameters
    ----------
    weight_sum : int
        Sum of the factors of all elements, taps not counted: every tap is offset by the same.
    """
    return -weight_sum << schedule.cycles * schedule.bits - 1


def serial_correction(schedule: Schedule, constant: int) -> int:
    """The sum over all cycles of a constant that belongs to the sum of each cycle."""
    return constant * (((1 << schedule.cycles * schedule.bits) - 1) // ((1 << schedule.bits) - 1))


def accumulate(
    netlist: Netlist,
    columns: Columns,
    schedule: Schedule,
    first: int,
    initial: int | Sequence[int],
) -> list[int]:
    """Add the sums of all cycles, each worth 2**bits times the one before; returns the result's nets.

    The accumulator takes part in the reduction of the cycle's columns. Its lowest bits are final in each
    cycle and leave to the right; the others move down. So no shifter is needed, and nothing is registered
    twice. In the first cycle the accumulator counts as `initial`. The result stays from the cycle after
    the last until a next vector's first cycle has passed.

    Parameters
    ----------
    columns : Columns
        Of one cycle, without a constant; as wide as the result, and at least as wide as all digits of
        an element.
    first : int
        Net that is 1 in the first cycle of a vector.
    initial : int or sequence of int
        Value, or nets of its bits, of the accumulator at the start.
    """
    width, bits = columns.width, schedule.bits
    if isinstance(initial, int):
        start = [initial >> k & 1 for k in range(width)]
    else:
        start = list(initial)
    if schedule.cycles == 1:
        columns.add_number(start)
        return [netlist.registered(net) for net in columns.reduce()]
    state = [netlist.register() for _ in range(max(0, width - bits))]
    state_bits = [*state, *[ZERO] * (width - len(state))]
    columns.add_number([
        netlist.select(first, old, new) for old, new in zip(state_bits, start, strict=True)
    ])
    total = columns.reduce()
    for place, register in enumerate(state):
        netlist.drive(register, total[place + bits])
    out_bits = schedule.cycles * bits
    final = [netlist.register() for _ in range(out_bits)]
    following = [*final[bits:], *total[:bits]]
    for register, value in zip(final, following, strict=True):
        netlist.drive(register, value)
    return [*final, *state[: width - out_bits]]


def first_input(netlist: Netlist, schedule: Schedule) -> int:
    """Control input of a design that is fed digits: 1 in a vector's first cycle, constant if it has only one."""
    return ONE if schedule.cycles == 1 else netlist.input("first", 1)[0]
