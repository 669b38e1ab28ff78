"""The unit below a column of a systolic array, or below several: zero point, group scale, sum over groups, output scale."""

from dataclasses import dataclass

from amaranth.hdl import Module, Mux, Shape, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.floating import FloatAdd, FloatMultiply, IntegerToFloat
from hw.floating_values import delay, register
from hw.pe.array_layout import control_layout, row_sum_shape, sum_shape, unit_scales_layout
from hw.pe.array_skew import delay_control
from hw.pe.dequantization_scale import (
    ScaleStore,
    fp16_to_fp32,
    scale_mantissa,
    scale_shift,
)
from hw.spec.floating import FLOAT_ADD_LATENCY, FLOAT_MULTIPLY_LATENCY, FROM_INTEGER_LATENCY
from hw.spec.systolic import SystolicSpec
from hw.spec.systolic_parts import (
    FRACTION_BITS,
    INTEGER_SCALE_BITS,
    MANTISSA_BITS,
    RESULT_BITS,
    ZERO_CYCLES,
    Dequantization,
)

__all__ = ["DequantizationUnit"]

SHIFT_LIMIT = 30
"""Largest shift of an FP16 scale's mantissa, with the exponent of all ones."""


@dataclass(frozen=True)
class _Stage:
    """A value on its way, and the cycles it is behind the sum that entered the unit."""

    value: Value
    cycles: int


