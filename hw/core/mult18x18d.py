"""The MULT18X18D of ECP5 parts: its behaviour, or the primitive itself."""

from amaranth.hdl import ClockSignal, Const, Instance, Module, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Mult18x18d"]

OPERAND_BITS = 18
PRODUCT_BITS = 2 * OPERAND_BITS
LATENCY = 2
"""Cycles from operands to product: input and output registers."""


class Mult18x18d(wiring.Component):
    """Signed 18x18 product with registers before and behind the multiplier.

    No flow control; registers start from zero and keep their values while `enable` is low.

    Parameters
    ----------
    vendor : bool
        Instantiates the primitive instead of its behaviour; the ports and every cycle are the same.

    Members
    -------
    enable : In(1)
        Clock enable of all registers.
    a, b : In(signed(18))
        Operands.
    p : Out(signed(36))
        Their product, two cycles later.
    """

    enable: Value
    a: Value
    b: Value
    p: Value

    def __init__(self, *, vendor: bool) -> None:
        self.vendor = vendor
        super().__init__({
            "enable": In(1),
            "a": In(signed(OPERAND_BITS)),
            "b": In(signed(OPERAND_BITS)),
            "p": Out(signed(PRODUCT_BITS)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self.vendor:
            m.submodules.block = self._primitive()
            return m
        a = Signal.like(self.a, reset_less=True)
        b = Signal.like(self.b, reset_less=True)
        with m.If(self.enable):
            m.d.sync += [a.eq(self.a), b.eq(self.b), self.p.eq(a * b)]
        return m

    def _primitive(self) -> Instance:
        # Shift inputs, other clocks and their enables have no way to a constant: they stay open.
        tied = [f"C{bit}" for bit in range(OPERAND_BITS)]
        tied += ["SOURCEA", "SOURCEB", "RST0"]
        ports = {f"i_A{bit}": self.a[bit] for bit in range(OPERAND_BITS)}
        ports |= {f"i_B{bit}": self.b[bit] for bit in range(OPERAND_BITS)}
        ports |= {f"o_P{bit}": self.p[bit] for bit in range(PRODUCT_BITS)}
        ports |= {f"i_{name}": Const(0) for name in tied}
        registers = {f"p_REG_{name}_CLK": "CLK0" for name in ("INPUTA", "INPUTB", "OUTPUT")}
        return Instance(
            "MULT18X18D",
            p_REG_PIPELINE_CLK="NONE",
            p_SOURCEB_MODE="B_SHIFT",
            p_RESETMODE="SYNC",
            p_GSR="DISABLED",
            i_CLK0=ClockSignal(),
            i_CE0=self.enable,
            i_SIGNEDA=Const(1),
            i_SIGNEDB=Const(1),
            **registers,
            **ports,
        )
