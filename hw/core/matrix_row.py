"""One output of the matrix engine: weights, products, group sums."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.core.matrix_cascade import DSP_WEIGHT_BITS, cascade_sums
from hw.core.matrix_element import balanced_sum, shift_add
from hw.core.matrix_mode import is_wide, select_by
from hw.core.matrix_sequence import mode_layout
from hw.core.matrix_skew import operand_layout
from hw.core.pipeline import delays
from hw.floating_values import named
from hw.spec.cascade import SLOTS, row_cascade, rows_together, slot_delays
from hw.spec.layout import FP4_VALUES
from hw.spec.machine import MachineSpec
from hw.spec.weight_format import BLOCK_ELEMENTS, WeightFormat

__all__ = ["GROUP_SUM_BITS", "MatrixRow", "row_control_layout", "weight_layout"]

ACTIVATION_BITS = 8
GROUP_SUM_BITS = 32
NIBBLE_BITS = 5
"""Of a multiplier's weight: a low nibble without sign, or twice an E2M1 number."""


def row_control_layout() -> data.StructLayout:
    """What each stage of a row does in this cycle; all rows work in lockstep."""
    return data.StructLayout({
        # The metadata on the port are those of the step that follows, or there are none for it.
        "choose": 1,
        # The weights on the port are a step's.
        "load": 1,
        # The loaded weights meet their activations.
        "multiply": 1,
        # The products are summed.
        "add": 1,
        # The step's sum joins its group's; `group_first` starts a group.
        "gather": 1,
        "group_first": 1,
    })


def weight_layout(spec: MachineSpec) -> data.StructLayout:
    """Bits of one row in the words of a step, by the quarters of a word that a step fills."""
    sizes = {step.weight_quarters for step in spec.step_formats}
    if spec.sparse:
        # As metadata have one word or two.
        sizes |= {4, 8}
    return data.StructLayout({f"quarters_{size}": 4 * size for size in sorted(sizes)})


