"""Digits, compressors, ripple adders, shared sums: the parts that designs are made of."""

import itertools
import random
from collections.abc import Sequence

import numpy as np
import pytest

from hw.hardwired.codes import Alphabet
from hw.hardwired.compressor import Columns, sum_bits
from hw.hardwired.digits import binary_digits, odd_part, signed_digits
from hw.hardwired.netlist import ONE, ZERO, CellKind, Netlist
from hw.hardwired.ripple import Number, add, negate, shift_left, subtract
from hw.hardwired.shared_terms import share_sums
from sim_tests.gate_simulation import GateSimulation


@pytest.mark.parametrize("value", range(-300, 301))
def test_digits_add_up(value: int) -> None:
    assert sum(sign << shift for shift, sign in binary_digits(value)) == value
    digits = signed_digits(value)
    assert sum(sign << shift for shift, sign in digits) == value
    assert len(digits) <= len(binary_digits(value))


def test_signed_digits_are_fewest() -> None:
    """No sum of fewer signed powers of two below 2**10 gives the value."""
    powers = [sign << shift for shift in range(10) for sign in (1, -1)]
    for count in (1, 2):
        reached = {sum(chosen) for chosen in itertools.combinations(powers, count)}
        for value in range(1, 256):
            if value in reached:
                assert len(signed_digits(value)) <= count, value


@pytest.mark.parametrize("value, odd", [(12, 3), (-12, -3), (8, 1), (7, 7), (-1, -1)])
def test_odd_part(value: int, odd: int) -> None:
    found, shift = odd_part(value)
    assert (found, found << shift) == (odd, value)


def evaluate(netlist: Netlist, name: str, bits: Sequence[Sequence[int]]) -> list[int]:
    """The number at an output for each row of input bits."""
    simulation = GateSimulation(netlist, len(bits))
    simulation.evaluate({"x": np.array(bits, np.uint8)})
    read = simulation.read(name)
    return [sum(int(bit) << place for place, bit in enumerate(row)) for row in read]


def test_columns_add_bits_of_any_weight() -> None:
    rng = random.Random(3)
    for _ in range(60):
        count, width = rng.randint(1, 30), rng.randint(1, 9)
        factors = [rng.randint(-20, 20) for _ in range(count)]
        constant = rng.randint(-500, 500)
        netlist = Netlist()
        x = netlist.input("x", count)
        columns = Columns(netlist, width)
        columns.constant = constant
        for net, factor in zip(x, factors, strict=True):
            columns.add_product(net, factor)
        netlist.output("y", columns.reduce())
        rows = [[rng.randint(0, 1) for _ in range(count)] for _ in range(70)]
        rows += [[0] * count, [1] * count]
        wanted = [
            (constant + sum(f * b for f, b in zip(factors, row, strict=True))) % (1 << width)
            for row in rows
        ]
        assert evaluate(netlist, "y", rows) == wanted


@pytest.mark.parametrize("count", range(1, 40))
def test_a_population_count_has_a_full_adder_for_each_bit_less(count: int) -> None:
    netlist = Netlist()
    columns = Columns(netlist, count.bit_length())
    for net in netlist.input("x", count):
        columns.add_bit(net, 0)
    result = columns.reduce()
    assert len(result) == count.bit_length()
    # A full adder removes a bit, a half adder none.
    assert netlist.counts().full_adders == count - count.bit_length()


@pytest.mark.parametrize(
    "low, high, bits", [(0, 0, 1), (-1, 0, 1), (0, 1, 2), (-128, 127, 8), (-129, 0, 9), (0, 128, 9)]
)
def test_sum_bits(low: int, high: int, bits: int) -> None:
    assert sum_bits(low, high) == bits


