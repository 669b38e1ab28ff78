"""NumPy arithmetic against exact fractions, on edge cases and random bit patterns."""

from collections.abc import Callable
from decimal import Decimal, getcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from emulator.numerics import floating, functions
from hw.spec import functions as spec
from hw.spec.derive_tables import derive_tables
from hw.spec.floating import FP32, FloatFormat
from hw.spec.functions import Function
from tests import float_oracle as oracle

Bits = npt.NDArray[np.uint32]

EDGE_MAGNITUDES = [
    0x00000000,
    0x00000001,
    0x007FFFFF,
    0x00800000,
    0x00800001,
    0x00FFFFFF,
    0x01000000,
    0x0C000000,
    0x1FFFFFFF,
    0x20000000,
    0x33800000,
    0x34000000,
    0x3EFFFFFF,
    0x3F000000,
    0x3F7FFFFF,
    0x3F800000,
    0x3F800001,
    0x3FC00000,
    0x40000000,
    0x40800000,
    0x42FC0000,
    0x42FC0001,
    0x42FFFFFF,
    0x43000000,
    0x4B800001,
    0x5F7FFFFF,
    0x5F800000,
    0x7E7FFFFF,
    0x7E800000,
    0x7E800001,
    0x7EFFFFFF,
    0x7F000000,
    0x7F7FFFFF,
    0x7F800000,
    0x7FC00000,
    0x7FFFFFFF,
]
EDGES = np.array(EDGE_MAGNITUDES + [m | FP32.sign_mask for m in EDGE_MAGNITUDES], np.uint32)


def to_float(bits: Bits) -> floating.FloatArray:
    """What the emulator computes with: bit patterns as a memory holds them, made canonical."""
    return floating.canonical(bits.view(np.float32))


def pairs(seed: int, count: int = 6000) -> tuple[Bits, Bits]:
    """Edges against edges, and random pairs; half of these have exponents at most 26 apart."""
    generator = np.random.default_rng(seed)
    a, b = generator.integers(0, 1 << 32, (2, count), np.uint32)
    near = ((a >> 23) + generator.integers(-26, 27, count).astype(np.uint32)) & 0xFF
    close = generator.random(count) < 0.5
    b = np.where(close, (b & 0x807FFFFF) | (near << 23), b)
    return (
        np.concatenate([np.repeat(EDGES, len(EDGES)), a]),
        np.concatenate([np.tile(EDGES, len(EDGES)), b]),
    )


def flush_border_pairs(seed: int, count: int = 3000) -> tuple[Bits, Bits]:
    """Pairs whose product lies just below or at the smallest normal number."""
    generator = np.random.default_rng(seed)
    a = generator.integers(0x3F800001, 0x40000000, count, np.uint32)
    smallest = float(np.uint32(FP32.smallest).view(np.float32))
    quotient = smallest * 2.0**64 / a.view(np.float32).astype(np.float64)
    b = quotient.astype(np.float32).view(np.uint32) + generator.integers(-1, 2, count)
    a -= np.uint32(64 << 23)
    return a, b.astype(np.uint32)


def check(found: floating.FloatArray, wanted: list[int], *operands: npt.NDArray[Any]) -> None:
    """Compare bit patterns; a failure names the first operands and both results."""
    assert found.dtype == np.float32
    bits = found.view(np.uint32)
    wrong = np.flatnonzero(bits != np.array(wanted, np.uint32))
    messages = [
        f"{[hex(x[i]) for x in operands]}: {bits[i]:#x}, wanted {wanted[i]:#x}" for i in wrong[:3]
    ]
    assert not messages, messages


@pytest.mark.parametrize(
    "function,golden",
    [
        (floating.multiply, oracle.multiply),
        (floating.add, oracle.add),
        (floating.maximum, oracle.maximum),
    ],
    ids=["multiply", "add", "maximum"],
)
@pytest.mark.parametrize("operands", [pairs(1), flush_border_pairs(2)], ids=["all", "border"])
def test_two_operands(
    function: Callable[[npt.ArrayLike, npt.ArrayLike], floating.FloatArray],
    golden: Callable[[int, int, FloatFormat], int],
    operands: tuple[Bits, Bits],
) -> None:
    a, b = operands
    wanted = [golden(int(x), int(y), FP32) for x, y in zip(a, b, strict=True)]
    x, y = to_float(a), to_float(b)
    check(function(x, y), wanted, a, b)
    # One at a time, so that the fast path is judged on each, not only on the whole.
    for i in range(0, len(a), 7):
        check(function(x[i : i + 1], y[i : i + 1]), wanted[i : i + 1], a[i : i + 1], b[i : i + 1])


