"""Evaluation of instruction operands in a sequencer: counts, memory addresses, buffer addresses.

Products of loop indices are known from the decoding of an instruction on, products of run-time registers only
once the tokens were taken. Few multipliers serve all of them, one after the other (`share_multipliers`).
"""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from amaranth.hdl import C, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import enum as hdl_enum

from hw.spec.instructions import (
    ADDRESS_BITS,
    BUFFER_BITS,
    COUNT_BITS,
    EXTENT_BITS,
    FACTOR_BITS,
    LANE_BITS,
    Register,
)

INDEX_BITS = COUNT_BITS
REGISTER_BITS = COUNT_BITS


class State(hdl_enum.Enum, shape=unsigned(3)):
    """What a sequencer does in a cycle."""

    HALTED = 0
    FETCH = 1
    """The instruction memory is addressed."""
    DECODE = 2
    """The instruction is there. Products of loop indices may be computed."""
    WAIT = 3
    """Tokens are taken as soon as all are there; run-time registers are shifted. Products of indices too."""
    EVALUATE = 4
    """Products of run-time registers."""
    SUM = 5
    """Products are summed and limited; control instructions act."""
    OFFER = 6
    """The operation is offered to the unit."""


SLOTS = (State.DECODE, State.WAIT, State.EVALUATE)


class When(enum.Enum):
    """When the factors of a product are known."""

    DECODED = 0
    TOKENS_TAKEN = 1


@dataclass(frozen=True)
class Product:
    """One product to compute: `result` (a register, truncated) is valid in SUM and OFFER."""

    left: Value
    right: Value
    result: Signal
    when: When


def share_multipliers(m: Module, state: Any, products: list[Product]) -> int:
    """Compute all products with as few multipliers as the three slots allow; returns how many those are.

    Products of one multiplier should be of like width, so they are dealt out widest first.
    """
    late = [p for p in products if p.when is When.TOKENS_TAKEN]
    early = sorted((p for p in products if p.when is When.DECODED), key=lambda p: -len(p.result))
    count = max(len(late), -(-len(products) // len(SLOTS)))
    for number in range(count):
        plan: dict[State, Product] = {}
        if number < len(late):
            plan[State.EVALUATE] = late[number]
        # Those still to come must have room in the multipliers behind this one.
        for slot in SLOTS:
            if slot not in plan and early:
                plan[slot] = early.pop(0)
        _multiplier(m, number, state, plan)
    assert not early, "every product has a slot"
    return count


def _multiplier(m: Module, number: int, state: Any, plan: Mapping[State, Product]) -> None:
    width = max(len(p.result) for p in plan.values())
    left = Signal(max(len(p.left) for p in plan.values()), name=f"multiplier{number}_left")
    right = Signal(max(len(p.right) for p in plan.values()), name=f"multiplier{number}_right")
    product = Signal(width, name=f"multiplier{number}_product")
    m.d.comb += product.eq(left * right)
    with m.Switch(state):
        for slot, item in plan.items():
            with m.Case(slot):
                m.d.comb += [left.eq(item.left), right.eq(item.right)]
                m.d.sync += item.result.eq(product)


class OperandEvaluator:
    """Builds the operand logic of one sequencer.

    Parameters
    ----------
    m : Module
        Where the logic goes.
    state : Signal
        The sequencer's `State`.
    index : list of Signal
        Indices of the four loops, zero where not open.
    registers : mapping of Register to Value
        Run-time registers.
    """

    def __init__(
        self, m: Module, state: Any, index: list[Signal], registers: Mapping[Register, Value]
    ) -> None:
        self.m = m
        self.state = state
        self.index = index
        self.registers = registers
        self.products: list[Product] = []

    def count(self, name: str, field: Callable[[str], Value]) -> Value:
        """The count whose parts are `field("cap")` and so on; valid in SUM only."""
        m = self.m
        total = self._shifted(
            f"{name}_total", self._register(field("register")) + field("offset"), field
        )
        scaled = self._product(
            f"{name}_scaled",
            total,
            field("scale"),
            EXTENT_BITS + 1 + FACTOR_BITS,
            When.TOKENS_TAKEN,
        )
        step = field("step")
        charged = self._product(
            f"{name}_charged",
            self._level(field("level")),
            step,
            INDEX_BITS + EXTENT_BITS,
            When.DECODED,
        )
        rest = Signal(signed(INDEX_BITS + EXTENT_BITS + 1), name=f"{name}_rest")
        count = Signal(COUNT_BITS, name=f"{name}_count")
        m.d.comb += [
            rest.eq(scaled - charged),
            count.eq(Mux(rest < 0, 0, Mux(rest > field("cap"), field("cap"), rest))),
        ]
        return count

    def address(self, field: Callable[[str], Value]) -> tuple[Value, Value]:
        """The memory address, valid in SUM only, and the bits that the shift dropped, valid behind WAIT."""
        m = self.m
        register = self._register(field("register"))
        lane = Signal(LANE_BITS, name="address_lane", reset_less=True)
        with m.If(self.state == State.WAIT):
            m.d.sync += lane.eq(register & ~(C((1 << LANE_BITS) - 1) << field("shift")))
        units = self._shifted("address_units", register, field)
        terms = [
            self._product(
                "address_units_words", units, field("factor"), ADDRESS_BITS, When.TOKENS_TAKEN
            )
        ]
        for level, index in enumerate(self.index):
            stride = field(f"stride{level}")
            terms.append(
                self._product(f"address_loop{level}", index, stride, ADDRESS_BITS, When.DECODED)
            )
        address = Signal(ADDRESS_BITS, name="address_sum")
        m.d.comb += address.eq(
            (field("base") + terms[0]) + (terms[1] + terms[2]) + (terms[3] + terms[4])
        )
        return address, lane

    def buffer(self, name: str, field: Callable[[str], Value], terms: int) -> Value:
        """The buffer address; valid in SUM only."""
        total = field("base")
        for term in range(terms):
            index = self._level(field(f"level{term}"))[:BUFFER_BITS]
            stride = field(f"stride{term}")
            total = total + self._product(
                f"{name}_term{term}", index, stride, BUFFER_BITS, When.DECODED
            )
        address = Signal(BUFFER_BITS, name=f"{name}_sum")
        self.m.d.comb += address.eq(total)
        return address

    def finish(self) -> int:
        """Add the multipliers; returns their number."""
        return share_multipliers(self.m, self.state, self.products)

    def _register(self, number: Value) -> Value:
        value = Signal(REGISTER_BITS)
        with self.m.Switch(number):
            for register, source in self.registers.items():
                with self.m.Case(int(register)):
                    self.m.d.comb += value.eq(source)
        return value

    def _level(self, number: Value) -> Value:
        value = Signal(INDEX_BITS)
        with self.m.Switch(number):
            for level, index in enumerate(self.index):
                with self.m.Case(level):
                    self.m.d.comb += value.eq(index)
        return value

    def _shifted(self, name: str, value: Value, field: Callable[[str], Value]) -> Signal:
        shifted = Signal(len(value), name=name, reset_less=True)
        with self.m.If(self.state == State.WAIT):
            self.m.d.sync += shifted.eq(value >> field("shift"))
        return shifted

    def _product(self, name: str, left: Value, right: Value, width: int, when: When) -> Signal:
        result = Signal(width, name=name, reset_less=True)
        self.products.append(Product(left, right, result, when))
        return result
