"""Hardwired linear layers that take and give vectors in beats, and a bank of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from amaranth.hdl import Array, Cat, Module, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.hardwired.frame import FrameSpec, HardwiredFrame
from hw.hardwired.neuron import build_neuron
from hw.hardwired.operator import ACTIVATION_BITS, Operator, OperatorSpec
from hw.hardwired.verilog import netlist_verilog
from hw.spec.errors import InputError
from hw.verilog import convert

__all__ = ["BankSpec", "HardwiredBank", "HardwiredMatrix", "MatrixSpec", "bank_verilog"]


@dataclass(frozen=True, kw_only=True)
class MatrixSpec:
    """A hardwired matrix and the beats of its streams.

    Parameters
    ----------
    operator : OperatorSpec
        Weights, biases, and bits of an element a cycle.
    lanes : int
        Elements of an input beat; the last beat of a vector may have more than are left.
    result_lanes : int
        Elements of an output beat.
    name : str
        Of the matrix, in Verilog.
    """

    operator: OperatorSpec
    lanes: int
    result_lanes: int
    name: str = "matrix"

    def __post_init__(self) -> None:
        if min(self.lanes, self.result_lanes) < 1:
            raise InputError(f"{self.name}: expected 1 or more lanes")

    @property
    def input_beats(self) -> int:
        """Beats of an input vector."""
        return -(-self.operator.inputs // self.lanes)

    @property
    def result_beats(self) -> int:
        """Beats of an output vector."""
        return -(-self.operator.outputs // self.result_lanes)

    @cached_property
    def design(self) -> Operator:
        """The network: hardwired neurons with merged signs."""
        return build_neuron(self.operator)

    @property
    def latency(self) -> int:
        """Cycles from the first beat in to the first beat out, if nothing waits.

        The beats, a cycle to hand the vector to the network, the network's cycles, and one to hand its
        result to the output.
        """
        return self.input_beats + 1 + self.design.schedule.cycles + 1


class HardwiredMatrix(wiring.Component):
    """A linear layer whose weights are wires: beats of INT8 in, beats of integers out.

    A vector gathers while the one before is multiplied, and its result leaves while the next is: vectors
    follow each other at the slowest of the three.

    Parameters
    ----------
    spec : MatrixSpec
        The matrix and its beats.

    Members
    -------
    i : In(stream.Signature(ArrayLayout(signed(8), lanes)))
    o : Out(stream.Signature(ArrayLayout(signed(result_bits), result_lanes)))
        Lanes beyond the last output are 0.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, spec: MatrixSpec, result_bits: int | None = None) -> None:
        self.spec = spec
        self.result_bits = result_bits or spec.operator.result_bits
        beat = data.ArrayLayout(signed(ACTIVATION_BITS), spec.lanes)
        result = data.ArrayLayout(signed(self.result_bits), spec.result_lanes)
        super().__init__({"i": In(stream.Signature(beat)), "o": Out(stream.Signature(result))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        core = f"{self.spec.name}_core"
        m.submodules.frame = frame = HardwiredFrame(FrameSpec.of(self.spec.design, core))
        self._gather(m, frame)
        self._scatter(m, frame)
        return m

    def _gather(self, m: Module, frame: HardwiredFrame) -> None:
        beats, lanes = self.spec.input_beats, self.spec.lanes
        held = Signal(ACTIVATION_BITS * lanes * beats, reset_less=True)
        count = Signal(range(beats + 1))
        full = Signal()
        m.d.comb += [
            full.eq(count == beats),
            frame.i.valid.eq(full),
            # The first beat has moved down to the lowest elements when all are there.
            frame.i.payload.as_value().eq(held),
            self.i.ready.eq(~full | frame.i.ready),
        ]
        with m.If(self.i.ready & self.i.valid):
            m.d.sync += [
                held.eq(Cat(held, self.i.payload.as_value())[ACTIVATION_BITS * lanes :]),
                count.eq(1),
            ]
            with m.If(~full):
                m.d.sync += count.eq(count + 1)
        with m.Elif(full & frame.i.ready):
            m.d.sync += count.eq(0)

    def _scatter(self, m: Module, frame: HardwiredFrame) -> None:
        beats, lanes = self.spec.result_beats, self.spec.result_lanes
        beat_bits = self.result_bits * lanes
        held = Signal(beat_bits * beats, reset_less=True)
        left = Signal(range(beats + 1))
        # Lanes of the spec's width, whatever this matrix needs.
        extended = []
        for index in range(self.spec.operator.outputs):
            result = Signal(signed(self.result_bits), name=f"result_{index}")
            m.d.comb += result.eq(frame.o.payload[index])
            extended.append(result)
        m.d.comb += [
            self.o.valid.eq(left != 0),
            self.o.payload.as_value().eq(held[:beat_bits]),
            frame.o.ready.eq((left == 0) | ((left == 1) & self.o.ready)),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [held.eq(held >> beat_bits), left.eq(left - 1)]
        with m.If(frame.o.ready & frame.o.valid):
            m.d.sync += [held.eq(Cat(*extended)), left.eq(beats)]


@dataclass(frozen=True, kw_only=True)
class BankSpec:
    """Hardwired matrices behind one pair of streams.

    Parameters
    ----------
    matrices : tuple of MatrixSpec
        With the same lanes, and different names.
    """

    matrices: tuple[MatrixSpec, ...]

    def __post_init__(self) -> None:
        if not self.matrices:
            raise InputError("bank: expected one or more matrices, found none")
        if len({(m.lanes, m.result_lanes) for m in self.matrices}) != 1:
            raise InputError("bank: expected matrices with the same lanes")
        if len({m.name for m in self.matrices}) != len(self.matrices):
            raise InputError("bank: expected matrices of different names")

    @property
    def result_bits(self) -> int:
        """Bits of a result of any of them."""
        return max(matrix.operator.result_bits for matrix in self.matrices)


class HardwiredBank(wiring.Component):
    """Takes the number of a matrix and a vector, gives the product; the place of a matrix engine's weights.

    Vectors for one matrix follow each other as fast as it takes them; one for another waits until all
    results have left.

    Parameters
    ----------
    spec : BankSpec
        The matrices.

    Members
    -------
    i : In(stream.Signature({"matrix", "elements"}))
        Beats; all of a vector name the same matrix.
    o : Out(stream.Signature(ArrayLayout(signed(result_bits), result_lanes)))
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, spec: BankSpec) -> None:
        self.spec = spec
        first = spec.matrices[0]
        beat = data.StructLayout({
            "matrix": range(max(2, len(spec.matrices))),
            "elements": data.ArrayLayout(signed(ACTIVATION_BITS), first.lanes),
        })
        result = data.ArrayLayout(signed(spec.result_bits), first.result_lanes)
        super().__init__({"i": In(stream.Signature(beat)), "o": Out(stream.Signature(result))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        parts = [HardwiredMatrix(s, self.spec.result_bits) for s in self.spec.matrices]
        current = Signal.like(self.i.payload.matrix)
        # Beats that are still to come of the vectors that were begun, and result beats that they will give.
        input_left = Signal(range(max(s.input_beats for s in self.spec.matrices) + 1))
        most = 4 * max(s.result_beats for s in self.spec.matrices)
        results_left = Signal(range(most + 1))
        chosen = Signal.like(current)
        allowed, begins = Signal(), Signal()
        m.d.comb += [
            begins.eq(input_left == 0),
            chosen.eq(self.i.payload.matrix),
            allowed.eq((results_left == 0) | ((chosen == current) & (results_left <= most // 2))),
        ]
        ready = Array(part.i.ready for part in parts)
        accept = Signal()
        m.d.comb += [
            self.i.ready.eq((~begins | allowed) & ready[chosen]),
            accept.eq(self.i.ready & self.i.valid),
        ]
        beats = Array(s.input_beats for s in self.spec.matrices)
        results = Array(s.result_beats for s in self.spec.matrices)
        leaves = self.o.valid & self.o.ready
        with m.If(accept & begins):
            m.d.sync += [
                current.eq(chosen),
                input_left.eq(beats[chosen] - 1),
                results_left.eq(results_left + results[chosen] - leaves),
            ]
        with m.Else():
            m.d.sync += results_left.eq(results_left - leaves)
            with m.If(accept):
                m.d.sync += input_left.eq(input_left - 1)
        for index, part in enumerate(parts):
            m.submodules[self.spec.matrices[index].name] = part
            mine = chosen == index
            m.d.comb += [
                part.i.payload.eq(self.i.payload.elements),
                part.i.valid.eq(self.i.valid & mine & (~begins | allowed)),
                part.o.ready.eq(self.o.ready & (current == index)),
            ]
        m.d.comb += [
            self.o.valid.eq(Array(part.o.valid for part in parts)[current]),
            self.o.payload.as_value().eq(
                Array(part.o.payload.as_value() for part in parts)[current]
            ),
        ]
        return m


def cores_verilog(matrices: Sequence[MatrixSpec]) -> str:
    """Verilog of the networks of matrices."""
    return "\n".join(netlist_verilog(m.design.netlist, f"{m.name}_core") for m in matrices)


def bank_verilog(spec: BankSpec, name: str) -> str:
    """Verilog of a bank, its matrices and their networks."""
    return convert(HardwiredBank(spec), name) + "\n" + cores_verilog(spec.matrices)