def test_flush_is_decided_before_rounding() -> None:
    # (1 - 2**-24) * 2**-126 rounds to the smallest normal number, which is not the answer.
    a = np.array([0x3F7FFFFF, 0xBF7FFFFF], np.uint32)
    product = floating.multiply(to_float(a), np.float32(2.0**-126))
    assert product.view(np.uint32).tolist() == [0, 0x80000000]


def test_operands_broadcast() -> None:
    column = np.array([[1.0], [2.0**-126]], np.float32)
    row = np.array([1.0, 0.75, 3.0], np.float32)
    assert floating.multiply(column, row).tolist() == [
        [1.0, 0.75, 3.0],
        [2.0**-126, 0, 3 * 2.0**-126],
    ]
    assert floating.add(row, 1).tolist() == [2.0, 1.75, 4.0]
    assert float(floating.multiply(3, 0.5)) == 1.5
    assert float(floating.maximum(3, 0.5)) == 3


def test_canonical() -> None:
    bits = np.concatenate([EDGES, np.random.default_rng(3).integers(0, 1 << 32, 2000, np.uint32)])
    check(to_float(bits), [oracle.canonical(int(x), FP32) for x in bits], bits)
    ordinary = np.array([1.0, -2.5], np.float32)
    assert floating.canonical(ordinary) is ordinary


@pytest.mark.parametrize("bits,shift", [(8, 0), (48, 30), (16, -3), (53, 100)])
def test_to_integer(bits: int, shift: int) -> None:
    generator = np.random.default_rng(4)
    exponents = np.clip(127 - shift + generator.integers(-3, bits + 2, 3000), 0, 255)
    patterns = generator.integers(0, 1 << 32, 3000, np.uint32) & np.uint32(0x807FFFFF)
    patterns |= exponents.astype(np.uint32) << np.uint32(23)
    ties = (np.arange(-300, 300) + 0.5) * 2.0**-shift
    patterns = np.concatenate([EDGES, patterns, ties.astype(np.float32).view(np.uint32)])
    found = floating.to_integer(to_float(patterns), bits, shift)
    assert found.dtype == np.int64
    wanted = [oracle.to_integer(int(x), bits, shift, FP32) for x in patterns]
    assert found.tolist() == wanted


@pytest.mark.parametrize("shift", [0, 24, 30, 126])
def test_from_integer(shift: int) -> None:
    generator = np.random.default_rng(5)
    integers = generator.integers(-(1 << 63), (1 << 63) - 1, 3000, endpoint=True)
    integers >>= generator.integers(0, 64, 3000)
    limits = [0, 1, -1, (1 << 63) - 1, -(1 << 63), (1 << 24) + 1, (1 << 24) + 3, -(1 << 25) - 2]
    integers = np.concatenate([np.array(limits), integers])
    wanted = [oracle.from_integer(int(i), shift, FP32) for i in integers]
    check(floating.from_integer(integers, shift), wanted, integers)


@pytest.mark.parametrize("function", list(Function))
def test_functions(function: Function) -> None:
    generator = np.random.default_rng(6)
    # All exponents evenly, and those in which the exponential is neither 0, 1 nor saturated.
    patterns = generator.integers(0, 1 << 32, 4000, np.uint32)
    exponents = generator.integers(127 - 26, 127 + 7, 4000).astype(np.uint32)
    middle = generator.integers(0, 1 << 32, 4000, np.uint32) & np.uint32(0x807FFFFF)
    # Ties of the exponential's fixed-point operand, at its 23 fraction bits.
    ties = (generator.integers(-(1 << 20), 1 << 20, 500) + 0.5) * 2.0**-23
    patterns = np.concatenate([
        EDGES,
        patterns,
        middle | (exponents << np.uint32(23)),
        ties.astype(np.float32).view(np.uint32),
    ])
    wanted = [oracle.function_bits(function, int(x), FP32) for x in patterns]
    check(functions.apply(function, to_float(patterns)), wanted, patterns)


