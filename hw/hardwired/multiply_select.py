"""Multiply, select, add: all multiples of an element once, and a multiplexer for each weight that takes one."""

from hw.hardwired.cell_embedding import constant_product
from hw.hardwired.codes import look_up
from hw.hardwired.compressor import Columns, sum_bits
from hw.hardwired.digits import odd_part
from hw.hardwired.netlist import ZERO, Netlist
from hw.hardwired.operator import ACTIVATION_BITS, Feed, Operator, OperatorSpec, Schedule
from hw.hardwired.ripple import Number, shift_left, sign_extend

__all__ = ["build_multiply_select"]

HALF = 1 << ACTIVATION_BITS - 1


def build_multiply_select(spec: OperatorSpec, keep: bool = True) -> Operator:
    """Silicon that knows the alphabet but not the weights, which a ROM of codes holds.

    The multiples of an element by all magnitudes are formed once and serve all rows. A weight is a
    multiplexer over the multiples and an inverter that its code controls; the selected products of a row
    go into one carry-save tree, in parallel. The ROM is outside of the network (input `codes`), counted by
    its bits.
    """
    magnitudes = (0, *spec.magnitudes)
    code_bits = max(1, (len(magnitudes) - 1).bit_length())
    signed = any(weight < 0 for row in spec.weights for weight in row)
    netlist = Netlist(keep)
    x = netlist.input("x", spec.inputs * ACTIVATION_BITS)
    code_width = code_bits + signed
    codes = netlist.input("codes", code_width * spec.inputs * spec.outputs)
    width = _product_bits(magnitudes)
    products = [
        _multiples(netlist, x[ACTIVATION_BITS * i : ACTIVATION_BITS * (i + 1)], magnitudes, width)
        for i in range(spec.inputs)
    ]
    y: list[int] = []
    for row in range(spec.outputs):
        columns = Columns(netlist, spec.result_bits)
        columns.constant = spec.bias(row)
        for element in range(spec.inputs):
            begin = code_width * (row * spec.inputs + element)
            code = codes[begin : begin + code_bits]
            sign = codes[begin + code_bits] if signed else ZERO
            for place in range(width):
                choice = look_up(netlist, code, [product[place] for product in products[element]])
                # -p = ~p + 1; the bit of a two's complement number that is the sign counts negative.
                bit = netlist.differ(sign, choice)
                if place == width - 1:
                    columns.add_bit(netlist.invert(bit), place)
                    columns.constant -= 1 << place
                else:
                    columns.add_bit(bit, place)
            columns.add_bit(sign, 0)
        y += sign_extend(
            tuple(netlist.registered(net) for net in columns.reduce()), spec.result_bits
        )
    netlist.output("y", y)
    netlist.count_memory(code_width * spec.inputs * spec.outputs)
    index = {magnitude: code for code, magnitude in enumerate(magnitudes)}
    word = 0
    for place, weight in enumerate(w for row in spec.weights for w in row):
        word |= (index[abs(weight)] | (weight < 0) << code_bits) << code_width * place
    schedule = Schedule(feed=Feed.WHOLE, cycles=1, bits=8)
    return Operator("multiply_select", spec, netlist, schedule, memory=(word,))


def _product_bits(magnitudes: tuple[int, ...]) -> int:
    """Bits of every product and of its negative, with one inverted and the one added elsewhere."""
    return sum_bits(-HALF * magnitudes[-1], HALF * magnitudes[-1] - 1) if magnitudes[-1] else 1


def _multiples(
    netlist: Netlist, bits: list[int], magnitudes: tuple[int, ...], width: int
) -> list[list[int]]:
    """Each magnitude times an element; magnitudes that differ by a power of two share the adders."""
    number = Number(tuple(bits), -HALF, HALF - 1)
    by_odd_part: dict[int, Number] = {}
    products: list[list[int]] = []
    for magnitude in magnitudes:
        if magnitude == 0:
            products.append([ZERO] * width)
            continue
        odd, shift = odd_part(magnitude)
        if odd not in by_odd_part:
            by_odd_part[odd] = constant_product(netlist, number, odd)
        products.append(sign_extend(shift_left(by_odd_part[odd], shift).bits, width))
    return products
