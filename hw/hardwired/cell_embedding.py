"""Cell embedding in parallel: a constant multiplier for each weight, and adders that sum the products."""

from collections.abc import Callable, Sequence

from hw.hardwired.compressor import Columns, sum_bits
from hw.hardwired.digits import binary_digits, signed_digits
from hw.hardwired.netlist import Netlist
from hw.hardwired.operator import (
    ACTIVATION_BITS,
    Feed,
    Operator,
    OperatorSpec,
    Schedule,
)
from hw.hardwired.ripple import Number, add, negate, shift_left, sign_extend, subtract

__all__ = ["build_cell", "build_merged", "build_naive", "constant_product"]

Signed = tuple[Number, int]
"""A number and the sign that it is to be counted with."""

HALF = 1 << ACTIVATION_BITS - 1


def build_naive(spec: OperatorSpec, keep: bool = True) -> Operator:
    """What a constant matrix-vector product in Verilog says, literally.

    A constant multiplier is an adder for each binary digit of the weight but the first, and the products
    of a row are added one after the other. All adders are ripple-carry, as wide as their result's range.
    """
    return _build("naive", spec, keep, _naive_row)


def build_cell(spec: OperatorSpec, keep: bool = True) -> Operator:
    """Cell embedding as published: multipliers from signed digits, and a balanced tree of adders.

    Each adder completes its carries before the next level, as an unmerged tree does. Zero weights have no
    multiplier.
    """
    return _build("cell", spec, keep, _cell_row)


def build_merged(spec: OperatorSpec, keep: bool = True) -> Operator:
    """Cell embedding with all signed digits of a row in one carry-save tree, and one carry chain at its end."""
    netlist = Netlist(keep)
    x = netlist.input("x", spec.inputs * ACTIVATION_BITS)
    y: list[int] = []
    for row, weights in enumerate(spec.weights):
        columns = Columns(netlist, spec.row_bits[row])
        columns.constant = spec.bias(row)
        for element, weight in enumerate(weights):
            for place in range(ACTIVATION_BITS):
                # The highest bit of a two's complement number counts negative.
                value = -HALF if place == ACTIVATION_BITS - 1 else 1 << place
                columns.add_product(x[ACTIVATION_BITS * element + place], weight * value)
        y += _registered(netlist, columns.reduce(), spec.result_bits)
    netlist.output("y", y)
    return Operator("merged", spec, netlist, Schedule(feed=Feed.WHOLE, cycles=1, bits=8))


def _build(
    name: str,
    spec: OperatorSpec,
    keep: bool,
    build_row: Callable[[Netlist, list[Number], Sequence[int]], Signed | None],
) -> Operator:
    netlist = Netlist(keep)
    x = netlist.input("x", spec.inputs * ACTIVATION_BITS)
    inputs = [
        Number(tuple(x[ACTIVATION_BITS * i : ACTIVATION_BITS * (i + 1)]), -HALF, HALF - 1)
        for i in range(spec.inputs)
    ]
    y: list[int] = []
    for row, weights in enumerate(spec.weights):
        total = _with_bias(netlist, build_row(netlist, inputs, weights), spec.bias(row))
        y += _registered(netlist, total.bits, spec.result_bits)
    netlist.output("y", y)
    return Operator(name, spec, netlist, Schedule(feed=Feed.WHOLE, cycles=1, bits=8))


def _registered(netlist: Netlist, bits: Sequence[int], width: int) -> list[int]:
    """A register for each bit, and the sign repeated up to the width."""
    return sign_extend(tuple(netlist.registered(net) for net in bits), width)


def _with_bias(netlist: Netlist, total: Signed | None, bias: int) -> Number:
    constant = constant_number(bias)
    if total is None:
        return constant
    number, sign = total
    if sign < 0:
        return subtract(netlist, constant, number)
    return add(netlist, number, constant) if bias else number


def constant_number(value: int) -> Number:
    """A number that is always the same; its bits are constant nets."""
    width = sum_bits(value, value)
    return Number(tuple(value >> k & 1 for k in range(width)), value, value)


def _naive_row(netlist: Netlist, inputs: list[Number], weights: Sequence[int]) -> Signed | None:
    total: Number | None = None
    for element, weight in enumerate(weights):
        if not weight:
            continue
        parts = [shift_left(inputs[element], shift) for shift, _ in binary_digits(weight)]
        product = parts[0]
        for part in parts[1:]:
            product = add(netlist, product, part)
        if total is None:
            total = product if weight > 0 else negate(netlist, product)
        else:
            total = (add if weight > 0 else subtract)(netlist, total, product)
    return None if total is None else (total, 1)


def _cell_row(netlist: Netlist, inputs: list[Number], weights: Sequence[int]) -> Signed | None:
    level: list[Signed] = []
    for element, weight in enumerate(weights):
        if weight:
            level.append((
                constant_product(netlist, inputs[element], abs(weight)),
                1 if weight > 0 else -1,
            ))
    while len(level) > 1:
        odd = level[len(level) // 2 * 2 :]
        pairs = zip(level[::2], level[1::2], strict=False)
        level = [_signed_sum(netlist, a, b) for a, b in pairs] + odd
    return level[0] if level else None


def constant_product(netlist: Netlist, number: Number, factor: int) -> Number:
    """Constant multiplier: an adder or subtractor for each signed digit but the highest."""
    (highest, _), *others = reversed(signed_digits(factor))
    product = shift_left(number, highest)
    so_far = 1 << highest
    for shift, sign in others:
        part = shift_left(number, shift)
        product = (add if sign > 0 else subtract)(netlist, product, part)
        # The range of a product with a constant is that of its ends, not of the sum of its parts.
        so_far += sign << shift
        product = _narrowed(product, number, so_far)
    return product


def _narrowed(product: Number, number: Number, factor: int) -> Number:
    low, high = number.low * factor, number.high * factor
    return Number(product.bits[: sum_bits(low, high)], low, high)


def _signed_sum(netlist: Netlist, a: Signed, b: Signed) -> Signed:
    """Sum of two numbers with signs, which are left to the next level where they are equal."""
    if a[1] == b[1]:
        return add(netlist, a[0], b[0]), a[1]
    if a[1] < 0:
        a, b = b, a
    return subtract(netlist, a[0], b[0]), 1
