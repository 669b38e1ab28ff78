"""What surrounds a processing element in a systolic array: operand registers, and the way of its sum."""

from amaranth.hdl import Module, Signal, Value, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.pe.array_layout import sum_shape
from hw.pe.element import ProcessingElement, make_element
from hw.spec.systolic import SystolicSpec

__all__ = ["OutputStationaryCell", "WeightStationaryCell"]


class OutputStationaryCell(wiring.Component):
    """An element whose sum stays, and a shadow register that carries finished sums down its column.

    What comes in is in the operand registers, and offered to the neighbours, one cycle later. The sum is
    copied to the shadow register where `capture` arrives, two cycles behind the operands. `shift` moves the
    shadow registers of a column down together, but each row one cycle longer than the row above it:
    otherwise it would also move sums that the rows above have captured meanwhile.

    Parameters
    ----------
    spec : SystolicSpec
        The array.
    top : bool
        Nothing is above this row.

    Members
    -------
    weight, activation, valid, clear, capture : In
        Operands and control of the element.
    weight_o, activation_o, valid_o, clear_o, capture_o : Out
        The same one cycle later.
    shift, above_moves : In(1)
        The column begins to shift; the row above moved in the cycle before.
    moves : Out(1)
        `above_moves` of the row below.
    above : In(sum_shape(spec))
        Shadow register of the row above.
    shadow : Out(sum_shape(spec))
        Shadow register.
    """

    weight: Value
    activation: Value
    valid: Value
    clear: Value
    capture: Value
    weight_o: Value
    activation_o: Value
    valid_o: Value
    clear_o: Value
    capture_o: Value
    shift: Value
    above_moves: Value
    moves: Value
    above: Value
    shadow: Value

    def __init__(self, spec: SystolicSpec, top: bool) -> None:
        self.spec = spec
        self.top = top
        element = spec.processing_element
        weight = unsigned(element.weight_bits + element.control_bits)
        operands = {"weight": weight, "activation": unsigned(element.activation_bits)}
        operands |= dict.fromkeys(("valid", "clear", "capture"), unsigned(1))
        super().__init__({
            **{name: In(shape) for name, shape in operands.items()},
            **{f"{name}_o": Out(shape) for name, shape in operands.items()},
            "shift": In(1),
            "above_moves": In(1),
            "moves": Out(1),
            "above": In(sum_shape(spec)),
            "shadow": Out(sum_shape(spec)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.element = element = make_element(self.spec.processing_element)

        weight = Signal.like(self.weight, name="weight_1", reset_less=True)
        activation = Signal.like(self.activation, name="activation_1", reset_less=True)
        clear = Signal(name="clear_1", reset_less=True)
        m.d.sync += [
            weight.eq(self.weight),
            activation.eq(self.activation),
            clear.eq(self.clear),
            self.valid_o.eq(self.valid),
            self.capture_o.eq(self.capture),
        ]
        m.d.comb += [
            self.weight_o.eq(weight),
            self.activation_o.eq(activation),
            self.clear_o.eq(clear),
            element.valid.eq(self.valid_o),
            element.clear.eq(clear),
        ]
        connect_operands(m, element, weight, activation)

        shadow = Signal.like(self.shadow, name="shadow_1", reset_less=True)
        m.d.comb += self.shadow.eq(shadow)
        if not self.top:
            moving = Signal()
            m.d.comb += moving.eq(self.shift | self.above_moves)
            m.d.sync += self.moves.eq(moving)
            with m.If(moving):
                m.d.sync += shadow.eq(self.above)
        with m.If(self.capture_o):
            m.d.sync += shadow.eq(element.sum)
        return m


class WeightStationaryCell(wiring.Component):
    """An element whose weight stays; partial sums flow down.

    The element only multiplies: its sum is cleared in every cycle. `swap` comes with the first activation
    of a pass and takes the weight that was shifted in behind the one in use.

    Parameters
    ----------
    spec : SystolicSpec
        The array.

    Members
    -------
    activation, swap : In
        Operand, and whether it is the first of a pass.
    activation_o, swap_o : Out
        The same one cycle later.
    load : In(1)
        The next weights of the column shift down by one row.
    weight : In
        Next weight of the row above.
    weight_o : Out
        Next weight of this row.
    above : In(sum_shape(spec))
        Partial sum of the rows above, for the activation that came two cycles ago.
    shadow : Out(sum_shape(spec))
        Partial sum with this row's product, for the activation that came four cycles ago.
    """

    activation: Value
    swap: Value
    activation_o: Value
    swap_o: Value
    load: Value
    weight: Value
    weight_o: Value
    above: Value
    shadow: Value

    def __init__(self, spec: SystolicSpec) -> None:
        self.spec = spec
        element = spec.processing_element
        weight = unsigned(element.weight_bits + element.control_bits)
        activation = unsigned(element.activation_bits)
        super().__init__({
            "activation": In(activation),
            "swap": In(1),
            "activation_o": Out(activation),
            "swap_o": Out(1),
            "load": In(1),
            "weight": In(weight),
            "weight_o": Out(weight),
            "above": In(sum_shape(spec)),
            "shadow": Out(sum_shape(spec)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.element = element = make_element(self.spec.processing_element)

        activation = Signal.like(self.activation, name="activation_1", reset_less=True)
        following = Signal.like(self.weight, name="weight_next", reset_less=True)
        weight = Signal.like(self.weight, name="weight_1", reset_less=True)
        m.d.sync += [activation.eq(self.activation), self.swap_o.eq(self.swap)]
        with m.If(self.load):
            m.d.sync += following.eq(self.weight)
        with m.If(self.swap):
            m.d.sync += weight.eq(following)
        m.d.comb += [
            self.activation_o.eq(activation),
            self.weight_o.eq(following),
            element.valid.eq(1),
            element.clear.eq(1),
        ]
        connect_operands(m, element, weight, activation)

        partial = Signal.like(self.shadow, name="partial_sum", reset_less=True)
        m.d.sync += partial.eq(self.above + element.sum)
        m.d.comb += self.shadow.eq(partial)
        return m


def connect_operands(
    m: Module, element: ProcessingElement, weight: Value, activation: Value
) -> None:
    """Drive an element from registers; its control bits lie above those of the weight."""
    bits = element.spec.weight_bits
    m.d.comb += [element.weight.eq(weight[:bits]), element.activation.eq(activation)]
    if element.spec.control_bits:
        m.d.comb += element.control.eq(weight[bits:])
