"""Reductions of the vector unit over the elements of a row: largest element, sum, and ARGMAX.

Floating-point numbers are compared by *keys*: unsigned integers in the order of the sign-magnitude
patterns, -0 below +0. No canonical number has key 0, which stands for "no element".
"""

from collections.abc import Callable

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.core.vector_lane import SUM_BITS, SUM_FRACTION_BITS
from hw.floating import IntegerToFloat
from hw.floating_values import register
from hw.spec.instructions import BUFFER_BITS
from hw.spec.latency import VECTOR_TREE_LEVELS
from hw.spec.machine import MachineSpec

__all__ = [
    "INDEX_BITS",
    "KEY_BITS",
    "SUM_WIDTH",
    "VectorMaximum",
    "VectorSum",
    "float_key",
    "key_float",
]

INDEX_BITS = 20
KEY_BITS = 32
SUM_WIDTH = 64


def float_key(value: Value) -> Value:
    """Key of a canonical FP32 number: unsigned, in the order of the numbers, -0 below +0."""
    return Cat(value[:-1] ^ value[-1].replicate(KEY_BITS - 1), ~value[-1])


def key_float(key: Value) -> Value:
    """The number that has a key."""
    return Cat(key[:-1] ^ (~key[-1]).replicate(KEY_BITS - 1), ~key[-1])


def reduce_tree(
    m: Module, name: str, values: list[Value], combine: Callable[[Value, Value], Value]
) -> Value:
    """Combine neighbours until one value is left; a register after every VECTOR_TREE_LEVELS levels.

    The latency is that of `hw.spec.latency.vector_tree_cycles`.
    """
    level = 0
    while len(values) > 1:
        level += 1
        pairs = zip(values[::2], values[1::2], strict=True)
        values = [combine(low, high) for low, high in pairs]
        registered = level % VECTOR_TREE_LEVELS == 0 or len(values) == 1
        for i, value in enumerate(values):
            label = f"{name}_{level}_{i}"
            if registered:
                values[i] = register(m, label, value)
            else:
                values[i] = named = Signal(value.shape(), name=label)
                m.d.comb += named.eq(value)
    return values[0]


