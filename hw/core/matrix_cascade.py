"""Dot products of a row of the matrix engine in a cascade of DSP48E2 slices."""

from amaranth.hdl import Cat, Const, Module, Signal, Value, signed

from hw.core.dsp48e2 import DSP48E2
from hw.core.matrix_element import shift_add
from hw.core.pair_mac import multiply_packed
from hw.core.pipeline import delays
from hw.spec.cascade import RowCascade
from hw.spec.dsp import INMODE_A, LANE_BITS, P_BITS, DspSpec, W, Z, opmode

__all__ = ["DSP_WEIGHT_BITS", "cascade_sums"]

DSP_WEIGHT_BITS = 8
ACTIVATION_BITS = 8
HALF_LANE = 1 << (LANE_BITS - 1)
"""What the low lane starts from. A step has at most 4 products of 8 by 8 bits or 8 narrower ones, whose sums are
-2**16 + 2**9 ... 2**16: so the lane stays between 0 and 2**18, on the way too, and never borrows from the high one."""


def cascade_sums(
    m: Module,
    weights: list[list[Value]],
    activations: list[list[Value]],
    cascade: RowCascade,
    *,
    vendor: bool,
    narrow_bits: int,
) -> list[Value]:
    """Dot products of a step: every slice adds those of its slot to the word of the slice below.

    Two rows of weights with one vector of activations, one row with two vectors, or one with one: two products of a
    slot have a factor in common, and are added up side by side, `LANE_BITS` apart.

    Every register moves in every cycle, and a slice adds what belongs to the same step as the word from below:
    what is not a step's meets no step's.

    Parameters
    ----------
    m : Module
        Where the slices go.
    weights : list of list of signed(8)
        By row and slot, all in the same cycle; not registered.
    activations : list of list of signed(8)
        By column and slot; each slot's come `RowCascade.delays` cycles later than a cycle behind the weights.
    cascade : RowCascade
        Which slots have slices, in which order.
    vendor : bool
        Instantiates the primitive, not its behaviour.
    narrow_bits : int
        Bits that weights in odd slots have at most.

    Returns
    -------
    list of Value
        Sums, row by row or column by column, `RowCascade.cycles` + 3 cycles behind the weights.
    """
    packed = len(weights) + len(activations) > 2
    own = [
        [_late(m, row, slot, weight, cascade, narrow_bits) for slot, weight in enumerate(values)]
        for row, values in enumerate(weights)
    ]
    lane_bits = narrow_bits + ACTIVATION_BITS if packed else 0
    entering = [
        _product(m, [row[slot] for row in own], [column[slot] for column in activations], slot)
        for slot in cascade.logic
    ]
    below: DSP48E2 | None = None
    for place, slot in enumerate(cascade.slices):
        # All that enters has a bias of its own, which the first slice makes up to half a lane.
        bias = HALF_LANE - (len(entering) << lane_bits - 1) if packed else 0
        spec = _slice_spec(len(weights), len(activations), 0 if below else bias)
        m.submodules[f"dsp_{slot}"] = dsp = DSP48E2(spec, vendor=vendor)
        met = [column[slot] for column in activations]
        if len(weights) > 1:
            multiply_packed(m, dsp, own[1][slot], met[0], own[0][slot])
        elif packed:
            multiply_packed(m, dsp, met[1], own[0][slot], met[0])
        else:
            m.d.comb += [dsp.a.eq(own[0][slot]), dsp.b.eq(met[0]), dsp.inmode.eq(INMODE_A)]
        word = entering[place] if place < len(entering) else None
        m.d.comb += [dsp.enable.eq(1), dsp.opmode.eq(_opmode(below, word, bias))]
        if word is not None:
            m.d.comb += dsp.c.eq(word)
        if below is not None:
            m.d.comb += dsp.pcin.eq(below.pcout)
        below = dsp
    assert below is not None
    if not packed:
        return [below.p[:LANE_BITS].as_signed()]
    # The low lane has half its range too much.
    low = Cat(below.p[: LANE_BITS - 1], ~below.p[LANE_BITS - 1]).as_signed()
    return [low, below.p[LANE_BITS : 2 * LANE_BITS].as_signed()]


def _late(
    m: Module, row: int, slot: int, weight: Value, cascade: RowCascade, narrow_bits: int
) -> Value:
    """A weight when its slot's turn has come."""
    bits = narrow_bits if slot % 2 else DSP_WEIGHT_BITS
    late = delays(m, f"weight_{row}_{slot}", weight[:bits], cascade.delays[slot])
    return late[-1].as_signed()


def _slice_spec(rows: int, columns: int, bias: int) -> DspSpec:
    """Registers of a slice: weights are there a cycle before activations, and both reach the multiplier in the same one."""
    if rows > 1:
        return DspSpec(a_registers=1, d_registers=1, b_registers=1, rounding=bias)
    if columns > 1:
        return DspSpec(a_registers=0, d_registers=0, b_registers=2, rounding=bias)
    return DspSpec(a_registers=2, b_registers=1, preadder=False, rounding=bias)


def _opmode(below: DSP48E2 | None, word: Value | None, bias: int) -> int:
    """The product, and whatever of bias or slice below and product of lookup tables there is."""
    if below is not None:
        return opmode(z=Z.PCIN, w=W.ZERO if word is None else W.C)
    return opmode(z=Z.ZERO if word is None else Z.C, w=W.RND if bias else W.ZERO)


def _product(m: Module, weights: list[Value], activations: list[Value], slot: int) -> Value:
    """Products of a slot in lookup tables, as a word of a slice, two cycles behind the weights.

    Of two products the low one has half of its range added, so that it cannot be negative.
    """
    products: list[Value] = []
    for row, weight in enumerate(weights):
        held = delays(m, f"narrow_{row}_{slot}", weight, 1)[-1].as_signed()
        for column, activation in enumerate(activations):
            bits = len(weight) + ACTIVATION_BITS
            product = Signal(signed(bits), name=f"logic_{row}_{column}_{slot}", reset_less=True)
            m.d.sync += product.eq(shift_add(held, activation))
            products.append(product)
    if len(products) == 1:
        return products[0]
    low, high = products
    unsigned = Cat(low[:-1], ~low[-1], Const(0, LANE_BITS - len(low)))
    extended = Cat(high, high[-1].replicate(P_BITS - LANE_BITS - len(high)))
    return Cat(unsigned, extended)
