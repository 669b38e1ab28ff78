"""The way out of the matrix engine: accumulators to FP32, times the output scale, to result rows."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.core.checksum import Checksum
from hw.core.matrix_row import ACCUMULATOR_BITS, ACCUMULATOR_FRACTION_BITS
from hw.core.ports import write_port
from hw.floating import FloatMultiply, IntegerToFloat
from hw.spec.floating import FLOAT_MULTIPLY_LATENCY, FP32, FROM_INTEGER_LATENCY
from hw.spec.instructions import BUFFER_BITS
from hw.spec.machine import MachineSpec

__all__ = ["MatrixDrain"]


class MatrixDrain(wiring.Component):
    """Takes the sums of a block at once, and writes `drain_lanes` of them a cycle.

    A block handed over in cycle t is written in cycles t + 1 + FROM_INTEGER_LATENCY +
    FLOAT_MULTIPLY_LATENCY and the `drain_cycles` - 1 after it; the next may follow after `drain_cycles`
    cycles, while this one is still in the pipeline.

    Parameters
    ----------
    spec : MachineSpec
        The machine.

    Members
    -------
    start : In(1)
        An instruction begins: its blocks are written from row `result` on. No block is under way.
    result : In(16)
        Row of the result buffer, in the cycle of `start`.
    sums : In(ArrayLayout(signed(64), matrix_rows))
        Accumulators of a block, in the cycle of `hand_over`.
    hand_over, last, write : In(1)
        A block is complete; it is the instruction's last; it is to be written (otherwise it only takes
        its time). All in the cycle of `hand_over`.
    scale : In(32)
        FP32 factor of the outputs, constant while blocks are under way.
    results : Out(write_port)
        To the result buffer.
    done : Out(1)
        The last block has been written, and `checksum` is that of the instruction.
    checksum : Out(32)
        CRC-32 of everything written since `start`, 0 if nothing was.
    """

    start: Value
    result: Value
    sums: data.View
    hand_over: Value
    last: Value
    write: Value
    scale: Value
    results: Any  # pyright knows no members of interfaces
    done: Value
    checksum: Value

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        super().__init__({
            "start": In(1),
            "result": In(BUFFER_BITS),
            "sums": In(data.ArrayLayout(signed(ACCUMULATOR_BITS), spec.matrix_rows)),
            "hand_over": In(1),
            "last": In(1),
            "write": In(1),
            "scale": In(FP32.width),
            "results": Out(
                write_port(spec.result_rows, FP32.width * spec.lanes, FP32.width * spec.drain_lanes)
            ),
            "done": Out(1),
            "checksum": Out(32),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        lanes = spec.drain_lanes

        # Rows move down by `drain_lanes` a cycle, so that the converters always read the lowest ones.
        left = Signal(range(spec.drain_cycles + 1))
        draining = Signal()
        is_last = Signal(reset_less=True)
        is_written = Signal(reset_less=True)
        rows = [
            Signal(signed(ACCUMULATOR_BITS), name=f"row_{index}", reset_less=True)
            for index in range(spec.matrix_rows)
        ]
        m.d.comb += draining.eq(left != 0)
        with m.If(self.hand_over):
            m.d.sync += [
                left.eq(spec.drain_cycles),
                is_last.eq(self.last),
                is_written.eq(self.write),
            ]
            m.d.sync += [row.eq(self.sums[index]) for index, row in enumerate(rows)]
        with m.Elif(draining):
            m.d.sync += left.eq(left - 1)
            m.d.sync += [row.eq(above) for row, above in zip(rows, rows[lanes:], strict=False)]

        # Convert and scale.
        outputs: list[Value] = []
        for lane in range(lanes):
            convert = IntegerToFloat(ACCUMULATOR_BITS, ACCUMULATOR_FRACTION_BITS)
            multiply = FloatMultiply()
            m.submodules[f"convert_{lane}"] = convert
            m.submodules[f"multiply_{lane}"] = multiply
            m.d.comb += [
                convert.i.eq(rows[lane]),
                multiply.a.eq(convert.o),
                multiply.b.eq(self.scale),
            ]
            outputs.append(multiply.o)
        valid, ending = draining & is_written, is_last & (left == 1)
        for stage in range(FROM_INTEGER_LATENCY + FLOAT_MULTIPLY_LATENCY):
            next_valid, next_ending = Signal(name=f"valid_{stage}"), Signal(name=f"ending_{stage}")
            m.d.sync += [next_valid.eq(valid), next_ending.eq(ending)]
            valid, ending = next_valid, next_ending

        self._write(m, valid, Cat(outputs))
        m.d.sync += self.done.eq(ending)
        return m

    def _write(self, m: Module, valid: Value, outputs: Value) -> None:
        """Parts of result rows, lowest part first, and their checksum."""
        spec = self.spec
        parts = spec.lanes // spec.drain_lanes
        part_bits = exact_log2(parts)
        # Row of the result buffer, with the part of the row below it.
        position = Signal(exact_log2(spec.result_rows) + part_bits)
        is_first = Signal()
        with m.If(self.start):
            m.d.sync += [position.eq(self.result << part_bits), is_first.eq(1)]
        with m.Elif(valid):
            m.d.sync += [position.eq(position + 1), is_first.eq(0)]
        part = position[:part_bits]
        m.d.comb += [
            self.results.enable.eq(valid << part),
            self.results.address.eq(position[part_bits:]),
            self.results.data.eq(outputs.replicate(parts)),
        ]

        m.submodules.crc = crc = Checksum(4 * spec.drain_lanes)
        m.d.comb += [
            crc.start.eq(is_first),
            crc.valid.eq(valid),
            crc.data.eq(outputs),
            self.checksum.eq(Mux(is_first, 0, crc.value)),
        ]