class VectorMaximum(wiring.Component):
    """Largest element of each row, and ARGMAX over all elements since `forget`.

    Latencies: from elements to `key` and `lane` the tree, from there to `o` and `best_index` one cycle.

    Parameters
    ----------
    spec : MachineSpec
        Gives the lanes.

    Members
    -------
    elements : In(32 * lanes), mask : In(lanes)
        One beat, canonical, and which lanes count.
    magnitude : In(1)
        Compare absolute values.
    valid, first : In(1)
        The beat at the end of the tree counts; it begins a row.
    o : Out(32)
        Largest element of the row up to the last valid beat.
    forget : In(1)
        ARGMAX starts afresh.
    start, base : In
        Index of the next beat's first element, divided by the lanes.
    keep : In(1)
        The valid beat takes part in ARGMAX.
    best_index : Out(INDEX_BITS)
        Index of the largest element, the lowest of equals.
    best_key : Out(KEY_BITS)
        Its rank; 0 if there is none.
    """

    elements: Value
    mask: Value
    magnitude: Value
    valid: Value
    first: Value
    o: Value
    forget: Value
    start: Value
    base: Value
    keep: Value
    best_index: Value
    best_key: Value

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        super().__init__({
            "elements": In(32 * spec.lanes),
            "mask": In(spec.lanes),
            "magnitude": In(1),
            "valid": In(1),
            "first": In(1),
            "o": Out(32),
            "forget": In(1),
            "start": In(1),
            "base": In(BUFFER_BITS),
            "keep": In(1),
            "best_index": Out(INDEX_BITS),
            "best_key": Out(KEY_BITS),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lane_bits = exact_log2(self.spec.lanes)
        # An inverted lane number below the key: of equal keys the lowest lane is the largest.
        candidates: list[Value] = []
        for lane in range(self.spec.lanes):
            element = self.elements.word_select(lane, 32)
            key = float_key(Cat(element[:-1], element[-1] & ~self.magnitude))
            candidate = Signal(lane_bits + KEY_BITS, name=f"candidate_{lane}")
            inverted_lane = Const(self.spec.lanes - 1 - lane, lane_bits)
            m.d.comb += candidate.eq(Cat(inverted_lane, key & self.mask[lane].replicate(KEY_BITS)))
            candidates.append(candidate)
        winner = reduce_tree(m, "largest", candidates, lambda a, b: Mux(b > a, b, a))
        key = winner[lane_bits:]

        row_key = Signal(KEY_BITS, reset_less=True)
        m.d.comb += self.o.eq(key_float(row_key))
        with m.If(self.valid & (self.first | (key > row_key))):
            m.d.sync += row_key.eq(key)

        best_key = self.best_key
        # A row that is longer than a buffer is deep repeats its elements, and the first of equals is the best.
        position = Signal(min(INDEX_BITS - lane_bits, BUFFER_BITS + 1), reset_less=True)
        with m.If(self.forget):
            m.d.sync += best_key.eq(0)
        with m.If(self.start):
            m.d.sync += position.eq(self.base)
        with m.If(self.valid & self.keep):
            m.d.sync += position.eq(position + 1)
            with m.If(key > best_key):
                m.d.sync += [
                    best_key.eq(key),
                    self.best_index.eq(Cat(~winner[:lane_bits], position)),
                ]
        return m


class VectorSum(wiring.Component):
    """Exact sum of each row in fixed point, rounded once to FP32.

    Latencies: from `fixed` to where `valid` counts the tree; from there to `o` one cycle more than
    `FROM_INTEGER_LATENCY`.

    Parameters
    ----------
    spec : MachineSpec
        Gives the lanes.

    Members
    -------
    fixed : In(SUM_BITS * lanes), mask : In(lanes)
        One beat, and which lanes count.
    valid, first : In(1)
        The beat at the end of the tree counts; it begins a row.
    o : Out(32)
        Sum of the row up to that beat.
    total : Out(SUM_WIDTH)
        The same in fixed point; FROM_INTEGER_LATENCY earlier.
    is_shared, shared : In(1), In(SUM_WIDTH)
        With several cores: what `o` is made of instead of `total`.
    """

    fixed: Value
    mask: Value
    valid: Value
    first: Value
    o: Value
    total: Value
    # With several cores.
    is_shared: Value
    shared: Value

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        shared = {"is_shared": In(1), "shared": In(SUM_WIDTH)} if spec.cores > 1 else {}
        super().__init__({
            "fixed": In(SUM_BITS * spec.lanes),
            "mask": In(spec.lanes),
            "valid": In(1),
            "first": In(1),
            "o": Out(32),
            "total": Out(SUM_WIDTH),
            **shared,
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.to_float = to_float = IntegerToFloat(SUM_WIDTH, SUM_FRACTION_BITS)
        terms: list[Value] = []
        for lane in range(self.spec.lanes):
            chosen = self.fixed.word_select(lane, SUM_BITS) & self.mask[lane].replicate(SUM_BITS)
            term = Signal(signed(SUM_BITS), name=f"term_{lane}")
            m.d.comb += term.eq(chosen)
            terms.append(term)
        beat = reduce_tree(m, "sum", terms, lambda a, b: a + b)
        total = Signal(signed(SUM_WIDTH), reset_less=True)
        with m.If(self.valid):
            m.d.sync += total.eq(Mux(self.first, 0, total) + beat)
        m.d.comb += [to_float.i.eq(total), self.total.eq(total), self.o.eq(to_float.o)]
        if self.spec.cores > 1:
            m.d.comb += to_float.i.eq(Mux(self.is_shared, self.shared, total))
        return m
