"""Writes of the vector unit: elements and row results to their buffers, with their checksum."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.core.checksum import Checksum
from hw.core.exchange import received_layout, sent_layout
from hw.core.ports import operation_layout, write_port
from hw.core.vector_lane import INTEGER_BITS
from hw.core.vector_walk import beat_layout, walk_address
from hw.spec.instructions import BUFFER_BITS, Target, Unit
from hw.spec.machine import MachineSpec

__all__ = ["VectorWrite", "vector_write_ports"]

ENTRY_BITS = operation_layout(Unit.SFU)["reduce_entry"].width
TARGET_BITS = operation_layout(Unit.SFU)["target"].width


def vector_write_ports(spec: MachineSpec) -> dict[str, wiring.Signature]:
    """Write ports of the vector unit by the name of the buffer.

    An activation row has `lanes` bytes. The store buffer has rows of `matrix_rows` bytes, a few of
    `lanes` bytes or of 4.
    """
    store_granularity = 8 * min(spec.lanes, 4)
    return {
        "vector": write_port(spec.vector_rows, 32 * spec.lanes),
        "scalar": write_port(spec.scalars, 32),
        "activation": write_port(spec.activation_rows, INTEGER_BITS * spec.lanes),
        "store": write_port(spec.store_rows, 8 * spec.matrix_rows, store_granularity),
        "matrix_scale": write_port(spec.matrix_scales, 32),
    }


class VectorWrite(wiring.Component):
    """Writes each beat in the cycle after it comes, each row's result likewise.

    Parameters
    ----------
    spec : MachineSpec
        Buffer depths and lanes.

    Members
    -------
    start, base, entry : In
        An instruction begins: first row (entry) of the elements, first scalar entry of the results.
    target, pitch : In
        Fields of the instruction, from the cycle after `start` on.
    element, elements : In(beat_layout(spec)), In(32 * lanes)
        A beat of numbers; used by all targets but the integer ones.
    integer, integers : In(beat_layout(spec)), In(INTEGER_BITS * lanes)
        A beat of integers; used by ACTIVATION and STORE_INTEGER.
    result_valid, result : In(1), In(32)
        The result of a row. Not with the target SCALAR.
    exchange, exchange_pitch, sent, received
        With several cores: what would be written, to VECTOR or ACTIVATION, goes out by `sent`, and everything that comes in
        is written.
    vector, scalar, activation, store, matrix_scale : Out(write_port(...))
        Ports of the buffers.
    checksum : Out(32)
        Of the elements, XOR of the results, since `start`; from the cycle after each write on.
    """

    start: Value
    base: Value
    entry: Value
    target: Value
    pitch: Value
    element: data.View
    elements: Value
    integer: data.View
    integers: Value
    result_valid: Value
    result: Value
    # With several cores.
    exchange: Value
    exchange_pitch: Value
    sent: data.View
    received: data.View
    vector: Any
    scalar: Any
    activation: Any
    store: Any
    matrix_scale: Any
    checksum: Value

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        exchange: dict[str, wiring.Member] = {}
        if spec.cores > 1:
            exchange = {
                "exchange": In(1),
                "exchange_pitch": In(BUFFER_BITS),
                "sent": Out(sent_layout(spec)),
                "received": In(received_layout(spec)),
            }
        super().__init__({
            "start": In(1),
            "base": In(BUFFER_BITS),
            "entry": In(ENTRY_BITS),
            "target": In(TARGET_BITS),
            "pitch": In(BUFFER_BITS),
            "element": In(beat_layout(spec)),
            "elements": In(32 * spec.lanes),
            "integer": In(beat_layout(spec)),
            "integers": In(INTEGER_BITS * spec.lanes),
            "result_valid": In(1),
            "result": In(32),
            "checksum": Out(32),
            **exchange,
            **{name: Out(port) for name, port in vector_write_ports(spec).items()},
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        is_target = {
            target: Signal(name=f"is_{target.name.lower()}") for target in Target if target
        }
        for target, flag in is_target.items():
            m.d.comb += flag.eq(self.target == target)
        is_integer = Signal()
        beat = Signal(beat_layout(self.spec))
        m.d.comb += [
            is_integer.eq(is_target[Target.ACTIVATION] | is_target[Target.STORE_INTEGER]),
            beat.eq(Mux(is_integer, self.integer.as_value(), self.element.as_value())),
        ]
        address = walk_address(
            m,
            "element",
            start=self.start,
            base=self.base,
            pitch=self.pitch,
            hold=Const(0, 1),
            valid=beat.valid,
            last=beat.last,
        )
        write_address = Signal(BUFFER_BITS, reset_less=True)
        write_row = Signal()
        write_first = Signal()
        numbers = Signal(32 * self.spec.lanes, reset_less=True)
        integers = Signal(INTEGER_BITS * self.spec.lanes, reset_less=True)
        m.d.sync += [
            write_address.eq(address),
            write_row.eq(beat.valid),
            write_first.eq(beat.first),
            numbers.eq(self.elements & _lanes(self.element.mask, 32)),
            integers.eq(self.integers & _lanes(self.integer.mask, INTEGER_BITS)),
        ]
        row_last = Signal()
        m.d.sync += row_last.eq(beat.last)
        self._element_ports(m, is_target, write_address, write_row, write_first, numbers, integers)
        byte_row, byte_data = is_integer & write_row, integers
        if self.spec.cores > 1:
            self._exchange(m, is_target, Mux(is_integer, integers, numbers), write_row, row_last)
            # Only activations are exchanged.
            byte_row = Mux(self.exchange, self.activation.enable, byte_row)
            byte_data = Mux(self.exchange, self.activation.data, integers)
        result_write, result = self._scalar_port(m, is_target, write_address, write_first, numbers)
        element_checksum = self._checksum(
            m,
            {
                "vector": (self.vector.enable, self.vector.data),
                "byte": (byte_row, byte_data),
                "word": (
                    write_first
                    & (
                        is_target[Target.SCALAR]
                        | is_target[Target.STORE_FLOAT]
                        | is_target[Target.MATRIX_SCALE]
                    ),
                    numbers[:32],
                ),
            },
        )
        result_checksum = self._checksum(m, {"result": (result_write, result)})
        m.d.comb += self.checksum.eq(element_checksum ^ result_checksum)
        return m

    def _element_ports(
        self,
        m: Module,
        is_target: dict[Target, Signal],
        address: Signal,
        write_row: Signal,
        write_first: Signal,
        numbers: Signal,
        integers: Signal,
    ) -> None:
        """Every port but the scalar one; data is shared, `enable` tells whose it is."""
        m.d.comb += [
            self.vector.enable.eq(write_row & is_target[Target.VECTOR]),
            self.vector.data.eq(numbers),
            self.activation.enable.eq(write_row & is_target[Target.ACTIVATION]),
            self.activation.data.eq(integers),
            self.matrix_scale.enable.eq(write_first & is_target[Target.MATRIX_SCALE]),
            self.matrix_scale.data.eq(numbers[:32]),
        ]
        for port in (self.vector, self.activation, self.matrix_scale):
            m.d.comb += port.address.eq(address[: len(port.address)])

        # A store row is cut into parts of `lanes` bytes, or into words of 4 bytes.
        store_bytes = self.spec.matrix_rows
        parts = store_bytes // self.spec.lanes
        part_bits, word_bits = exact_log2(parts), exact_log2(store_bytes // 4)
        part_enable = self._part_enable(address[:part_bits], parts)
        word_enable = self._part_enable(address[:word_bits], store_bytes // 4)
        row_bits = len(self.store.address)
        with m.If(is_target[Target.STORE_INTEGER]):
            m.d.comb += [
                self.store.enable.eq(part_enable & write_row.replicate(len(part_enable))),
                self.store.address.eq(address[part_bits : part_bits + row_bits]),
                self.store.data.eq(integers.replicate(parts)),
            ]
        with m.Elif(is_target[Target.STORE_FLOAT]):
            m.d.comb += [
                self.store.enable.eq(word_enable & write_first.replicate(len(word_enable))),
                self.store.address.eq(address[word_bits : word_bits + row_bits]),
                self.store.data.eq(numbers[:32].replicate(store_bytes // 4)),
            ]

    def _exchange(
        self,
        m: Module,
        is_target: dict[Target, Signal],
        beat: Value,
        write_row: Signal,
        row_last: Signal,
    ) -> None:
        """Send beats instead of writing them, and write those of all cores."""
        received = self.received
        first = walk_address(
            m,
            "exchanged",
            start=self.start,
            base=self.base,
            pitch=self.pitch,
            hold=Const(0, 1),
            valid=received.valid & received.final,
            last=received.last,
        )
        offset = Signal(BUFFER_BITS, reset_less=True)
        offset_now = Signal(BUFFER_BITS)
        m.d.comb += offset_now.eq(Mux(received.first, 0, offset))
        with m.If(received.valid):
            m.d.sync += offset.eq(offset_now + self.exchange_pitch)
        m.d.comb += [
            self.sent.valid.eq(write_row & self.exchange),
            self.sent.last.eq(row_last),
            self.sent.data.eq(beat),
        ]
        with m.If(self.exchange):
            for target, port in (
                (Target.VECTOR, self.vector),
                (Target.ACTIVATION, self.activation),
            ):
                m.d.comb += [
                    port.enable.eq(received.valid & is_target[target]),
                    port.address.eq((first + offset_now)[: len(port.address)]),
                    port.data.eq(received.data[: len(port.data)]),
                ]

    def _part_enable(self, number: Value, parts: int) -> Value:
        """Enable bits of part `number` of a row of the store buffer."""
        each = len(self.store.enable) // parts
        return Cat(~(number ^ part).any() for part in range(parts) for _ in range(each))

    def _scalar_port(
        self,
        m: Module,
        is_target: dict[Target, Signal],
        address: Signal,
        write_first: Signal,
        numbers: Signal,
    ) -> tuple[Signal, Signal]:
        """The scalar port, shared by elements and results; returns the write of a result."""
        entry = Signal(ENTRY_BITS, reset_less=True)
        write = Signal()
        write_entry = Signal(ENTRY_BITS, reset_less=True)
        result = Signal(32, reset_less=True)
        m.d.sync += [write.eq(self.result_valid), write_entry.eq(entry), result.eq(self.result)]
        with m.If(self.start):
            m.d.sync += entry.eq(self.entry)
        with m.Elif(self.result_valid):
            m.d.sync += entry.eq(entry + 1)
        is_scalar = is_target[Target.SCALAR]
        width = len(self.scalar.address)
        m.d.comb += [
            self.scalar.enable.eq(Mux(is_scalar, write_first, write)),
            self.scalar.address.eq(Mux(is_scalar, address[:width], write_entry[:width])),
            self.scalar.data.eq(Mux(is_scalar, numbers[:32], result)),
        ]
        return write, result

    def _checksum(self, m: Module, words: dict[str, tuple[Value, Value]]) -> Value:
        """CRC of the words since `start`, all of them from the same entry; 0 if there is none."""
        fresh = Signal()
        values: list[Value] = []
        valids: list[Value] = []
        for name, (valid, word) in words.items():
            m.submodules[f"checksum_{name}"] = checksum = Checksum(len(word) // 8)
            used = Signal(name=f"checksum_{name}_used")
            m.d.comb += [
                checksum.start.eq(fresh),
                checksum.valid.eq(valid),
                checksum.data.eq(word),
            ]
            with m.If(self.start):
                m.d.sync += used.eq(0)
            with m.Elif(valid):
                m.d.sync += used.eq(1)
            valids.append(valid)
            values.append(checksum.value & used.replicate(32))
        with m.If(self.start):
            m.d.sync += fresh.eq(1)
        with m.Elif(Cat(valids).any()):
            m.d.sync += fresh.eq(0)
        combined = values[0]
        for value in values[1:]:
            combined |= value
        return combined


def _lanes(mask: Value, bits: int) -> Value:
    """Each bit of a lane mask as wide as a lane."""
    return Cat(mask[lane].replicate(bits) for lane in range(len(mask)))
