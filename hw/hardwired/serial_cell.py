"""Cell embedding, a digit at a time: the digits of all products of a row in one carry-save tree."""

from hw.hardwired.compressor import Columns
from hw.hardwired.netlist import Netlist
from hw.hardwired.operator import Operator, OperatorSpec
from hw.hardwired.ripple import sign_extend
from hw.hardwired.serial import (
    accumulate,
    digit_schedule,
    first_input,
    offset_correction,
    serial_correction,
)

__all__ = ["build_serial_cell"]


def build_serial_cell(spec: OperatorSpec, keep: bool = True) -> Operator:
    """A bit for each signed digit of each weight and each bit a cycle, one tree a row, and an accumulator.

    This is what cell embedding costs when it is as serial as a hardwired neuron.
    """
    schedule = digit_schedule(spec.bits)
    netlist = Netlist(keep)
    first = first_input(netlist, schedule)
    x = netlist.input("x", spec.inputs * spec.bits)
    y: list[int] = []
    for row, weights in enumerate(spec.weights):
        columns = Columns(netlist, max(spec.row_bits[row], schedule.cycles * spec.bits))
        for element, weight in enumerate(weights):
            for place in range(spec.bits):
                columns.add_product(x[spec.bits * element + place], weight << place)
        initial = (
            spec.bias(row)
            + offset_correction(schedule, sum(weights))
            + serial_correction(schedule, columns.take_constant())
        )
        bits = accumulate(netlist, columns, schedule, first, initial)
        y += sign_extend(tuple(bits), spec.result_bits)
    netlist.output("y", y)
    return Operator("serial_cell", spec, netlist, schedule)
