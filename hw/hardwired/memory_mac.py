"""Weights in a memory: a multiplier and an accumulator for each output, an element a cycle."""

from collections.abc import Sequence

from hw.hardwired.codes import Alphabet
from hw.hardwired.compressor import Columns
from hw.hardwired.netlist import Netlist
from hw.hardwired.operator import ACTIVATION_BITS, Feed, Operator, OperatorSpec, Schedule
from hw.hardwired.ripple import sign_extend

__all__ = ["build_memory_mac"]


def build_memory_mac(spec: OperatorSpec, keep: bool = True) -> Operator:
    """The programmable design: a word of codes for each element, and as many MACs as outputs.

    Each cycle reads the weights that an element meets in all rows. A MAC decodes its weight to two's
    complement and adds the partial products to its accumulator in one carry-save tree. The memory is
    counted by its bits; its decoders and amplifiers are in the area of a bit.
    """
    alphabet = Alphabet(spec.weights)
    schedule = Schedule(feed=Feed.ELEMENTS, cycles=spec.inputs, bits=ACTIVATION_BITS)
    netlist = Netlist(keep)
    first = netlist.input("first", 1)[0]
    x = netlist.input("x", ACTIVATION_BITS)
    word = netlist.input("weights", alphabet.bits * spec.outputs)
    y: list[int] = []
    for row in range(spec.outputs):
        code = word[alphabet.bits * row : alphabet.bits * (row + 1)]
        y += _mac(netlist, alphabet, x, code, first, spec, row)
    netlist.output("y", y)
    netlist.count_memory(alphabet.bits * spec.outputs * spec.inputs)
    columns = zip(*spec.weights, strict=True)
    memory = tuple(alphabet.word(column) for column in columns)
    return Operator("memory_mac", spec, netlist, schedule, memory=memory)


def _mac(
    netlist: Netlist,
    alphabet: Alphabet,
    x: Sequence[int],
    code: Sequence[int],
    first: int,
    spec: OperatorSpec,
    row: int,
) -> list[int]:
    lowest, highest = alphabet.values[0], alphabet.values[-1]
    weight_bits = max(highest.bit_length(), (~lowest).bit_length() if lowest < 0 else 0)
    signed = lowest < 0
    total_bits = weight_bits + signed
    table = [value % (1 << total_bits) for value in alphabet.values]
    weight = alphabet.decode(netlist, code, table)
    # Every row could be given any weights of the alphabet.
    columns = Columns(netlist, spec.result_bits)
    for place, net in enumerate(x):
        for weight_place, weight_net in enumerate(weight):
            product = netlist.both(net, weight_net)
            negative = (place == ACTIVATION_BITS - 1) != (signed and weight_place == total_bits - 1)
            value = 1 << place + weight_place
            if negative:
                columns.add_bit(netlist.invert(product), place + weight_place)
                columns.constant -= value
            else:
                columns.add_bit(product, place + weight_place)
    # The constants of all cycles are added once, at the start.
    initial = spec.bias(row) + spec.inputs * columns.take_constant()
    state = [netlist.register() for _ in range(columns.width)]
    columns.add_number([
        netlist.select(first, register, initial >> k & 1) for k, register in enumerate(state)
    ])
    for register, value in zip(state, columns.reduce(), strict=True):
        netlist.drive(register, value)
    return sign_extend(tuple(state), spec.result_bits)