def test_ripple_arithmetic_exhaustively() -> None:
    pairs = list(itertools.product(range(-8, 8), range(-4, 4)))
    for operation, meaning in (
        (add, lambda a, b: a + b),
        (subtract, lambda a, b: a - b),
        (lambda n, a, b: subtract(n, negate(n, shift_left(a, 1)), b), lambda a, b: -2 * a - b),
    ):
        netlist = Netlist()
        x = netlist.input("x", 7)
        a, b = Number(tuple(x[:4]), -8, 7), Number(tuple(x[4:]), -4, 3)
        result = operation(netlist, a, b)
        netlist.output("y", result.bits)
        rows = [[a >> k & 1 for k in range(4)] + [b >> k & 1 for k in range(3)] for a, b in pairs]
        width = len(result.bits)
        wanted = [meaning(a, b) % (1 << width) for a, b in pairs]
        assert evaluate(netlist, "y", rows) == wanted
        values = [meaning(a, b) for a, b in pairs]
        assert (result.low, result.high) == (min(values), max(values))


def test_constants_are_folded_into_cells_that_mean_the_same() -> None:
    for inputs in itertools.product((ZERO, ONE, 2, 3, 4), repeat=3):
        netlist = Netlist()
        netlist.input("x", 3)
        outputs = [
            *netlist.full_adder(*inputs),
            *netlist.half_adder(*inputs[:2]),
            netlist.both(*inputs[:2]),
            netlist.either(*inputs[:2]),
            netlist.differ(*inputs[:2]),
            netlist.select(*inputs),
            netlist.invert(inputs[0]),
        ]
        netlist.output("y", outputs)
        rows = [list(row) for row in itertools.product((0, 1), repeat=3)]
        for row, got in zip(rows, evaluate(netlist, "y", rows), strict=True):
            a, b, c = (net if net <= ONE else row[net - 2] for net in inputs)
            total, half = a + b + c, a + b
            bits = [total & 1, total >> 1, half & 1, half >> 1, a & b, a | b, a ^ b]
            bits += [c if a else b, 1 - a]
            assert got == sum(bit << place for place, bit in enumerate(bits)), (inputs, row)
        full = any(cell.kind is CellKind.FULL_ADDER for cell in netlist.cells)
        assert full == all(net > ONE for net in inputs)


@pytest.mark.parametrize("tile", [3, 64])
def test_shared_sums_are_the_matrix(tile: int) -> None:
    rng = np.random.default_rng(4)
    for outputs, inputs, top in ((1, 1, 1), (6, 5, 3), (20, 17, 13), (9, 12, 100)):
        weights = rng.integers(-top, top + 1, (outputs, inputs))
        shared = share_sums(weights.tolist(), tile_inputs=tile, tile_outputs=7)
        columns = list(np.eye(inputs, dtype=np.int64))
        for node in shared.nodes:
            assert max(node.first, node.second) < len(columns)
            columns.append(columns[node.first] + node.sign * (columns[node.second] << node.shift))
        for row, terms in enumerate(shared.rows):
            total = sum(
                (t.sign * (columns[t.node] << t.shift) for t in terms), np.zeros(inputs, int)
            )
            assert np.array_equal(total, weights[row])


def test_sharing_saves_additions() -> None:
    rng = np.random.default_rng(6)
    weights = rng.choice([0, 1, 2, 3, 4, 6, 8, 12, -1, -2, -3, -4, -6, -8, -12], (64, 64)).tolist()
    digits = sum(len(signed_digits(weight)) for row in weights for weight in row)
    assert share_sums(weights).adders < 0.55 * (digits - 64)


def test_codes_are_read_back() -> None:
    weights = [[3, -8, 0], [1, 12, 3]]
    alphabet = Alphabet(weights)
    assert (alphabet.values, alphabet.bits) == ((-8, 0, 1, 3, 12), 3)
    netlist = Netlist()
    code = netlist.input("x", 3)
    table = [value % 32 for value in alphabet.values]
    netlist.output("y", alphabet.decode(netlist, code, table))
    for row in weights:
        word = alphabet.word(row)
        for place, weight in enumerate(row):
            bits = [word >> 3 * place + k & 1 for k in range(3)]
            assert evaluate(netlist, "y", [bits]) == [weight % 32]
