"""Gate-level netlists: simulated with 64 cycles in a word, timed, and their switching counted.

Between two registers nothing depends on earlier cycles, so where the contents of the registers are
known for all cycles, every gate is evaluated once for all of them. Of a processing element they are:
the product register is the input of the cut one cycle later, the sum is at the output port.
"""

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from sim_tests.liberty import Cell, Library

__all__ = ["GateNetlist", "Gate", "pack_bits", "unpack_bits"]

Words = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Gate:
    """A cell with the nets at its pins; constants are the nets 0 and 1."""

    cell: Cell
    pins: dict[str, int]

    @property
    def output(self) -> int:
        """Net that it drives."""
        return self.pins[self.cell.output]


class GateNetlist:
    """One flat module mapped to the cells of a library.

    Parameters
    ----------
    text : str
        What `write_json` of Yosys wrote.
    library : Library
        The cells.
    """

    def __init__(self, text: str, library: Library) -> None:
        (module,) = json.loads(text)["modules"].values()
        self.library = library
        self.ports: dict[str, list[int]] = {
            name: [_net(bit) for bit in port["bits"]] for name, port in module["ports"].items()
        }
        self.inputs = {n for n, port in module["ports"].items() if port["direction"] == "input"}
        gates = [
            _gate(cell, library)
            for cell in module["cells"].values()
            if cell["type"] != "$scopeinfo"  # what is left of submodules; no circuit
        ]
        self.registers = [gate for gate in gates if gate.cell.clock]
        self.gates = _sorted([gate for gate in gates if not gate.cell.clock])

    @cached_property
    def area(self) -> float:
        """Sum of the areas of all cells, in the library's unit."""
        return sum(gate.cell.area for gate in [*self.gates, *self.registers])

    @cached_property
    def loads(self) -> dict[int, float]:
        """Capacitance of the inputs on each net, in the library's unit; wires have none."""
        loads: dict[int, float] = {}
        for gate in [*self.gates, *self.registers]:
            for pin, net in gate.pins.items():
                if pin != gate.cell.output:
                    loads[net] = loads.get(net, 0.0) + gate.cell.capacitances[pin]
        return loads

    def longest_path(self) -> float:
        """Delay of the slowest path between registers or ports, in the library's unit of time.

        Slews are followed through the tables of the cells; wires have no delay, and the set-up time of
        the register at the end is not in it.
        """
        arrivals: dict[int, tuple[float, float]] = {}
        for gate in [*self.registers, *self.gates]:
            latest = (0.0, 0.0)
            load = self.loads.get(gate.output, 0.0)
            for pin, arc in gate.cell.arcs.items():
                start, slew = arrivals.get(gate.pins[pin], (0.0, 0.0))
                delay, transition = arc.at(load, slew)
                latest = max(latest, (start + delay, max(transition, 0.0)))
            arrivals[gate.output] = latest
        return max((time for time, _ in arrivals.values()), default=0.0)

    def evaluate(self, values: Mapping[int, Words], length: int) -> dict[int, Words]:
        """All nets, from those of ports and register outputs.

        Parameters
        ----------
        values : mapping of int to ndarray of uint64
            Net -> one bit a cycle, packed; nets that are missing are zero.
        length : int
            Words of each.
        """
        nets: dict[int, Words] = {
            0: np.zeros(length, np.uint64),
            1: np.full(length, ~np.uint64(0)),
            **values,
        }
        for gate in self.gates:
            function = _function(gate.cell.function)
            nets[gate.output] = _evaluate(function, gate.pins, nets)
        return nets

    def run_element(self, inputs: Mapping[str, Words], total: Words, cycles: int) -> "Activity":
        """Simulate a processing element whose sum in each cycle is known, and check that it is so.

        Parameters
        ----------
        inputs : mapping of str to ndarray of uint64
            Bits of each input port in each cycle; those of the clock and reset are not needed.
        total : ndarray of uint64
            The sum port in each cycle.
        cycles : int
            Number of cycles.

        Returns
        -------
        Activity
            Whether each register of the sum was about to take the next cycle's bit, and what switched.
        """
        known: dict[int, Words] = {}
        for name, values in {**inputs, "sum": total}.items():
            for place, net in enumerate(self.ports[name]):
                if net > 1:
                    known[net] = pack_bits(np.asarray(values) >> np.uint64(place), cycles)
        length = (cycles + 63) // 64
        sum_nets = set(self.ports["sum"])
        waiting = [gate for gate in self.registers if gate.output not in sum_nets]
        # Registers behind registers need their inputs first, so the operand registers come first.
        nets = self.evaluate(known, length)
        for _ in range(2):
            for gate in waiting:
                nets[gate.output] = known[gate.output] = _later(nets[gate.pins[gate.cell.data]])
            nets = self.evaluate(known, length)
        errors = 0
        compared = _mask(cycles - 1, length)
        first = ~np.uint64(0) << np.uint64(2)  # the pipeline fills in the first two cycles
        for gate in self.registers:
            if gate.output in sum_nets:
                wrong = (_later(nets[gate.pins[gate.cell.data]]) ^ nets[gate.output]) & _later(
                    compared
                )
                wrong[0] &= first
                errors += int(np.bitwise_count(wrong).sum())
        return Activity(errors, self._switched(nets, cycles), cycles)

    def _switched(self, nets: Mapping[int, Words], cycles: int) -> float:
        """Capacitance that changed its level a cycle, on average; without glitches."""
        length = (cycles + 63) // 64
        counted = _later(_mask(cycles - 1, length))
        counted[0] &= ~np.uint64(0) << np.uint64(4)
        total = 0.0
        for net, load in self.loads.items():
            if net in nets and net > 1:
                changes = (nets[net] ^ _later(nets[net])) & counted
                total += load * int(np.bitwise_count(changes).sum())
        # A clock pin rises and falls in every cycle.
        clock = 2 * sum(gate.cell.capacitances[gate.cell.clock] for gate in self.registers)
        return total / max(cycles - 4, 1) + clock


