"""The way out of the matrix engine: accumulators to FP32, times the output scale, to result rows."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.core.checksum import Checksum
from hw.core.matrix_scaler import ACCUMULATOR_BITS, ACCUMULATOR_FRACTION_BITS
from hw.core.ports import read_port, write_port
from hw.floating import FloatMultiply, IntegerToFloat
from hw.floating_values import named
from hw.spec.floating import FLOAT_MULTIPLY_LATENCY, FP32, FROM_INTEGER_LATENCY
from hw.spec.instructions import BUFFER_BITS
from hw.spec.machine import MachineSpec

__all__ = ["MatrixDrain"]


def drain_layout() -> data.StructLayout:
    """What happens to the sums in a stage of the drain."""
    return data.StructLayout({
        # They are to be written; they are the last of their vector, which is the last of its block.
        "valid": 1,
        "vector_last": 1,
        "block_last": 1,
        # They are the last of the instruction.
        "ending": 1,
    })


class MatrixDrain(wiring.Component):
    """Takes the sums of a pass at once, and writes `drain_lanes` of them a cycle, column by column.

    A pass handed over in cycle t is written in cycles t + 1 + FROM_INTEGER_LATENCY +
    FLOAT_MULTIPLY_LATENCY and the columns*drain_cycles - 1 after it; the next may follow after
    columns*drain_cycles cycles, while this one is still in the pipeline.

    Parameters
    ----------
    spec : MachineSpec
        The machine.

    Members
    -------
    start : In(1)
        An instruction begins; nothing is under way.
    result, result_pitch : In(16)
        Row of the result buffer of the first block of vector 0, and rows from vector to vector. Constant
        while passes are under way, like `scale`, `scale_pitch` and `single`.
    scale, scale_pitch : In(16)
        Entry of the scale file of vector 0, and entries from vector to vector.
    single : In(1)
        Only one column is in use.
    sums : In(ArrayLayout(ArrayLayout(signed(64), matrix_columns), matrix_rows))
        Accumulators of a pass, in the cycle of `hand_over`.
    hand_over, second, block_last, last, write : In(1)
        A pass is complete; its second column has a vector; it is the last of its block; it is the instruction's
        last; it is to be written (otherwise it only takes its time). All in the cycle of `hand_over`.
    scales : Out(read_port)
        Scale file: FP32 factors of the outputs.
    results : Out(write_port)
        To the result buffer.
    done : Out(1)
        The last pass has been written, and `checksum` is that of the instruction.
    checksum : Out(32)
        CRC-32 of everything written since `start`, 0 if nothing was.
    """

    start: Value
    result: Value
    result_pitch: Value
    scale: Value
    scale_pitch: Value
    single: Value
    sums: data.View
    hand_over: Value
    second: Value
    block_last: Value
    last: Value
    write: Value
    scales: Any  # pyright knows no members of interfaces
    results: Any
    done: Value
    checksum: Value

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        sums = data.ArrayLayout(signed(ACCUMULATOR_BITS), spec.matrix_columns)
        super().__init__({
            "start": In(1),
            "result": In(BUFFER_BITS),
            "result_pitch": In(BUFFER_BITS),
            "scale": In(BUFFER_BITS),
            "scale_pitch": In(BUFFER_BITS),
            "single": In(1),
            "sums": In(data.ArrayLayout(sums, spec.matrix_rows)),
            "hand_over": In(1),
            "second": In(1),
            "block_last": In(1),
            "last": In(1),
            "write": In(1),
            "scales": Out(read_port(spec.matrix_scales, FP32.width)),
            "results": Out(
                write_port(spec.result_rows, FP32.width * spec.lanes, FP32.width * spec.drain_lanes)
            ),
            "done": Out(1),
            "checksum": Out(32),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        now, lowest = self._take(m)
        outputs = []
        for lane in range(spec.drain_lanes):
            convert = IntegerToFloat(ACCUMULATOR_BITS, ACCUMULATOR_FRACTION_BITS)
            multiply = FloatMultiply()
            m.submodules[f"convert_{lane}"] = convert
            m.submodules[f"multiply_{lane}"] = multiply
            m.d.comb += [
                convert.i.eq(lowest[lane]),
                multiply.a.eq(convert.o),
                multiply.b.eq(self.scales.data),
            ]
            outputs.append(multiply.o)
        for stage in range(FROM_INTEGER_LATENCY + FLOAT_MULTIPLY_LATENCY):
            # The scale file is addressed a cycle before the products need its entry.
            if stage == FROM_INTEGER_LATENCY - 1:
                self._address_scales(m, now)
            later = Signal(drain_layout(), name=f"stage_{stage}")
            m.d.sync += later.eq(now)
            now = later
        self._write(m, now, Cat(outputs))
        m.d.sync += self.done.eq(now.ending)
        return m

    def _take(self, m: Module) -> tuple[data.View, list[Signal]]:
        """Sums on their way; what happens in this cycle, and the sums that the converters take."""
        spec = self.spec
        columns, cycles = spec.matrix_columns, spec.drain_cycles
        left = Signal(range(columns * cycles + 1))
        kept = Signal(drain_layout(), reset_less=True)
        # Rows move down by `drain_lanes` a cycle, so that the converters always read the lowest ones.
        places = [(row, column) for column in range(columns) for row in range(spec.matrix_rows)]
        rows = [
            Signal(signed(ACCUMULATOR_BITS), name=f"row_{column}_{row}", reset_less=True)
            for row, column in places
        ]
        second, has_second = Const(0, 1), Const(0, 1)
        if columns > 1:
            has_second = Signal(reset_less=True)
            with m.If(self.hand_over):
                m.d.sync += has_second.eq(self.second)
            second = named(m, "in_second", ~self.single & (left <= cycles))
        with m.If(self.hand_over):
            total = Mux(self.single, cycles, columns * cycles) if columns > 1 else cycles
            m.d.sync += [
                left.eq(total),
                kept.valid.eq(self.write),
                kept.block_last.eq(self.block_last),
                kept.ending.eq(self.last),
            ]
            m.d.sync += [
                sums.eq(self.sums[row][column])
                for sums, (row, column) in zip(rows, places, strict=True)
            ]
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)
            m.d.sync += [
                row.eq(above) for row, above in zip(rows, rows[spec.drain_lanes :], strict=False)
            ]
        now = Signal(drain_layout())
        m.d.comb += [
            now.valid.eq((left != 0) & kept.valid & (~second | has_second)),
            now.vector_last.eq(left[: exact_log2(cycles)] == (1 if cycles > 1 else 0)),
            now.block_last.eq(kept.block_last & (second | ~has_second)),
            now.ending.eq(kept.ending & (left == 1)),
        ]
        return now, rows

    def _address_scales(self, m: Module, now: data.View) -> None:
        """Every block begins again with the scale of vector 0."""
        entry = self.scales.address
        with m.If(self.start):
            m.d.sync += entry.eq(self.scale)
        with m.Elif(now.valid & now.vector_last):
            m.d.sync += entry.eq(Mux(now.block_last, self.scale, entry + self.scale_pitch))

    def _write(self, m: Module, now: data.View, outputs: Value) -> None:
        """Parts of result rows, lowest part first, and their checksum."""
        spec = self.spec
        parts = spec.lanes // spec.drain_lanes
        part_bits = exact_log2(parts)
        row_bits = exact_log2(spec.result_rows)
        # Row of the result buffer, with the part of the row below it.
        position = Signal(row_bits + part_bits)
        block = Signal(row_bits)
        vector = Signal(row_bits)
        following = Signal(row_bits)
        is_first = Signal()
        m.d.comb += following.eq(
            Mux(now.block_last, block + spec.block_rows, vector + self.result_pitch)
        )
        with m.If(self.start):
            m.d.sync += [
                position.eq(self.result << part_bits),
                block.eq(self.result),
                vector.eq(self.result),
                is_first.eq(1),
            ]
        with m.Elif(now.valid):
            m.d.sync += [position.eq(position + 1), is_first.eq(0)]
            with m.If(now.vector_last):
                m.d.sync += [position.eq(following << part_bits), vector.eq(following)]
                with m.If(now.block_last):
                    m.d.sync += block.eq(following)
        m.d.comb += [
            self.results.enable.eq(now.valid << position[:part_bits]),
            self.results.address.eq(position[part_bits:]),
            self.results.data.eq(outputs.replicate(parts)),
        ]

        m.submodules.crc = crc = Checksum(4 * spec.drain_lanes)
        m.d.comb += [
            crc.start.eq(is_first),
            crc.valid.eq(now.valid),
            crc.data.eq(outputs),
            self.checksum.eq(Mux(is_first, 0, crc.value)),
        ]
