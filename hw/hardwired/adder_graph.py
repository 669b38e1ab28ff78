"""A graph of shared adders, bit-serial: one full adder and one carry register for each addition."""

import heapq
from collections.abc import Sequence

from hw.hardwired.netlist import ZERO, CellKind, Netlist
from hw.hardwired.operator import Feed, Operator, OperatorSpec, Schedule
from hw.hardwired.shared_terms import TILE_INPUTS, SharedSums, Term, share_sums

__all__ = ["build_adder_graph"]


def build_adder_graph(
    spec: OperatorSpec, keep: bool = True, tile_inputs: int = TILE_INPUTS
) -> Operator:
    """Sums that rows have in common are formed once, and every addition is one bit a cycle.

    Numbers pass lowest bit first in two's complement, their sign repeated, for as many cycles as the
    widest output has bits. An addition is a full adder whose carry waits a cycle in a register; a
    subtraction inverts one operand and starts with a carry of one; multiplication by two is a register.
    Sums are not registered, so that nothing has to be aligned: `facts["depth"]` adders are between
    registers. Each output ends in a shift register as long as it.
    """
    shared = share_sums(spec.weights, tile_inputs)
    width = spec.result_bits
    schedule = Schedule(feed=Feed.SIGNED_DIGITS, cycles=width, bits=1)
    netlist = Netlist(keep)
    x = netlist.input("x", spec.inputs)
    graph = _Graph(netlist, x, shared)
    y: list[int] = []
    for row, terms in enumerate(shared.rows):
        bit = graph.row(terms, spec.bias(row), width)
        final = [netlist.register() for _ in range(width)]
        for register, value in zip(final, [*final[1:], bit], strict=True):
            netlist.drive(register, value)
        y += final
    netlist.output("y", y)
    facts = {
        "adders": shared.adders,
        "shared_nodes": len(shared.nodes),
        "delay_registers": graph.delays,
        "depth": max(graph.levels),
    }
    return Operator("adder_graph", spec, netlist, schedule, facts=facts)


class _Graph:
    """Serial numbers as nets, by node, and their delayed versions.

    Members
    -------
    delays : int
        Registers that multiply by two.
    levels : list of int
        Adders on the longest path to each serial number.
    """

    def __init__(self, netlist: Netlist, x: Sequence[int], shared: SharedSums):
        self.netlist = netlist
        self.delays = 0
        self.levels = [0] * shared.inputs
        self._taps: list[list[int]] = [[net] for net in x]
        for node in shared.nodes:
            first, second = (node.first, 0), (node.second, node.shift)
            self._append(self._add(first, second, node.sign), self._level(first, second))

    def row(self, terms: Sequence[Term], bias: int, width: int) -> int:
        """Net of the sum of terms and a bias; those of few levels are added first."""
        waiting = [
            (0 if term.shift else self.levels[term.node], index, term.node, term.shift, term.sign)
            for index, term in enumerate(terms)
        ]
        if bias:
            self._append(self._constant(bias, width), 0)
            waiting.append((0, len(terms), len(self._taps) - 1, 0, 1))
        heapq.heapify(waiting)
        while len(waiting) > 1:
            a, b = heapq.heappop(waiting), heapq.heappop(waiting)
            if a[4] < b[4]:
                a, b = b, a
            first, second = (a[2], a[3]), (b[2], b[3])
            level = self._level(first, second)
            self._append(self._add(first, second, a[4] * b[4]), level)
            heapq.heappush(waiting, (level, a[1], len(self._taps) - 1, 0, a[4]))
        if not waiting:
            return ZERO
        _, _, node, shift, sign = waiting[0]
        net = self._tap(node, shift)
        return net if sign > 0 else self._serial_adder(ZERO, net, negative=True)

    def _append(self, net: int, level: int) -> None:
        self._taps.append([net])
        self.levels.append(level)

    def _level(self, first: tuple[int, int], second: tuple[int, int]) -> int:
        return 1 + max(0 if shift else self.levels[node] for node, shift in (first, second))

    def _add(self, first: tuple[int, int], second: tuple[int, int], sign: int) -> int:
        return self._serial_adder(self._tap(*first), self._tap(*second), negative=sign < 0)

    def _tap(self, node: int, shift: int) -> int:
        """A node multiplied by 2**shift: delayed as often, zeros first."""
        taps = self._taps[node]
        while len(taps) <= shift:
            taps.append(self.netlist.registered(taps[-1], CellKind.CLEARED))
            self.delays += 1
        return taps[shift]

    def _serial_adder(self, a: int, b: int, negative: bool) -> int:
        """``a + b`` or ``a - b``."""
        netlist = self.netlist
        carry = netlist.register(CellKind.PRESET if negative else CellKind.CLEARED)
        total, following = netlist.full_adder(a, netlist.invert(b) if negative else b, carry)
        netlist.drive(carry, following)
        return total

    def _constant(self, value: int, width: int) -> int:
        """A constant as a serial number: registers that are set to it between vectors."""
        length = min(width, (value if value >= 0 else ~value).bit_length() + 1)
        kinds = [CellKind.PRESET if value >> k & 1 else CellKind.CLEARED for k in range(length)]
        registers = [self.netlist.register(kind) for kind in kinds]
        # The last holds the sign.
        for register, source in zip(registers, [*registers[1:], registers[-1]], strict=True):
            self.netlist.drive(register, source)
        return registers[0]