class MatrixRow(wiring.Component):
    """Dot products of one row of weights with the activations of every column, by groups.

    A byte of weights is split into nibbles, ``byte = 16 * high + low``, and every nibble has its own
    multiplier. Eight weights of up to 4 bits meet eight activations; a wider weight meets the same activation
    twice, its low nibble unsigned, and the sum of the high products counts 16 times. So all
    multipliers work in both modes, and each is only 5 bits by 8.

    In a machine with sparsity every row chooses the activations of its slots by its metadata.

    Instead of multipliers the products may come from adders (`matrix_element` shift_add), or from a cascade of DSP slices
    (dsp, `hw.core.matrix_cascade`): these take whole weights, two products each where two rows or two columns have a
    factor in common. They need neither `multiply` nor `add`.

    No flow control. Operands are taken in the stages that `control` names, which follow each other
    cycle by cycle from `choose` on, `gather` as many cycles later as `hw.spec.latency` says; `group_sums` include a step
    from the cycle after its `gather` on.

    Parameters
    ----------
    spec : MachineSpec
        The machine.
    vendor : bool
        DSP slices are primitives, for vendor tools, and not their behaviour.
    logic_slots : int
        Slots of DSP slices that multiply in lookup tables.

    Members
    -------
    mode : In(mode_layout())
        Constant during an instruction.
    weights : In(weight_layout(spec)), an array of `rows_together`
        A row's part of the words that are there, by the size of a step: metadata in the cycle of `choose`,
        weights in that of `load`.
    operands : In(operand_layout(spec)), an array of `matrix_columns`
        For the slots of each column, `hw.spec.cascade.slot_delays` later: in dense machines activations, in the cycle of
        `multiply`; in sparse ones blocks from which slots choose their activations, in the cycle of `load`.
    control : In(row_control_layout())
        What the stages do.
    group_sums : Out(signed(32)), an array of `rows_together` arrays of `matrix_columns`
        Sum of the group so far.
    """

    mode: data.View
    weights: list[data.View]
    operands: list[data.View]
    control: data.View
    group_sums: list[list[Value]]

    def __init__(self, spec: MachineSpec, *, vendor: bool = False, logic_slots: int = 0) -> None:
        self.spec = spec
        self.vendor = vendor
        self.logic_slots = logic_slots
        rows = rows_together(spec)
        columns = spec.matrix_columns
        super().__init__({
            "mode": In(mode_layout()),
            "weights": In(weight_layout(spec)).array(rows),
            "operands": In(operand_layout(spec)).array(columns),
            "control": In(row_control_layout()),
            "group_sums": Out(signed(GROUP_SUM_BITS)).array(rows, columns),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        positions = self._positions(m) if self.spec.sparse else []
        slots: list[Any] = [
            self._choose(m, column, positions) if positions else list(self._slots(column))
            for column in range(self.spec.matrix_columns)
        ]
        if self.spec.matrix_element == "dsp":
            step_sums = self._cascade_sums(m, slots)
        else:
            nibbles = self._nibbles(m)
            step_sums = [
                self._step_sum(m, column, nibbles, own) for column, own in enumerate(slots)
            ]
        group_sums = [group_sum for row in self.group_sums for group_sum in row]
        for group_sum, step_sum in zip(group_sums, step_sums, strict=True):
            with m.If(self.control.gather):
                earlier = Mux(self.control.group_first, 0, group_sum)
                m.d.sync += group_sum.eq(earlier + step_sum)
        return m

    def _slots(self, column: int) -> list[Value]:
        return [self.operands[column][slot] for slot in range(SLOTS)]

    def _cascade_sums(self, m: Module, slots: list[list[Value]]) -> list[Value]:
        """Dot products of a step, of both rows or of both columns if there are two."""
        weights = []
        for row in range(len(self.weights)):
            choices: dict[int, Value] = {
                int(WeightFormat[name]): Cat(
                    _extended(value, DSP_WEIGHT_BITS)
                    for value in self._expand(m, row, WeightFormat[name], split=False)
                )
                for name in self.spec.weight_formats
            }
            chosen = select_by(m, f"expanded_{row}", self.mode.format, choices)
            weights.append([
                named(
                    m, f"weight_{row}_{slot}", chosen.word_select(slot, DSP_WEIGHT_BITS).as_signed()
                )
                for slot in range(SLOTS)
            ])
        return cascade_sums(
            m,
            weights,
            slots,
            row_cascade(self.spec, self.logic_slots),
            vendor=self.vendor,
            narrow_bits=4 + ("FP4" in self.spec.weight_formats),
        )

    def _nibbles(self, m: Module) -> list[Signal]:
        """Weight of each slot's multiplier, registered."""
        wide_signed = 4 + ("FP4" in self.spec.weight_formats)
        nibbles = [
            Signal(
                signed(wide_signed if slot % 2 else NIBBLE_BITS),
                name=f"nibble_{slot}",
                reset_less=True,
            )
            for slot in range(SLOTS)
        ]
        expanded: dict[int, Value] = {
            int(WeightFormat[name]): Cat(
                _extended(value, len(nibble))
                for nibble, value in zip(
                    nibbles, self._expand(m, 0, WeightFormat[name], split=True), strict=True
                )
            )
            for name in self.spec.weight_formats
        }
        with m.If(self.control.load):
            m.d.sync += Cat(nibbles).eq(select_by(m, "expanded", self.mode.format, expanded))
        return nibbles

    def _expand(self, m: Module, row: int, weight: WeightFormat, *, split: bool) -> list[Value]:
        """Signed values of the slots, from a row's bits of a step; wide weights as nibbles, or in even slots only."""
        bits = self.weights[row][f"quarters_{weight.step_weights * weight.bits // 4}"]
        values: list[Value] = []
        for index in range(weight.step_weights):
            code = bits[weight.bits * index : weight.bits * (index + 1)]
            if is_wide(weight):
                values += [Cat(code[:4], Const(0, 1)), code[4:]] if split else [code, Const(0, 1)]
            elif weight is WeightFormat.FP4:
                values.append(_twice_e2m1(m, f"e2m1_{row}_{index}", code))
            else:
                values.append(code)
        return values

    def _positions(self, m: Module) -> list[Signal]:
        """Which element of its block each slot takes, registered, and as late as its operands."""
        indices, narrow = self.weights[0].quarters_8, self.weights[0].quarters_4
        ranked = _set_bits(m, narrow)
        positions = []
        late = slot_delays(self.spec, self.logic_slots)
        for slot in range(SLOTS):
            own = Mux(self.mode.bitmap, ranked[slot], indices.word_select(slot, 4))
            shared = narrow.word_select(slot // 2, 4)
            chosen = Mux(self.mode.wide, shared, own)
            dense = Mux(self.mode.wide, slot // 2, slot)
            position = Signal(4, name=f"position_{slot}", reset_less=True)
            with m.If(self.control.choose):
                m.d.sync += position.eq(Mux(self.mode.sparse, chosen, dense))
            positions.append(delays(m, f"position_{slot}", position, late[slot])[-1])
        return positions

    def _choose(self, m: Module, column: int, positions: list[Signal]) -> list[Signal]:
        """Activations of the slots, registered."""
        chosen = []
        for slot, position in enumerate(positions):
            activation = Signal(
                signed(ACTIVATION_BITS), name=f"activation_{column}_{slot}", reset_less=True
            )
            element = self._element(m, column, slot, position)
            if self.spec.matrix_element == "dsp":
                m.d.sync += activation.eq(element)
            else:
                with m.If(self.control.load):
                    m.d.sync += activation.eq(element)
            chosen.append(activation)
        return chosen

    def _element(self, m: Module, column: int, slot: int, position: Value) -> Value:
        block = self.operands[column][slot]
        elements = {index: block.word_select(index, 8) for index in range(BLOCK_ELEMENTS)}
        return select_by(m, f"element_{column}_{slot}", position, elements)

    def _step_sum(self, m: Module, column: int, nibbles: list[Signal], slots: list[Value]) -> Value:
        """Products and adder tree: the dot product of a step, but for its last adder registered."""
        adders = self.spec.matrix_element == "shift_add"
        products: list[Value] = []
        for slot, nibble in enumerate(nibbles):
            product = Signal(
                signed(len(nibble) + ACTIVATION_BITS),
                name=f"product_{column}_{slot}",
                reset_less=True,
            )
            with m.If(self.control.multiply):
                m.d.sync += product.eq(
                    shift_add(nibble, slots[slot]) if adders else nibble * slots[slot]
                )
            products.append(product)
        high_sum = named(m, f"high_sum_{column}", balanced_sum(products[1::2]))
        # Even and odd slots meet in front of the group's sum: two adders between any two registers.
        sums = [balanced_sum(products[0::2]), Mux(self.mode.wide, high_sum << 4, high_sum)]
        halves = [
            Signal(half.shape(), name=f"{name}_{column}", reset_less=True)
            for name, half in zip(("even_sum", "odd_sum"), sums, strict=True)
        ]
        with m.If(self.control.add):
            m.d.sync += [half.eq(total) for half, total in zip(halves, sums, strict=True)]
        return halves[0] + halves[1]


def _extended(value: Value, width: int) -> Value:
    """The same number in more bits."""
    return Cat(value, value[-1].replicate(width - len(value)))


def _twice_e2m1(m: Module, name: str, code: Value) -> Value:
    """Twice an E2M1 number, in two's complement."""
    result = Signal(signed(NIBBLE_BITS), name=name)
    table = [*FP4_VALUES, *(-value for value in FP4_VALUES)]
    with m.Switch(code):
        for number, value in enumerate(table):
            with m.Case(number):
                m.d.comb += result.eq(value)
    return result


def _set_bits(m: Module, bitmap: Value) -> list[Value]:
    """Positions of the first eight set bits, lowest first; 0 for those that are not there."""
    # Bit r of a rank says that r set bits lie below, so no adder is needed.
    rank: Value = Const(1, SLOTS)
    chosen: list[list[Value]] = [[] for _ in range(SLOTS)]
    for index in range(len(bitmap)):
        here = named(m, f"rank_{index}", rank)
        for slot in range(SLOTS):
            chosen[slot].append((bitmap[index] & here[slot]).replicate(4) & index)
        rank = Mux(bitmap[index], here << 1, here)[:SLOTS]
    positions = []
    for slot, terms in enumerate(chosen):
        position: Value = Const(0, 4)
        for term in terms:
            position |= term
        positions.append(named(m, f"set_bit_{slot}", position))
    return positions
