"""Runs the bench of the processing elements, all of them in one netlist, and checks that it can fail."""

import pytest
from amaranth.hdl import Module, Signal, Value, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.pe.element import make_element
from hw.spec.element_family import ELEMENTS
from sim_tests.bench import run_bench

BENCH = "sim_tests.bench_pe"
CYCLES = 1500


class AllElements(wiring.Component):
    """Every element with operands of its own, and one `valid` and `clear` for all.

    Members
    -------
    weight_<name>, activation_<name>, control_<name>, sum_<name>
        Ports of each element, without signs; dashes are underscores.
    """

    valid: Value
    clear: Value

    def __init__(self, names: list[str], late: str = "") -> None:
        self.names = names
        self.late = late
        members: dict[str, wiring.Member] = {"valid": In(1), "clear": In(1)}
        for name in names:
            spec, plain = ELEMENTS[name], name.replace("-", "_")
            members[f"weight_{plain}"] = In(unsigned(spec.weight_bits))
            members[f"activation_{plain}"] = In(unsigned(spec.activation_bits))
            members[f"sum_{plain}"] = Out(unsigned(spec.accumulator_bits))
            if spec.control_bits:
                members[f"control_{plain}"] = In(unsigned(spec.control_bits))
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for name in self.names:
            plain = name.replace("-", "_")
            m.submodules[plain] = element = make_element(ELEMENTS[name])
            m.d.comb += [element.valid.eq(self.valid), element.clear.eq(self.clear)]
            for port in ("weight", "activation", "control"):
                if port != "control" or element.spec.control_bits:
                    m.d.comb += getattr(element, port).eq(getattr(self, f"{port}_{plain}"))
            total: Value = element.sum
            if name == self.late:
                total = Signal.like(element.sum)
                m.d.sync += total.eq(element.sum)
            m.d.comb += getattr(self, f"sum_{plain}").eq(total)
        return m


def test_every_element() -> None:
    names = list(ELEMENTS)
    parameters = {"elements": names, "cycles": CYCLES}
    result = run_bench("pe", lambda: AllElements(names), BENCH, parameters=parameters)
    assert result.tests == 1


def test_a_wrong_latency_is_found() -> None:
    names = ["mixpe-a8"]
    parameters = {"elements": names, "cycles": 50}
    with pytest.raises(AssertionError, match="the golden twin has"):
        run_bench("pe_late", lambda: AllElements(names, names[0]), BENCH, parameters=parameters)
