"""Simulates networks of cells, 64 independent runs in the bits of a word, and counts how often nets change."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from emulator.hardwired.product import digits
from hw.hardwired.netlist import ONE, REGISTERS, CellKind, Netlist
from hw.hardwired.operator import ACTIVATION_BITS, Feed, Operator

Words = npt.NDArray[np.uint64]
ALL = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


class GateSimulation:
    """State of one network in many runs at a time.

    Parameters
    ----------
    netlist : Netlist
        With its cells.
    runs : int
        How many independent runs.

    Members
    -------
    toggles : int
        Changes of cell outputs from cycle to cycle so far, over all runs; without glitches.
    """

    def __init__(self, netlist: Netlist, runs: int):
        self.netlist = netlist
        self.runs = runs
        words = -(-runs // 64)
        self._values = np.zeros((netlist.nets, words), np.uint64)
        self._values[ONE] = ALL
        self._mask = np.full(words, ALL)
        if runs % 64:
            self._mask[-1] = np.uint64((1 << runs % 64) - 1)
        self._groups = _groups(netlist)
        self._registers = _registers(netlist)
        self._driven = np.array(
            [net for cell in netlist.cells for net in cell.outputs], dtype=np.int64
        )
        self._before: Words | None = None
        self.toggles = 0
        for kind, nets, _ in self._registers:
            self._values[nets] = ALL if kind is CellKind.PRESET else 0

    def evaluate(self, inputs: Mapping[str, npt.NDArray[np.uint8]]) -> None:
        """Set inputs, of shape [runs, bits of the port], and compute all nets."""
        values = self._values
        for name, bits in inputs.items():
            values[self.netlist.inputs[name]] = pack_runs(bits, values.shape[1])
        for kind, ins, outs in self._groups:
            _evaluate(kind, values, ins, outs)
        if self._before is not None:
            changed = (values[self._driven] ^ self._before) & self._mask
            self.toggles += int(np.bitwise_count(changed).sum())
        self._before = values[self._driven]

    def clock(self, clear: bool = False) -> None:
        """One enabled rising edge."""
        following = []
        for kind, _, sources in self._registers:
            if clear and kind is not CellKind.REGISTER:
                constant = ALL if kind is CellKind.PRESET else 0
                following.append(np.full((len(sources), self._values.shape[1]), constant))
            else:
                following.append(self._values[sources])
        for (_, nets, _), value in zip(self._registers, following, strict=True):
            self._values[nets] = value

    def read(self, name: str) -> npt.NDArray[np.uint8]:
        """Bits of an output port as computed last, or of registers as clocked last: [runs, bits]."""
        return unpack_runs(self._values[self.netlist.outputs[name]], self.runs)


def pack_runs(bits: npt.NDArray[np.uint8], words: int) -> Words:
    """[runs, bits] of 0 and 1 -> [bits, words]."""
    runs, width = bits.shape
    padded = np.zeros((width, words * 64), np.uint8)
    padded[:, :runs] = bits.T
    return np.packbits(padded, axis=1, bitorder="little").view(np.uint64)


def unpack_runs(words: Words, runs: int) -> npt.NDArray[np.uint8]:
    """[bits, words] -> [runs, bits]."""
    octets = np.ascontiguousarray(words).view(np.uint8)
    return np.unpackbits(octets, axis=1, bitorder="little")[:, :runs].T


def _groups(netlist: Netlist) -> list[tuple[CellKind, Any, Any]]:
    """Cells of one kind and level together: kind, nets of inputs [inputs, cells], of outputs."""
    levels = np.zeros(netlist.nets, np.int64)
    found: dict[tuple[int, CellKind], list[tuple[tuple[int, ...], tuple[int, ...]]]] = {}
    for cell in netlist.cells:
        if cell.kind in REGISTERS:
            continue
        level = max(levels[net] for net in cell.inputs) + 1
        for net in cell.outputs:
            levels[net] = level
        found.setdefault((level, cell.kind), []).append((cell.inputs, cell.outputs))
    return [
        (kind, np.array([c[0] for c in cells]).T, np.array([c[1] for c in cells]).T)
        for (_, kind), cells in sorted(found.items())
    ]


def _registers(netlist: Netlist) -> list[tuple[CellKind, Any, Any]]:
    """Registers of one kind together: kind, nets that they drive, nets that they read."""
    return [
        (
            kind,
            np.array([c.outputs[0] for c in netlist.cells if c.kind is kind], dtype=np.int64),
            np.array([c.inputs[0] for c in netlist.cells if c.kind is kind], dtype=np.int64),
        )
        for kind in REGISTERS
    ]


def _evaluate(kind: CellKind, values: Words, ins: Any, outs: Any) -> None:
    a = values[ins[0]]
    b = values[ins[1]] if len(ins) > 1 else a
    match kind:
        case CellKind.FULL_ADDER:
            c = values[ins[2]]
            values[outs[0]] = a ^ b ^ c
            values[outs[1]] = (a & b) | (c & (a | b))
        case CellKind.HALF_ADDER:
            values[outs[0]] = a ^ b
            values[outs[1]] = a & b
        case CellKind.HALF_ADDER_ONE:
            values[outs[0]] = ~(a ^ b)
            values[outs[1]] = a | b
        case CellKind.NOT:
            values[outs[0]] = ~a
        case CellKind.AND:
            values[outs[0]] = a & b
        case CellKind.OR:
            values[outs[0]] = a | b
        case CellKind.XOR:
            values[outs[0]] = a ^ b
        case CellKind.MULTIPLEXER:
            values[outs[0]] = b ^ (a & (b ^ values[ins[2]]))
        case _:
            raise ValueError(f"{kind.name} is not combinational")


def run_operator(
    operator: Operator, vectors: npt.NDArray[np.int64], simulation: GateSimulation | None = None
) -> npt.NDArray[np.int64]:
    """Results of a design for INT8 vectors, each vector a run of its own: [vectors, outputs].

    Parameters
    ----------
    simulation : GateSimulation, optional
        To go on from, of as many runs as there are vectors.
    """
    schedule, spec = operator.schedule, operator.spec
    state = simulation or GateSimulation(operator.netlist, len(vectors))
    for cycle in range(schedule.cycles):
        inputs = {"x": _fed(operator, vectors, cycle)}
        if "first" in operator.netlist.inputs:
            inputs["first"] = np.full((len(vectors), 1), cycle == 0, np.uint8)
        if schedule.feed is Feed.ELEMENTS:
            word = np.array([operator.memory[cycle] >> k & 1 for k in _range(operator, "weights")])
            inputs["weights"] = np.tile(word.astype(np.uint8), (len(vectors), 1))
        elif "codes" in operator.netlist.inputs:
            codes = [operator.memory[0] >> k & 1 for k in _range(operator, "codes")]
            inputs["codes"] = np.tile(np.array(codes, np.uint8), (len(vectors), 1))
        state.evaluate(inputs)
        state.clock(clear=cycle == schedule.cycles - 1)
    bits = state.read("y").astype(np.int64).reshape(len(vectors), spec.outputs, -1)
    weights = 2 ** np.arange(bits.shape[2])
    weights[-1] = -weights[-1]
    return bits @ weights


def _range(operator: Operator, port: str) -> range:
    return range(len(operator.netlist.inputs[port]))


def _fed(operator: Operator, vectors: npt.NDArray[np.int64], cycle: int) -> npt.NDArray[np.uint8]:
    schedule = operator.schedule
    match schedule.feed:
        case Feed.WHOLE:
            return digits(vectors, 0, ACTIVATION_BITS, 1, 1, False)
        case Feed.ELEMENTS:
            return digits(vectors[:, cycle : cycle + 1], 0, ACTIVATION_BITS, 1, 1, False)
        case _:
            offset = schedule.feed is Feed.DIGITS
            return digits(vectors, cycle, schedule.bits, schedule.taps, schedule.cycles, offset)