def test_exact_results() -> None:
    powers = np.ldexp(np.float32(1), np.arange(-126, 128))
    assert (functions.exponential2(np.arange(-126, 128)) == powers).all()
    assert functions.exponential2(np.array([0.0, -0.0], np.float32)).tolist() == [1.0, 1.0]
    assert (functions.reciprocal(powers[:-1]) == powers[:-1][::-1]).all()
    assert functions.reciprocal(powers[-1:]).tolist() == [0.0]
    assert (functions.reciprocal_square_root(powers[::2]) ** 2 == powers[::2][::-1]).all()


#: One operand of every fraction, in [1, 2).
ALL_FRACTIONS = (np.arange(1 << 23, dtype=np.uint32) | np.uint32(FP32.one)).view(np.float32)


def test_exponential2_of_every_fraction() -> None:
    x = np.linspace(0, 1, 1 << 23, endpoint=False, dtype=np.float32)
    y = functions.exponential2(x)
    assert (np.diff(y) >= 0).all()
    assert (np.abs(y / np.exp2(x.astype(np.float64)) - 1) < 2.0**-23.6).all()


def test_exponential2_with_its_rounded_operand() -> None:
    x = np.random.default_rng(7).uniform(-126, 128, 1 << 20).astype(np.float32)
    x = np.sort(np.concatenate([x, np.ldexp(x, -8), np.ldexp(x, -16), np.ldexp(x, -24)]))
    y = functions.exponential2(x)
    assert (np.diff(y) >= 0).all()
    assert (np.abs(y / np.exp2(x.astype(np.float64)) - 1) < 2.0**-23).all()


def test_reciprocal_of_every_fraction() -> None:
    y = functions.reciprocal(ALL_FRACTIONS)
    assert (np.diff(y) <= 0).all()
    assert (np.abs(y * ALL_FRACTIONS.astype(np.float64) - 1) < 2.0**-22.1).all()


def test_reciprocal_square_root_of_every_fraction() -> None:
    x = np.concatenate([ALL_FRACTIONS, ALL_FRACTIONS * 2])
    y = functions.reciprocal_square_root(x)
    assert (np.diff(y) <= 0).all()
    assert (np.abs(y * np.sqrt(x.astype(np.float64)) - 1) < 2.0**-23.2).all()


def test_tables_are_what_the_script_derives() -> None:
    derived = derive_tables()
    for function, table in spec.TABLES.items():
        stored = [[s.constant, s.linear, s.quadratic] for s in table]
        assert stored == derived[function.name.lower()], function
    widths = [spec.INDEX_BITS, spec.STEP_BITS, spec.COEFFICIENT_FRACTION_BITS]
    widths.append(spec.RESULT_FRACTION_BITS)
    names = ["index_bits", "step_bits", "coefficient_fraction_bits", "result_fraction_bits"]
    assert widths == [derived[name] for name in names]


def test_constants_of_the_tables_are_the_functions() -> None:
    # By decimal arithmetic, which the script does not use.
    getcontext().prec = 40
    half = 1 << (spec.COEFFICIENT_FRACTION_BITS - spec.RESULT_FRACTION_BITS - 1)
    scale = 1 << spec.COEFFICIENT_FRACTION_BITS
    starts = [Decimal(i) / 64 for i in range(64)]
    wanted = {
        Function.EXPONENTIAL2: [Decimal(2) ** t for t in starts],
        Function.RECIPROCAL: [2 / (1 + t) for t in starts],
        Function.RECIPROCAL_SQUARE_ROOT: [2 / (1 + t).sqrt() for t in starts]
        + [2 / (2 + 2 * t).sqrt() for t in starts],
    }
    for function, values in wanted.items():
        constants = [round(value * scale) + half for value in values]
        assert [s.constant for s in spec.TABLES[function]] == constants, function
