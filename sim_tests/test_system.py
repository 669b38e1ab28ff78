"""Runs the SYS unit's bench, alone and as one of several cores, and checks that it finds faults."""

import dataclasses
from typing import Any

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from hw.core.system import TOKEN_BITS, SystemUnit
from hw.spec.latency import token_cycles
from hw.spec.machine import MachineSpec
from hw.spec.machine_file import load_machine
from hw.verilog import convert
from sim_tests.bench import run_bench

BENCH = "sim_tests.bench_system"
SPECS = {
    cores: dataclasses.replace(
        load_machine("tiny"), tokens=32, cores=cores, exchange_latency=latency
    )
    for cores, latency in ((1, 1), (2, 3), (4, 1))
}


class OneOfSeveral(wiring.Component):
    """A SYS unit among others: it may begin when `others` is high, and the token takes its time to come.

    Members
    -------
    others : In(1)
        All other cores have an EXECUTE to begin.
    best_index : In(20)
        The token of all cores as their vector units have it now.
    """

    others: Any
    best_index: Any

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        self.unit = SystemUnit(spec)
        members = dict(self.unit.signature.members.items())
        self.inner = [name for name in members if name not in ("offer", "go", "hold", "best_index")]
        super().__init__({
            **{name: members[name] for name in self.inner},
            "others": In(1),
            "best_index": In(TOKEN_BITS),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.unit = unit = self.unit
        for path, member, outer in self.signature.flatten(self):
            if path[0] not in self.inner:
                continue
            inner: Any = unit
            for part in path:
                inner = inner[part] if isinstance(part, int) else getattr(inner, str(part))
            m.d.comb += inner.eq(outer) if member.flow == In else outer.eq(inner)
        token: Any = self.best_index
        for age in range(self.spec.exchange_latency):
            later = Signal(TOKEN_BITS, name=f"token_{age}")
            m.d.sync += later.eq(token)
            token = later
        m.d.comb += [unit.go.eq(unit.offer & self.others), unit.best_index.eq(token)]
        return m


def netlist(cores: int) -> str:
    """Verilog of the unit, with what stands for other cores."""
    spec = SPECS[cores]
    return convert(SystemUnit(spec) if cores == 1 else OneOfSeveral(spec), "top")


def parameters(cores: int) -> dict[str, int]:
    """What the bench must know of the machine."""
    spec = SPECS[cores]
    return {"tokens": spec.tokens, "cores": cores, "cycles": token_cycles(spec)}


@pytest.mark.parametrize("cores", list(SPECS))
def test_system(cores: int) -> None:
    result = run_bench(f"system_{cores}", netlist(cores), BENCH, parameters=parameters(cores))
    assert result.tests == 5


FAULTS = {
    "the prompt too long": (1, "position < prompt_length", "position <= prompt_length", 3),
    "a SYNC waits for the others": (2, "i__payload[0] | go", "1'h0 | go", 3),
}


@pytest.mark.parametrize("name", list(FAULTS))
def test_a_fault_is_found(name: str) -> None:
    cores, right, wrong, tests = FAULTS[name]
    text = netlist(cores)
    assert right in text
    with pytest.raises(AssertionError, match=f"of {tests} tests failed"):
        run_bench(
            "system_faulty",
            text.replace(right, wrong),
            BENCH,
            parameters=parameters(cores),
            only="takes_tokens",
        )