class DequantizationUnit(wiring.Component):
    """Turns the sums of a column's groups into outputs; one sum a cycle, no flow control.

    A sum loses ``zero * row_sum``, is multiplied by the scale of its group and added to the entry at
    `control.address` of a memory of sums (to 0 where `control.open` is set). Where `control.close` is set
    the new sum becomes FP32, is multiplied by the column's scale, if there is one, and by the scale of the
    row, and leaves `spec.unit_latency` cycles behind the sum that closed it.
    Additions to an entry must be `spec.accumulate_interval` cycles apart.

    Parameters
    ----------
    spec : SystolicSpec
        The array.

    Members
    -------
    sum : In(sum_shape(spec))
        Sum of a group.
    row_sum : In(row_sum_shape(spec))
        Sum of the activations, where the spec has row sums.
    control : In(control_layout(spec))
        What to do with it.
    scales_write : In(1)
        Take `scales`, those of the next group.
    scales : In(unit_scales_layout(spec))
        Scales and zero point, of each column that shares the unit.
    token_scale : In(32)
        FP32 scale of the row that closed ``unit_latency - FLOAT_MULTIPLY_LATENCY`` cycles ago.
    o : Out(unsigned(32))
        Output.
    o_valid : Out(1)
        There is one.
    o_column : Out
        Its column, where columns share the unit.
    """

    sum: Value
    row_sum: Value
    control: data.View
    scales_write: Value
    scales: data.View
    token_scale: Value
    o: Value
    o_valid: Value
    o_column: Value

    def __init__(self, spec: SystolicSpec) -> None:
        self.spec = spec
        members = {
            "sum": In(sum_shape(spec)),
            "control": In(control_layout(spec)),
            "o": Out(unsigned(RESULT_BITS)),
            "o_valid": Out(1),
        }
        if spec.row_sums:
            members["row_sum"] = In(row_sum_shape(spec))
        if spec.dequantizes:
            members |= {
                "scales_write": In(1),
                "scales": In(unit_scales_layout(spec)),
                "token_scale": In(unsigned(32)),
            }
        if spec.columns_per_unit > 1:
            members["o_column"] = Out(range(spec.columns_per_unit))
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        if not spec.dequantizes:
            m.d.comb += [self.o.eq(self.sum), self.o_valid.eq(self.control.valid)]
            return m
        m.submodules.store = store = ScaleStore(spec)
        m.d.comb += [
            store.write.eq(self.scales_write),
            store.i.eq(self.scales),
            store.end.eq(self.control.valid & self.control.end),
        ]
        if spec.columns_per_unit > 1:
            m.d.comb += [
                store.column.eq(self.control.column),
                self.o_column.eq(delay(m, "column", self.control.column, spec.unit_latency)),
            ]
        stage = _Stage(self.sum, 0)
        if spec.row_sums:
            stage = self._subtract_zero(m, store, stage)
        match spec.dequantization:
            case Dequantization.FLOAT32:
                stage = self._accumulate_float(m, store, stage)
            case Dequantization.INTEGER:
                stage = self._accumulate_integer(m, self._scale_integer(m, store, stage), 64)
                stage = self._to_float(m, stage, FRACTION_BITS)
            case Dequantization.CHANNEL:
                scale = store.read(m, "group_scale", stage.cycles)["scale"]
                bits = len(stage.value) + INTEGER_SCALE_BITS + 1
                product = _signed_register(m, "scaled", stage.value * scale, bits)
                stage = _Stage(product, stage.cycles + 1)
                stage = self._to_float(m, self._accumulate_integer(m, stage, 32), 0)
                code = store.read(m, "channel_scale", stage.cycles)["channel"]
                channel = fp16_to_fp32(m, "channel", code)
                stage = _multiply(m, "by_channel", stage, channel)
        stage = _multiply(m, "by_token", stage, self.token_scale)
        assert stage.cycles == spec.unit_latency
        closes = self.control.valid & self.control.close
        m.d.comb += [
            self.o.eq(stage.value),
            self.o_valid.eq(delay_control(m, "closes", closes, stage.cycles)),
        ]
        return m

    def _subtract_zero(self, m: Module, store: ScaleStore, stage: _Stage) -> _Stage:
        """The sum that symmetric weights would have had."""
        zero = store.read(m, "zero_point", stage.cycles)["zero"]
        bits = len(self.row_sum) + len(zero) + 1
        # The product alone fills a cycle.
        offset = _signed_register(m, "offset", self.row_sum * zero, bits)
        late = _signed_register(m, "sum_1", stage.value, len(stage.value))
        width = max(len(late), len(offset)) + 1
        difference = _signed_register(m, "symmetric", late - offset, width)
        return _Stage(difference, stage.cycles + ZERO_CYCLES)

    def _scale_integer(self, m: Module, store: ScaleStore, stage: _Stage) -> _Stage:
        """Product with the FP16 scale as an integer of unit 2**-24."""
        code = store.read(m, "group_scale", stage.cycles)["scale"]
        bits = len(stage.value) + MANTISSA_BITS + 1
        signed_value = Mux(code[-1], -stage.value, stage.value)
        product = _signed_register(m, "scaled", signed_value * scale_mantissa(code), bits)
        shift = register(m, "shift_1", scale_shift(code))
        shifted = _signed_register(
            m, "shifted", product << shift, min(bits + SHIFT_LIMIT, self.spec.accumulator_bits)
        )
        return _Stage(shifted, stage.cycles + 2)

    def _memory(self, m: Module, read_cycles: int, write_cycles: int) -> tuple[Value, Value]:
        """The old sum one cycle behind `read_cycles`, and where to put the new one in `write_cycles`."""
        spec = self.spec
        m.submodules.sums = memory = Memory(
            shape=unsigned(spec.accumulator_bits),
            depth=spec.accumulator_rows * spec.columns_per_unit,
            init=[],
        )
        reader, writer = memory.read_port(), memory.write_port()
        entry = self.control.address
        if spec.columns_per_unit > 1:
            entry = entry + self.control.column * spec.accumulator_rows
        address = delay(m, "address", entry, read_cycles)
        m.d.comb += [
            reader.addr.eq(address),
            writer.addr.eq(delay(m, "address_w", address, write_cycles - read_cycles)),
            writer.en.eq(delay_control(m, "valid", self.control.valid, write_cycles)),
        ]
        return reader.data, writer.data

    def _accumulate_integer(self, m: Module, stage: _Stage, bits: int) -> _Stage:
        """Sum over groups, wrapping."""
        old, new = self._memory(m, stage.cycles - 1, stage.cycles)
        opens = delay(m, "opens", self.control.open, stage.cycles)
        total = Signal(signed(bits))
        m.d.comb += [
            total.eq(Mux(opens, 0, old.as_signed()) + stage.value),
            new.eq(total),
        ]
        return _Stage(_signed_register(m, "total", total, bits), stage.cycles + 1)

    def _accumulate_float(self, m: Module, store: ScaleStore, stage: _Stage) -> _Stage:
        """Product with the FP16 scale, and sum over groups in their order, in FP32."""
        if not self.spec.processing_element.fp32:
            stage = self._to_float(m, stage, 0)
        code = store.read(m, "group_scale", stage.cycles)["scale"]
        stage = _multiply(m, "by_group", stage, fp16_to_fp32(m, "group", code))
        done = stage.cycles + FLOAT_ADD_LATENCY
        old, new = self._memory(m, stage.cycles - 1, done)
        opens = delay(m, "opens", self.control.open, stage.cycles)
        m.submodules.add = add = FloatAdd()
        m.d.comb += [add.a.eq(Mux(opens, 0, old)), add.b.eq(stage.value), new.eq(add.o)]
        return _Stage(add.o, done)

    def _to_float(self, m: Module, stage: _Stage, shift: int) -> _Stage:
        m.submodules.convert = convert = IntegerToFloat(len(stage.value), shift)
        m.d.comb += convert.i.eq(stage.value)
        return _Stage(convert.o, stage.cycles + FROM_INTEGER_LATENCY)


def _multiply(m: Module, name: str, stage: _Stage, factor: Value) -> _Stage:
    m.submodules[name] = multiply = FloatMultiply()
    m.d.comb += [multiply.a.eq(stage.value), multiply.b.eq(factor)]
    return _Stage(multiply.o, stage.cycles + FLOAT_MULTIPLY_LATENCY)


def _signed_register(m: Module, name: str, value: Value, bits: int) -> Signal:
    """A signed register without reset; the value is cut or extended to `bits`."""
    signal = Signal(Shape(bits, signed=True), name=name, reset_less=True)
    m.d.sync += signal.eq(value)
    return signal
