"""Designs under test around the DSP slice: several of them side by side, or in a column."""

from typing import Any

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.core.dsp48e2 import DSP48E2
from hw.core.pair_mac import PairMac, Start, extract_lanes
from hw.core.pipeline import delays
from hw.spec.dsp import P_BITS, DspSpec, Multiplier

DSP_INPUTS: dict[str, Any] = {
    "enable": In(1),
    "a": In(signed(30)),
    "b": In(signed(18)),
    "c": In(signed(48)),
    "d": In(signed(27)),
    "inmode": In(5),
    "opmode": In(9),
    "pcin": In(signed(48)),
}

# The packing of two products; a slice with all registers; one without any; the others in between.
DSP_SPECS = (
    DspSpec(),
    DspSpec(a_registers=2, joined=True, rounding=1 << 17),
    DspSpec(
        a_registers=0,
        b_registers=0,
        c_registers=0,
        d_registers=0,
        preadd_registers=0,
        product_registers=0,
        sum_registers=0,
        mode_registers=0,
        joined=True,
    ),
    DspSpec(a_registers=2, b_registers=2, preadder=False, joined=True, rounding=(1 << 48) - 5),
    DspSpec(b_registers=1, preadd_registers=0, mode_registers=0, c_registers=0, d_registers=0),
)


class DspBank(wiring.Component):
    """One slice for each of `DSP_SPECS`, with the same inputs."""

    enable: Any
    a: Any
    b: Any
    c: Any
    d: Any
    inmode: Any
    opmode: Any
    pcin: Any
    p: Any
    pcout: Any

    def __init__(self) -> None:
        results = data.ArrayLayout(signed(P_BITS), len(DSP_SPECS))
        super().__init__({**DSP_INPUTS, "p": Out(results), "pcout": Out(results)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for number, spec in enumerate(DSP_SPECS):
            m.submodules[f"dsp_{number}"] = dsp = DSP48E2(spec, vendor=False)
            m.d.comb += [getattr(dsp, name).eq(getattr(self, name)) for name in DSP_INPUTS]
            m.d.comb += [self.p[number].eq(dsp.p), self.pcout[number].eq(dsp.pcout)]
        return m


class AgainstDsp48e1(wiring.Component):
    """Our DSP48E2 beside the DSP48E1 of the 7 series, where both have the same: 25x18, no fourth operand."""

    enable: Any
    a: Any
    b: Any
    c: Any
    d: Any
    inmode: Any
    opmode: Any
    pcin: Any
    p: Any
    other_p: Any

    def __init__(self) -> None:
        super().__init__({**DSP_INPUTS, "p": Out(signed(P_BITS)), "other_p": Out(signed(P_BITS))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.dsp = dsp = DSP48E2(DspSpec(a_registers=2, joined=True), vendor=False)
        m.d.comb += [getattr(dsp, name).eq(getattr(self, name)) for name in DSP_INPUTS]
        m.d.comb += self.p.eq(dsp.p)
        enables = ("A1", "A2", "AD", "ALUMODE", "B1", "B2", "C", "CARRYIN", "CTRL", "D", "INMODE")
        resets = ("A", "ALLCARRYIN", "ALUMODE", "B", "C", "CTRL", "D", "INMODE", "M", "P")
        arguments: dict[str, Any] = {f"i_CE{n}": self.enable for n in (*enables, "M", "P")}
        arguments |= {f"i_RST{n}": Const(0) for n in resets}
        for name, width in {"ALUMODE": 4, "CARRYINSEL": 3, "ACIN": 30, "BCIN": 18}.items():
            arguments[f"i_{name}"] = Const(0, width)
        for name in ("CARRYIN", "CARRYCASCIN", "MULTSIGNIN"):
            arguments[f"i_{name}"] = Const(0)
        m.submodules.other = Instance(
            "DSP48E1",
            p_AREG=2,
            p_ACASCREG=1,
            p_BREG=2,
            p_BCASCREG=1,
            p_USE_DPORT="TRUE",
            p_USE_MULT="DYNAMIC",
            p_ALUMODEREG=0,
            p_CARRYINREG=0,
            p_CARRYINSELREG=0,
            i_CLK=ClockSignal(),
            i_A=self.a,
            i_B=self.b,
            i_C=self.c,
            i_D=self.d[:25],
            i_INMODE=self.inmode,
            i_OPMODE=self.opmode[:7],
            i_PCIN=self.pcin,
            o_P=self.other_p,
            **arguments,
        )
        return m


class LaneSweep(wiring.Component):
    """All pairs of products, 64 a cycle: a counts down the cells, d and b over the cycles.

    In cycle n behind the latency, cell i has ``a = 64 * (n >> 16) + i``, ``d = n >> 8 & 255`` and
    ``b = n & 255``, each as a signed byte.
    """

    CELLS = 64

    low: Any
    high: Any

    def __init__(self) -> None:
        super().__init__({
            "low": Out(data.ArrayLayout(signed(32), self.CELLS)),
            "high": Out(data.ArrayLayout(signed(32), self.CELLS)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        count = Signal(18)
        m.d.sync += count.eq(count + 1)
        for index in range(self.CELLS):
            m.submodules[f"cell_{index}"] = cell = PairMac(Multiplier.MODEL)
            low, high = extract_lanes(cell.p)
            m.d.comb += [
                cell.enable.eq(1),
                cell.start.eq(Start.ZERO),
                cell.a.eq(Cat(Const(index, 6), count[16:])),
                cell.d.eq(count[8:16]),
                cell.b.eq(count[:8]),
                self.low[index].eq(low),
                self.high[index].eq(high),
            ]
        return m


COLUMN_MULTIPLIERS = (Multiplier.MODEL, Multiplier.INFERRED, Multiplier.ECP5_MODEL)


class Column(wiring.Component):
    """A cascade of cells for each multiplier, with one set of operands for a whole chain a cycle.

    Cell i starts from zero, from the cell below, or from `word` (the same for all cells); everything that
    enters cell i is delayed by i cycles.
    """

    CELLS = 10

    enable: Any
    a: Any
    b: Any
    d: Any
    start: Any
    word: Any
    p: Any

    def __init__(self) -> None:
        operands = data.ArrayLayout(signed(8), self.CELLS)
        super().__init__({
            "enable": In(1),
            "a": In(operands),
            "b": In(operands),
            "d": In(operands),
            "start": In(data.ArrayLayout(2, self.CELLS)),
            "word": In(signed(P_BITS)),
            "p": Out(data.ArrayLayout(signed(P_BITS), self.CELLS * len(COLUMN_MULTIPLIERS))),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        operands: list[Any] = []
        words: list[Any] = [self.word]
        for index in range(self.CELLS):
            entry: Any = Cat(self.a[index], self.b[index], self.d[index], self.start[index])
            operands.append(delays(m, f"operands_{index}", entry, index, self.enable)[-1])
            words.append(delays(m, f"word_{index}", words[-1], 1, self.enable)[1])
        for number, multiplier in enumerate(COLUMN_MULTIPLIERS):
            below = None
            for index, entry in enumerate(operands):
                cell = PairMac(multiplier)
                m.submodules[f"{multiplier.value}_{index}"] = cell
                m.d.comb += [
                    Cat(cell.a, cell.b, cell.d, cell.start).eq(entry),
                    cell.enable.eq(self.enable),
                    cell.word.eq(words[index]),
                    self.p[number * self.CELLS + index].eq(cell.p),
                ]
                if below is not None:
                    m.d.comb += cell.cascade_in.eq(below.cascade_out)
                below = cell
        return m
