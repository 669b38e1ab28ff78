"""What multiplies in a row of the matrix engine, other than inferred multipliers: adders, or DSP48E2 slices."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed

from hw.core.dsp48e2 import DSP48E2
from hw.spec.dsp import INMODE_A, INMODE_PREADD, LANE_BITS, DspSpec, W, opmode
from hw.spec.machine import MachineSpec

__all__ = ["DSP_WEIGHT_BITS", "balanced_sum", "dsp_sums", "rows_together", "shift_add"]

DSP_WEIGHT_BITS = 8
ACTIVATION_BITS = 8
PRODUCT_BITS = 16
PACKED_BITS = 2 * LANE_BITS
"""Of a sum of two lanes: a step's 4 products of 8 by 8 bits, or 8 narrower ones, need 17 bits in each."""


def rows_together(spec: MachineSpec) -> int:
    """Rows that share multipliers: two weights that meet the same activation go into one DSP slice."""
    alone = spec.matrix_element != "dsp" or spec.sparse or spec.matrix_columns > 1
    return 1 if alone else 2


def shift_add(weight: Value, activation: Value) -> Value:
    """Product of two signed values as a sum of shifted activations, one for each bit of the weight."""
    terms: list[Value] = []
    for bit in range(len(weight)):
        term = Mux(weight[bit], activation << bit, 0)
        terms.append(-term if bit == len(weight) - 1 else term)
    return balanced_sum(terms)


def balanced_sum(terms: list[Value]) -> Value:
    """Sum of signed values, as a tree."""
    while len(terms) > 1:
        odd = terms[len(terms) // 2 * 2 :]
        terms = [a + b for a, b in zip(terms[::2], terms[1::2], strict=False)] + odd
    return terms[0]


def _logic_sum(
    m: Module,
    weights: list[list[Value]],
    activations: list[list[Value]],
    slots: list[int],
    bits: int,
) -> Value:
    """Sum of the products of some slots, packed like those of slices and as late: four cycles behind the weights."""
    lanes: list[list[Value]] = []
    for row, own in enumerate(weights):
        held: dict[int, Signal] = {}
        for slot in slots:
            held[slot] = Signal(signed(bits), name=f"narrow_{row}_{slot}", reset_less=True)
            m.d.sync += held[slot].eq(own[slot][:bits].as_signed())
        for column, met in enumerate(activations):
            lane: list[Value] = []
            for slot in slots:
                product = Signal(
                    signed(bits + ACTIVATION_BITS),
                    name=f"logic_{row}_{column}_{slot}",
                    reset_less=True,
                )
                m.d.sync += product.eq(shift_add(held[slot], met[slot]))
                lane.append(product)
            lanes.append(lane)
    total = balanced_sum(lanes[0])
    if len(lanes) > 1:
        total = total + (balanced_sum(lanes[1]) << LANE_BITS)
    early = Signal(total.shape(), name="logic_early", reset_less=True)
    late = Signal(total.shape(), name="logic_late", reset_less=True)
    m.d.sync += [early.eq(total), late.eq(early)]
    return late


def dsp_sums(
    m: Module,
    weights: list[list[Value]],
    activations: list[list[Value]],
    add: Value,
    *,
    vendor: bool,
    logic_slots: int = 0,
    narrow_bits: int = 4,
) -> list[Value]:
    """Dot products of a step in DSP48E2 slices, one slice a slot, but for those slots that multiply in lookup tables.

    Two rows of weights with one vector of activations, one row with two vectors, or one with one: two products of a
    slice have a factor in common, the others are added up side by side, `LANE_BITS` apart. One slice adds 2**17, so that
    the low lane never borrows from the high one.

    Parameters
    ----------
    m : Module
        Where the slices go.
    weights : list of list of signed(8)
        By row and slot; not registered.
    activations : list of list of signed(8)
        By column and slot; a cycle behind the weights.
    add : Value
        Four cycles behind the weights: take the sums.
    vendor : bool
        Instantiates the primitive, not its behaviour.
    logic_slots : int
        How many of the odd slots, the last ones first, have no slice.
    narrow_bits : int
        Bits that weights in odd slots have at most.

    Returns
    -------
    list of Value
        Registered sums, row by row or column by column.
    """
    packed = len(weights) + len(activations) > 2
    products: list[Value] = []
    in_logic = [slot for slot in reversed(range(len(weights[0]))) if slot % 2][:logic_slots]
    for slot in range(len(weights[0])):
        if slot in in_logic:
            continue
        own = [row[slot] for row in weights]
        met = [column[slot] for column in activations]
        if len(own) > 1:
            # Weights through the pre-adder; their common activation comes later.
            a_registers, d_registers, b_registers = 1, 1, 1
            pair, common = own, met[0]
        elif len(met) > 1:
            a_registers, d_registers, b_registers = 0, 0, 2
            pair, common = met, own[0]
        else:
            a_registers, d_registers, b_registers = 2, 1, 1
            pair, common = own, met[0]
        biased = packed and slot == 0
        spec = DspSpec(
            a_registers=a_registers,
            d_registers=d_registers,
            b_registers=b_registers,
            preadder=packed,
            rounding=1 << (LANE_BITS - 1) if biased else 0,
        )
        m.submodules[f"dsp_{slot}"] = dsp = DSP48E2(spec, vendor=vendor)
        high = pair[1] << LANE_BITS if packed else pair[0]
        m.d.comb += [
            dsp.enable.eq(1),
            dsp.a.eq(high),
            dsp.d.eq(pair[0] if packed else 0),
            dsp.b.eq(common),
            dsp.inmode.eq(INMODE_PREADD if packed else INMODE_A),
            dsp.opmode.eq(opmode(w=W.RND) if biased else opmode()),
        ]
        products.append(dsp.p[: PACKED_BITS if packed else PRODUCT_BITS].as_signed())
    if in_logic:
        products.append(_logic_sum(m, weights, activations, in_logic, narrow_bits))
    total = balanced_sum(products)
    taken = Signal(signed(PACKED_BITS) if packed else total.shape(), name="taken", reset_less=True)
    with m.If(add):
        m.d.sync += taken.eq(total)
    if not packed:
        return [taken]
    # The low lane has 2**17 too much.
    low = Cat(taken[: LANE_BITS - 1], ~taken[LANE_BITS - 1]).as_signed()
    return [low, taken[LANE_BITS:].as_signed()]