@dataclass(frozen=True)
class Activity:
    """What a simulation of a netlist found.

    Parameters
    ----------
    errors : int
        Bits of the sum that were about to be wrong; 0 of a right netlist.
    switched : float
        Capacitance switched in a cycle, clock included, in the library's unit.
    cycles : int
        Cycles simulated.
    """

    errors: int
    switched: float
    cycles: int


def pack_bits(bits: npt.NDArray[Any], cycles: int) -> Words:
    """The lowest bit of each entry, 64 cycles in a word, the first cycle lowest."""
    padded = np.zeros((cycles + 63) // 64 * 64, np.uint8)
    padded[:cycles] = (np.asarray(bits[:cycles]).astype(np.uint64) & np.uint64(1)).astype(np.uint8)
    return np.packbits(padded, bitorder="little").view(np.uint64)


def unpack_bits(words: Words, cycles: int) -> npt.NDArray[np.uint8]:
    """The inverse of `pack_bits`."""
    return np.unpackbits(words.view(np.uint8), bitorder="little")[:cycles]


def _later(words: Words) -> Words:
    """The same a cycle later; the first cycle sees zero."""
    shifted = words << np.uint64(1)
    shifted[1:] |= words[:-1] >> np.uint64(63)
    return shifted


def _mask(cycles: int, length: int) -> Words:
    return pack_bits(np.arange(64 * length) < cycles, 64 * length)


def _net(bit: int | str) -> int:
    """Yosys counts nets from 2; an unknown constant is taken for zero."""
    return bit if isinstance(bit, int) else int(bit == "1")


def _gate(cell: dict[str, Any], library: Library) -> Gate:
    kind = library.cells[cell["type"].lstrip("\\")]
    return Gate(kind, {pin: _net(bits[0]) for pin, bits in cell["connections"].items()})


def _sorted(gates: list[Gate]) -> list[Gate]:
    """Gates after those that drive them."""
    drivers = {gate.output: gate for gate in gates}
    done: set[int] = set()
    result: list[Gate] = []
    for first in gates:
        stack = [(first, False)]
        while stack:
            gate, is_ready = stack.pop()
            if gate.output in done:
                continue
            if is_ready:
                done.add(gate.output)
                result.append(gate)
                continue
            stack.append((gate, True))
            for pin, net in gate.pins.items():
                if pin != gate.cell.output and net in drivers and net not in done:
                    stack.append((drivers[net], False))
    return result


_FUNCTIONS: dict[str, ast.expr] = {}


def _function(text: str) -> ast.expr:
    """Liberty's expression as a Python syntax tree: NOT, AND, XOR, OR bind in that order."""
    if text not in _FUNCTIONS:
        # A prime behind an operand inverts it; juxtaposition is AND.
        python = re.sub(r"(\w+)\s*'", r"(!\1)", text)
        python = re.sub(r"(?<=[\w)])\s+(?=[\w(!])", "&", python.strip())
        python = python.replace("*", "&").replace("+", "|").replace("!", "~")
        _FUNCTIONS[text] = ast.parse(python, mode="eval").body
    return _FUNCTIONS[text]


def _evaluate(node: ast.expr, pins: Mapping[str, int], nets: Mapping[int, Words]) -> Words:
    match node:
        case ast.Name(id=name):
            net = pins[name]
            return nets[net] if net in nets else np.zeros_like(nets[0])
        case ast.UnaryOp(op=ast.Invert(), operand=inner):
            return ~_evaluate(inner, pins, nets)
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _evaluate(left, pins, nets), _evaluate(right, pins, nets)
            if isinstance(op, ast.BitAnd):
                return a & b
            return a ^ b if isinstance(op, ast.BitXor) else a | b
    raise ValueError(f"a cell's function has {ast.unparse(node)!r}")
