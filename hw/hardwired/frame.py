"""Streams around a hardwired operator: takes vectors, feeds them as its schedule says, offers results."""

from dataclasses import dataclass

from amaranth.hdl import (
    Cat,
    ClockSignal,
    Const,
    Instance,
    Module,
    Mux,
    ResetSignal,
    Signal,
    Value,
    signed,
)
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.hardwired.counts import CellCounts
from hw.hardwired.operator import ACTIVATION_BITS, Feed, Operator, Schedule
from hw.hardwired.verilog import Adders, netlist_verilog
from hw.verilog import convert

__all__ = ["FrameSpec", "HardwiredFrame", "feed_counts", "operator_verilog"]


@dataclass(frozen=True, kw_only=True)
class FrameSpec:
    """What a frame has to know of the operator inside.

    Parameters
    ----------
    core : str
        Name of its Verilog module.
    inputs, outputs, result_bits : int
        Elements of input and output vectors, bits of an output.
    schedule : Schedule
        How it is fed.
    controlled : bool
        It has an input that is told of the first cycle of a vector.
    memory : tuple of int
        Words of its weight memory, or one constant word of codes.
    memory_bits : int
        Bits of a word.
    """

    core: str
    inputs: int
    outputs: int
    result_bits: int
    schedule: Schedule
    controlled: bool
    memory: tuple[int, ...] = ()
    memory_bits: int = 0

    @classmethod
    def of(cls, operator: Operator, core: str) -> "FrameSpec":
        """Spec of the frame of an operator whose module has the name `core`."""
        ports = operator.netlist.inputs
        return cls(
            core=core,
            inputs=operator.spec.inputs,
            outputs=operator.spec.outputs,
            result_bits=operator.spec.result_bits,
            schedule=operator.schedule,
            controlled="first" in ports,
            memory=operator.memory,
            memory_bits=len(ports.get("weights", ports.get("codes", ()))),
        )


