"""The DSP48E2 slice of UltraScale and UltraScale+ parts: its behaviour, or the primitive itself."""

from typing import Any

from amaranth.hdl import (
    Cat,
    ClockSignal,
    Const,
    Instance,
    Module,
    Mux,
    Shape,
    Signal,
    Value,
    signed,
)
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.spec.dsp import (
    A_BITS,
    B_BITS,
    D_BITS,
    INMODE_BITS,
    MULTIPLIER_BITS,
    P_BITS,
    DspSpec,
    W,
    X,
    Y,
    Z,
)

__all__ = ["DSP48E2"]

OPMODE_BITS = 9


class DSP48E2(wiring.Component):
    """27x18 multiplier with pre-adder, four-operand 48-bit adder, cascade and pipeline registers.

    P = W + X + Y + Z modulo 2**48, where OPMODE selects each operand, in every cycle anew; the product is
    (D + A) * B of signed numbers, D + A modulo 2**27. What is left out is fixed as for adding: ALUMODE 0,
    carry in 0, no pattern detector, no A and B cascades, no logic unit.

    No flow control. All registers start from zero, have no reset, and keep their values while `enable`
    is low. Combinational from a port to P where all registers on the way are left out.

    Parameters
    ----------
    spec : DspSpec
        Registers.
    vendor : bool
        Instantiates the primitive instead of its behaviour; the ports and every cycle are the same.

    Members
    -------
    enable : In(1)
        All clock enables.
    a : In(signed(30)), b : In(signed(18)), c : In(signed(48)), d : In(signed(27))
        Operands.
    inmode : In(5)
        Pre-adder: bit 0 takes the first of two A registers, 1 replaces A by zero, 2 lets D in (zero
        otherwise), 3 subtracts A; bit 4 takes the first of two B registers.
    opmode : In(9)
        See `hw.spec.dsp.opmode`. Codes outside its enumerations are not for use.
    pcin : In(signed(48)), pcout : Out(signed(48))
        Cascade; wire it only to the neighbours in the column.
    p : Out(signed(48))
        Sum.
    """

    enable: Value
    a: Value
    b: Value
    c: Value
    d: Value
    inmode: Value
    opmode: Value
    pcin: Value
    p: Value
    pcout: Value

    def __init__(self, spec: DspSpec, *, vendor: bool) -> None:
        self.spec = spec
        self.vendor = vendor
        super().__init__({
            "enable": In(1),
            "a": In(signed(A_BITS)),
            "b": In(signed(B_BITS)),
            "c": In(signed(P_BITS)),
            "d": In(signed(D_BITS)),
            "inmode": In(INMODE_BITS),
            "opmode": In(OPMODE_BITS),
            "pcin": In(signed(P_BITS)),
            "p": Out(signed(P_BITS)),
            "pcout": Out(signed(P_BITS)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self.vendor:
            m.submodules.block = self._primitive()
        else:
            self._behaviour(m)
        return m

    def _behaviour(self, m: Module) -> None:
        spec = self.spec
        inmode = self._delayed(m, "inmode", self.inmode, spec.mode_registers)[-1]
        opmode = self._delayed(m, "opmode", self.opmode, spec.mode_registers)[-1]
        a_stages = self._delayed(m, "a", self.a, spec.a_registers)
        b_stages = self._delayed(m, "b", self.b, spec.b_registers)
        c = self._delayed(m, "c", self.c, spec.c_registers)[-1]
        d = self._delayed(m, "d", self.d, spec.d_registers)[-1]

        # The first of the registers, where there are two; otherwise both names mean the same one.
        a_chosen = Signal(signed(A_BITS))
        b_chosen = Signal(signed(B_BITS))
        m.d.comb += [
            a_chosen.eq(Mux(inmode[0], a_stages[min(1, spec.a_registers)], a_stages[-1])),
            b_chosen.eq(Mux(inmode[4], b_stages[min(1, spec.b_registers)], b_stages[-1])),
        ]
        multiplicand = Signal(signed(MULTIPLIER_BITS))
        gated_a = Signal(signed(MULTIPLIER_BITS))
        m.d.comb += gated_a.eq(Mux(inmode[1], 0, a_chosen))
        if spec.preadder:
            gated_d = Signal(signed(D_BITS))
            preadded = Signal(signed(MULTIPLIER_BITS))
            m.d.comb += [
                gated_d.eq(Mux(inmode[2], d, 0)),
                preadded.eq(Mux(inmode[3], gated_d - gated_a, gated_d + gated_a)),
            ]
            stages = self._delayed(m, "preadded", preadded, spec.preadd_registers)
            m.d.comb += multiplicand.eq(stages[-1])
        else:
            m.d.comb += multiplicand.eq(gated_a)

        product = Signal(signed(MULTIPLIER_BITS + B_BITS))
        m.d.comb += product.eq(multiplicand * b_chosen)
        product = self._delayed(m, "product", product, spec.product_registers)[-1]
        # A is above B, each as it leaves its last register.
        joined = Cat(b_stages[-1], a_stages[-1]).as_signed()
        total = self._sum(m, opmode, product, joined, c)
        result = self._delayed(m, "p", total, spec.sum_registers)[-1]
        m.d.comb += [self.p.eq(result), self.pcout.eq(result)]

    def _sum(self, m: Module, opmode: Value, product: Value, joined: Value, c: Value) -> Value:
        """Sum of the four operands that OPMODE selects."""
        x_choices = {X.M: product, X.P: self.p} | ({X.AB: joined} if self.spec.joined else {})
        operands = {
            "x": (opmode[0:2], x_choices),
            # The product stands in X alone: the primitive splits it between X and Y.
            "y": (opmode[2:4], {Y.ONES: Const(-1, signed(P_BITS)), Y.C: c}),
            "z": (opmode[4:7], {Z.PCIN: self.pcin, Z.P: self.p, Z.C: c}),
            "w": (
                opmode[7:9],
                {W.P: self.p, W.RND: Const(self.spec.rounding, P_BITS), W.C: c},
            ),
        }
        total: Value = Const(0)
        for name, (code, choices) in operands.items():
            operand = Signal(signed(P_BITS), name=name)
            with m.Switch(code):
                for value, source in choices.items():
                    # P as an operand needs its register: it would be a loop.
                    if source is self.p and not self.spec.sum_registers:
                        continue
                    with m.Case(value.value):
                        m.d.comb += operand.eq(source)
                with m.Default():
                    m.d.comb += operand.eq(0)
            total += operand
        result = Signal(signed(P_BITS), name="total")
        m.d.comb += result.eq(total)
        return result

    def _delayed(self, m: Module, name: str, value: Value, registers: int) -> list[Value]:
        """A value behind 0, 1, ... registers."""
        stages: list[Value] = [value]
        for number in range(registers):
            stage = Signal(Shape.cast(value.shape()), name=f"{name}_{number + 1}", reset_less=True)
            with m.If(self.enable):
                m.d.sync += stage.eq(stages[-1])
            stages.append(stage)
        return stages

    def _primitive(self) -> Instance:
        spec = self.spec
        # A port that is clocked and one that is not both get the common enable, and no reset.
        arguments: dict[str, Any] = {f"i_{name}": self.enable for name in ENABLES}
        arguments |= {f"i_{name}": Const(0) for name in RESETS}
        arguments |= {f"i_{name}": Const(0, width) for name, width in TIED.items()}
        return Instance(
            "DSP48E2",
            p_AMULTSEL="AD" if spec.preadder else "A",
            p_BMULTSEL="B",
            p_PREADDINSEL="A",
            p_A_INPUT="DIRECT",
            p_B_INPUT="DIRECT",
            p_USE_MULT="DYNAMIC" if spec.joined else "MULTIPLY",
            p_USE_SIMD="ONE48",
            p_USE_PATTERN_DETECT="NO_PATDET",
            p_USE_WIDEXOR="FALSE",
            p_RND=Const(spec.rounding, P_BITS),
            p_AREG=spec.a_registers,
            p_ACASCREG=spec.a_registers,
            p_BREG=spec.b_registers,
            p_BCASCREG=spec.b_registers,
            p_CREG=spec.c_registers,
            p_DREG=spec.d_registers,
            p_ADREG=spec.preadd_registers,
            p_MREG=spec.product_registers,
            p_PREG=spec.sum_registers,
            p_OPMODEREG=spec.mode_registers,
            p_INMODEREG=spec.mode_registers,
            p_ALUMODEREG=0,
            p_CARRYINREG=0,
            p_CARRYINSELREG=0,
            i_CLK=ClockSignal(),
            i_A=self.a,
            i_B=self.b,
            i_C=self.c,
            i_D=self.d,
            i_INMODE=self.inmode,
            i_OPMODE=self.opmode,
            i_PCIN=self.pcin,
            o_P=self.p,
            o_PCOUT=self.pcout,
            **arguments,
        )


ENABLES = (
    "CEA1",
    "CEA2",
    "CEAD",
    "CEALUMODE",
    "CEB1",
    "CEB2",
    "CEC",
    "CECARRYIN",
    "CECTRL",
    "CED",
    "CEINMODE",
    "CEM",
    "CEP",
)
RESETS = (
    "RSTA",
    "RSTALLCARRYIN",
    "RSTALUMODE",
    "RSTB",
    "RSTC",
    "RSTCTRL",
    "RSTD",
    "RSTINMODE",
    "RSTM",
    "RSTP",
)
TIED = {
    "ACIN": A_BITS,
    "ALUMODE": 4,
    "BCIN": B_BITS,
    "CARRYCASCIN": 1,
    "CARRYIN": 1,
    "CARRYINSEL": 3,
    "MULTSIGNIN": 1,
}
