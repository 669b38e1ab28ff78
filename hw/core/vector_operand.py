"""One operand of the vector unit: where its beats lie, and which buffer they come from."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.core.ports import read_port
from hw.core.vector_walk import walk_address
from hw.spec.instructions import BUFFER_BITS, Source
from hw.spec.machine import MachineSpec

__all__ = ["OPERAND_BUFFERS", "VectorOperand", "operand_ports"]

SOURCE_BITS = 3

#: Buffer port of each source that is read a row of lanes at a time.
OPERAND_BUFFERS = {Source.INPUT: "input", Source.VECTOR: "vector", Source.RESULT: "result"}


def operand_ports(spec: MachineSpec) -> dict[str, wiring.Signature]:
    """Read ports of one operand by the name of the buffer; `data` is one row, or one scalar."""
    width = 32 * spec.lanes
    return {
        "input": read_port(spec.input_words * spec.word_rows, width),
        "vector": read_port(spec.vector_rows, width),
        "result": read_port(spec.result_rows, width),
        "scalar": read_port(spec.scalars, 32),
    }


class VectorOperand(wiring.Component):
    """Reads one operand of each beat; `o` is valid two cycles after its beat was announced.

    Parameters
    ----------
    spec : MachineSpec
        Buffer depths and lanes.
    neutral : int
        FP32 pattern that every lane gets where the source is NONE.

    Members
    -------
    start, base : In
        An instruction begins: `base` is the first row (entry). Beats begin in the next cycle.
    source, pitch, constant : In
        Fields of the instruction, from the cycle after `start` on.
    valid, last : In(1)
        A beat is read in this cycle; it is the last of its row.
    input, vector, result, scalar : Out(read_port(...))
        Ports of the buffers.
    o : Out(32 * lanes)
        Operand of every lane.
    """

    start: Value
    base: Value
    source: Value
    pitch: Value
    constant: Value
    valid: Value
    last: Value
    input: Any
    vector: Any
    result: Any
    scalar: Any
    o: Value

    def __init__(self, spec: MachineSpec, neutral: int = 0) -> None:
        self.spec = spec
        self.neutral = neutral
        super().__init__({
            "start": In(1),
            "base": In(BUFFER_BITS),
            "source": In(SOURCE_BITS),
            "pitch": In(BUFFER_BITS),
            "constant": In(32),
            "valid": In(1),
            "last": In(1),
            "o": Out(32 * spec.lanes),
            **{name: Out(port) for name, port in operand_ports(spec).items()},
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # Stage 0: address.
        address = walk_address(
            m,
            "operand",
            start=self.start,
            base=self.base,
            pitch=self.pitch,
            hold=self.source == Source.SCALAR,
            valid=self.valid,
            last=self.last,
        )
        ports = {source: getattr(self, name) for source, name in OPERAND_BUFFERS.items()}
        for port in (*ports.values(), self.scalar):
            m.d.comb += port.address.eq(address[: len(port.address)])

        # Stage 1: the buffers answer; one 32-bit value serves every lane, or each has its own.
        same = Signal(32)
        m.d.comb += same.eq(
            Mux(
                self.source == Source.SCALAR,
                self.scalar.data,
                # NONE is 0.
                Mux(self.source.any(), self.constant, self.neutral),
            )
        )
        chosen = Signal(32 * self.spec.lanes)
        with m.Switch(self.source):
            for source, port in ports.items():
                with m.Case(source):
                    m.d.comb += chosen.eq(port.data)
            with m.Default():
                m.d.comb += chosen.eq(same.replicate(self.spec.lanes))
        m.d.sync += self.o.eq(chosen)
        return m