class HardwiredFrame(wiring.Component):
    """A hardwired matrix with streams: INT8 vectors in, vectors of integers out.

    A vector takes ``spec.schedule.cycles`` cycles, one after another without a gap; its result is offered
    in the cycle after its last. The result is in the registers of the operator, so a next vector that is
    there already waits in its first cycle until the result is taken.

    Parameters
    ----------
    spec : FrameSpec
        The operator inside, a Verilog module of its own.

    Members
    -------
    i : In(stream.Signature(ArrayLayout(signed(8), inputs)))
    o : Out(stream.Signature(ArrayLayout(signed(result_bits), outputs)))
    load : In(stream.Signature({"address", "word"})), where the operator has a memory
        Writes a word of weights; always ready.
    """

    i: stream.Interface
    o: stream.Interface
    load: stream.Interface

    def __init__(self, spec: FrameSpec) -> None:
        self.spec = spec
        vector = data.ArrayLayout(signed(ACTIVATION_BITS), spec.inputs)
        result = data.ArrayLayout(signed(spec.result_bits), spec.outputs)
        members = {"i": In(stream.Signature(vector)), "o": Out(stream.Signature(result))}
        if spec.schedule.feed is Feed.ELEMENTS:
            word = {"address": range(spec.inputs), "word": spec.memory_bits}
            members["load"] = In(stream.Signature(data.StructLayout(word)))
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        step, first, last = Signal(), Signal(), Signal()
        fed = self._whole(m, step, first, last)
        if self.spec.schedule.feed is not Feed.WHOLE:
            fed = self._sequence(m, step, first, last)
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(step & last):
            m.d.sync += self.o.valid.eq(1)
        pins = {
            "i_clk": ClockSignal(),
            "i_enable": step | ResetSignal(),
            "i_clear": last | ResetSignal(),
            "i_x": fed,
            "o_y": self.o.payload.as_value(),
        }
        if self.spec.controlled:
            pins["i_first"] = first
        if self.spec.schedule.feed is Feed.ELEMENTS:
            pins["i_weights"] = self._weights(m, step, first, last)
        elif self.spec.memory:
            pins["i_codes"] = Const(self.spec.memory[0], self.spec.memory_bits)
        m.submodules.core = Instance(self.spec.core, **pins)
        return m

    def _whole(self, m: Module, step: Signal, first: Signal, last: Signal) -> Value:
        """All elements straight from the input."""
        if self.spec.schedule.feed is Feed.WHOLE:
            free = ~self.o.valid | self.o.ready
            m.d.comb += [self.i.ready.eq(free), step.eq(self.i.valid & free)]
            m.d.comb += [first.eq(1), last.eq(1)]
        return self.i.payload.as_value()

    def _sequence(self, m: Module, step: Signal, first: Signal, last: Signal) -> Value:
        """Elements in shift registers, a digit or an element a cycle."""
        cycles = self.spec.schedule.cycles
        busy = Signal()
        cycle = Signal(range(max(2, cycles)))
        m.d.comb += [
            first.eq(cycle == 0),
            last.eq(cycle == cycles - 1),
            # Its first cycle overwrites the result of the vector before.
            step.eq(busy & (~first | ~self.o.valid | self.o.ready)),
            self.i.ready.eq(~busy | (step & last)),
        ]
        with m.If(step):
            m.d.sync += cycle.eq(Mux(last, 0, cycle + 1))
        with m.If(self.i.ready):
            m.d.sync += busy.eq(self.i.valid)
        accept = self.i.ready & self.i.valid
        if self.spec.schedule.feed is Feed.ELEMENTS:
            held = Signal(ACTIVATION_BITS * self.spec.inputs, reset_less=True)
            with m.If(accept):
                m.d.sync += held.eq(self.i.payload.as_value())
            with m.Elif(step):
                m.d.sync += held.eq(held >> ACTIVATION_BITS)
            return held[:ACTIVATION_BITS]
        return self._digits(m, accept, step, last)

    def _digits(self, m: Module, accept: Value, step: Value, last: Value) -> Value:
        """A digit of every element and tap, lowest bit first."""
        schedule = self.spec.schedule
        delays = schedule.taps - 1
        lines: list[Value] = []
        for index in range(self.spec.inputs):
            # Zeros below the element, for the taps that are later.
            held = Signal(
                signed(ACTIVATION_BITS + delays), name=f"element_{index}", reset_less=True
            )
            with m.If(accept):
                m.d.sync += held.eq(Cat(Const(0, delays), self.i.payload[index]).as_signed())
            with m.Elif(step):
                m.d.sync += held.eq(held >> schedule.bits)
            for tap in range(schedule.taps):
                digit = [held[delays - tap + k] for k in range(schedule.bits)]
                if schedule.feed is Feed.DIGITS:
                    digit[-1] = digit[-1] ^ last
                lines += digit
        return Cat(*lines)

    def _weights(self, m: Module, step: Value, first: Value, last: Value) -> Value:
        """The word of this cycle's element."""
        spec = self.spec
        m.submodules.memory = words = memory.Memory(
            shape=spec.memory_bits, depth=spec.inputs, init=list(spec.memory)
        )
        read = words.read_port(domain="comb")
        write = words.write_port()
        element = Signal(range(max(2, spec.inputs)))
        with m.If(step):
            m.d.sync += element.eq(Mux(last, 0, element + 1))
        m.d.comb += [
            read.addr.eq(element),
            self.load.ready.eq(1),
            write.en.eq(self.load.valid),
            write.addr.eq(self.load.payload.address),
            write.data.eq(self.load.payload.word),
        ]
        return read.data


def feed_counts(inputs: int, schedule: Schedule) -> CellCounts:
    """Cells of the registers in which a frame holds a vector; counters and handshake are left out."""
    match schedule.feed:
        case Feed.WHOLE:
            return CellCounts()
        case Feed.DIGITS:
            bits = inputs * (ACTIVATION_BITS + schedule.taps - 1)
            return CellCounts(registers=bits, multiplexers=bits, xors=inputs * schedule.taps)
        case _:
            bits = inputs * ACTIVATION_BITS
            return CellCounts(registers=bits, multiplexers=bits)


def operator_verilog(operator: Operator, name: str, adders: Adders = Adders.EQUATIONS) -> str:
    """Verilog of an operator with streams; the top module is `name`, the network is `name`_core."""
    core = f"{name}_core"
    frame = convert(HardwiredFrame(FrameSpec.of(operator, core)), name)
    return frame + "\n" + netlist_verilog(operator.netlist, core, adders)
