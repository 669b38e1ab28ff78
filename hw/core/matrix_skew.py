"""Delays activations on the way to the rows of the matrix engine, slot by slot."""

from typing import Any

from amaranth.hdl import Module, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.core.matrix_activations import WINDOW_BLOCKS
from hw.core.pipeline import delays
from hw.spec.cascade import SLOTS, row_kinds, slot_delays
from hw.spec.machine import MachineSpec
from hw.spec.weight_format import BLOCK_ELEMENTS

__all__ = ["MatrixSkew", "operand_layout"]


def operand_layout(spec: MachineSpec) -> data.ArrayLayout:
    """What a row gets for each slot: an activation, or a block of 16 from which it chooses."""
    return data.ArrayLayout(8 * BLOCK_ELEMENTS if spec.sparse else signed(8), SLOTS)


class MatrixSkew(wiring.Component):
    """Gives every slot its activation when its slice of the cascade needs it, for all rows at once.

    In machines without cascades, wires.

    Parameters
    ----------
    spec : MachineSpec
        The machine.

    Members
    -------
    i : In(ArrayLayout(signed(8), 8)), or In(ArrayLayout(128, 4)) in sparse machines
        Activation of each slot, or the block of slots 2i and 2i + 1.
    o : Out(operand_layout(spec)), an array over `hw.spec.cascade.row_kinds`
        The same for each slot, `hw.spec.cascade.slot_delays` later.
    """

    i: data.View
    o: list[data.View]

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        layout = operand_layout(spec)
        places = WINDOW_BLOCKS if spec.sparse else SLOTS
        super().__init__({
            "i": In(data.ArrayLayout(layout.elem_shape, places)),
            "o": Out(layout).array(len(row_kinds(spec))),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        wanted = [slot_delays(self.spec, kind) for kind in row_kinds(self.spec)]
        shared = 2 if self.spec.sparse else 1
        late: dict[int, list[Any]] = {}
        for slot in range(SLOTS):
            place = slot // shared
            if place not in late:
                slots = range(place * shared, (place + 1) * shared)
                most = max(own[s] for own in wanted for s in slots)
                late[place] = delays(m, f"operand_{place}", self.i[place], most)
            for output, own in zip(self.o, wanted, strict=True):
                m.d.comb += output[slot].eq(late[place][own[slot]])
        return m
