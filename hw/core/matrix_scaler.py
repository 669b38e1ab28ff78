"""Group sums of the matrix engine to its accumulators, times their scales; one multiplier for several rows."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.core.matrix_mode import select_by
from hw.core.matrix_row import GROUP_SUM_BITS
from hw.floating_values import named
from hw.spec.machine import MachineSpec

__all__ = ["ACCUMULATOR_BITS", "ACCUMULATOR_FRACTION_BITS", "MatrixScaler", "scaler_control_layout"]

ACCUMULATOR_BITS = 64
ACCUMULATOR_FRACTION_BITS = 24
"""The smallest FP16 number is 2**-24."""
SCALE_FRACTION_BITS = 10
SCALE_EXPONENT_BITS = 5
SCALE_BITS = 1 + SCALE_EXPONENT_BITS + SCALE_FRACTION_BITS


def scaler_control_layout(spec: MachineSpec) -> data.StructLayout:
    """What each stage of a scaler does in this cycle; all scalers work in lockstep."""
    turn = {"turn": exact_log2(spec.rows_per_scaler)} if spec.rows_per_scaler > 1 else {}
    return data.StructLayout({
        # The scale of row `turn` is decoded.
        "decode": 1,
        **turn,
        # A sum is multiplied: that of row 0 (`first`), or one that waits since then.
        "scale": 1,
        "first": 1,
        # The product is moved to its place, and accumulated: from zero if `clear`.
        "place": 1,
        "accumulate": 1,
        "clear": 1,
    })


class MatrixScaler(wiring.Component):
    """Multiplies the group sums of some rows by their scales and adds them to 64-bit accumulators.

    One row a cycle, in every column: the group sums of all rows but row 0 are put aside in the first cycle. No
    flow control: `decode`, `scale`, `place`, `accumulate` follow each other cycle by cycle, and each stays high for
    `rows_per_scaler` cycles; `sums` include a group when `accumulate` is over.

    Parameters
    ----------
    spec : MachineSpec
        The machine.

    Members
    -------
    scaled : In(1)
        Scales count; otherwise groups are multiplied by 1. Constant during an instruction.
    group_sums : In(ArrayLayout(signed(32), matrix_columns)), an array of `rows_per_scaler`
        In the cycle of `first`.
    scales : In(16), an array of `rows_per_scaler`
        FP16 scales (an exponent of all ones is nothing special), in all cycles of `decode`.
    control : In(scaler_control_layout(spec))
        What the stages do.
    sums : Out(ArrayLayout(signed(64), matrix_columns)), an array of `rows_per_scaler`
        The accumulators, in units of 2**-24.
    """

    scaled: Value
    group_sums: list[data.View]
    scales: list[Value]
    control: data.View
    sums: list[data.View]

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        rows, columns = spec.rows_per_scaler, spec.matrix_columns
        super().__init__({
            "scaled": In(1),
            "group_sums": In(data.ArrayLayout(signed(GROUP_SUM_BITS), columns)).array(rows),
            "scales": In(SCALE_BITS).array(rows),
            "control": In(scaler_control_layout(spec)),
            "sums": Out(data.ArrayLayout(signed(ACCUMULATOR_BITS), columns)).array(rows),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        mantissa, shift = self._decode_scale(m)
        product_shift = Signal(SCALE_EXPONENT_BITS, reset_less=True)
        with m.If(self.control.scale):
            m.d.sync += product_shift.eq(shift)
        for column in range(self.spec.matrix_columns):
            product = Signal(
                signed(GROUP_SUM_BITS + SCALE_FRACTION_BITS + 1),
                name=f"product_{column}",
                reset_less=True,
            )
            group_sum = self._group_sum(m, column)
            with m.If(self.control.scale):
                m.d.sync += product.eq(group_sum * mantissa)

            # Constant shifts, cut to the accumulator's width: a variable one would be wider than that.
            placed: Value = Signal(signed(ACCUMULATOR_BITS), name=f"placed_{column}")
            m.d.comb += placed.eq(product)
            for level in range(SCALE_EXPONENT_BITS):
                distance = 1 << level
                moved = Cat(Const(0, distance), placed[:-distance]).as_signed()
                placed = named(
                    m, f"placed_{column}_{distance}", Mux(product_shift[level], moved, placed)
                )
            addend = Signal(signed(ACCUMULATOR_BITS), name=f"addend_{column}", reset_less=True)
            with m.If(self.control.place):
                m.d.sync += addend.eq(placed)
            self._accumulate(m, column, addend)
        return m

    def _group_sum(self, m: Module, column: int) -> Value:
        """The group sum whose turn it is; the others wait and move up."""
        own = [sums[column] for sums in self.group_sums]
        waiting = [
            Signal(signed(GROUP_SUM_BITS), name=f"waiting_{column}_{row}", reset_less=True)
            for row in range(1, len(own))
        ]
        if not waiting:
            return own[0]
        with m.If(self.control.scale):
            for index, place in enumerate(waiting):
                later = waiting[index + 1] if index + 1 < len(waiting) else place
                m.d.sync += place.eq(Mux(self.control.first, own[index + 1], later))
        return Mux(self.control.first, own[0], waiting[0])

    def _accumulate(self, m: Module, column: int, addend: Value) -> None:
        """Accumulators move down one place for each row, so that the adder always sees the next one's."""
        total = Mux(self.control.clear, 0, self.sums[0][column]) + addend
        with m.If(self.control.accumulate):
            for row, later in enumerate(self.sums[1:]):
                m.d.sync += self.sums[row][column].eq(later[column])
            m.d.sync += self.sums[-1][column].eq(total)

    def _decode_scale(self, m: Module) -> tuple[Value, Value]:
        """Signed mantissa and shift of the row's scale, registered; 1 if not scaled."""
        scale = self.scales[0]
        if len(self.scales) > 1:
            scale = select_by(m, "scale", self.control.turn, dict(enumerate(self.scales)))
        fraction = scale[:SCALE_FRACTION_BITS]
        exponent = scale[SCALE_FRACTION_BITS:-1]
        hidden = named(m, "hidden", exponent.any())
        magnitude = named(m, "magnitude", Cat(fraction, hidden))
        mantissa = Signal(signed(SCALE_FRACTION_BITS + 2), reset_less=True)
        shift = Signal(SCALE_EXPONENT_BITS, reset_less=True)
        with m.If(self.control.decode):
            with m.If(self.scaled):
                m.d.sync += [
                    mantissa.eq(Mux(scale[-1], -magnitude, magnitude)),
                    shift.eq(exponent - hidden),
                ]
            with m.Else():
                m.d.sync += [mantissa.eq(1), shift.eq(ACCUMULATOR_FRACTION_BITS)]
        return mantissa, shift
