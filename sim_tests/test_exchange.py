"""Runs the bench of the network between cores, and checks that it finds faults."""

import dataclasses
import functools
from typing import Any

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.core.exchange import Exchange, TokenChoice, received_layout, sent_layout
from hw.core.system import TOKEN_BITS
from hw.core.vector_reduce import INDEX_BITS, KEY_BITS
from hw.spec.machine import MachineSpec
from hw.spec.machine_file import load_machine
from hw.verilog import convert
from sim_tests.bench import run_bench

BENCH = "sim_tests.bench_exchange"
SHAPES = {"two cores": (2, 4), "three cores, near": (3, 1)}
"""Cores and latency."""


class Network(wiring.Component):
    """Exchange and token choice side by side.

    Members
    -------
    sent, offer, go, o
        See `hw.core.exchange.Exchange`.
    key, index, token
        See `hw.core.exchange.TokenChoice`.
    """

    sent: Any
    offer: Any
    go: Any
    o: Any
    key: Any
    index: Any
    token: Any

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        super().__init__({
            "sent": In(sent_layout(spec)).array(spec.cores),
            "offer": In(spec.cores),
            "go": Out(1),
            "o": Out(received_layout(spec)),
            "key": In(KEY_BITS).array(spec.cores),
            "index": In(INDEX_BITS).array(spec.cores),
            "token": Out(TOKEN_BITS),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.exchange = exchange = Exchange(self.spec)
        m.submodules.choice = choice = TokenChoice(self.spec)
        m.d.comb += [exchange.offer.eq(self.offer), self.go.eq(exchange.go)]
        m.d.comb += [self.o.eq(exchange.o), self.token.eq(choice.o)]
        for core in range(self.spec.cores):
            m.d.comb += [
                exchange.sent[core].eq(self.sent[core]),
                choice.key[core].eq(self.key[core]),
                choice.index[core].eq(self.index[core]),
            ]
        return m


def shape(name: str) -> tuple[MachineSpec, dict[str, int]]:
    """The machine, and what the bench must know of it."""
    cores, latency = SHAPES[name]
    spec = dataclasses.replace(load_machine("two-core"), cores=cores, exchange_latency=latency)
    return spec, {"cores": cores, "latency": latency, "lanes": spec.lanes}


@functools.cache
def netlist(name: str) -> str:
    """Verilog of the network."""
    return convert(Network(shape(name)[0]), "top")


@pytest.mark.parametrize("name", list(SHAPES))
def test_exchange(name: str) -> None:
    result = run_bench(
        f"exchange_{SHAPES[name][0]}", netlist(name), BENCH, parameters=shape(name)[1]
    )
    assert result.tests == 4


FAULTS = {
    "core 1 contributes nothing": ("_11_ = sent__1;", "_11_ = 66'h1;", "every_core"),
    "cores in the other order": ("casez (number)", "casez (~number)", "every_core"),
    "begun when one core is ready": ("assign go = & offer;", "assign go = | offer;", "every_core"),
    "one cycle early": ("_03_ = stage_2;", "_03_ = stage_1;", "every_core"),
    "the higher core on a tie": ("{ key__1, _08_ } >", "{ key__1, ~_08_ } >", "the_token"),
    "the lower core whatever its key": ("_09_ ? {", "1'b0 ? {", "the_token"),
}


@pytest.mark.parametrize("name", list(FAULTS))
def test_a_fault_is_found(name: str) -> None:
    right, wrong, test = FAULTS[name]
    text = netlist("two cores")
    assert text.count(right) == 1
    with pytest.raises(AssertionError, match="tests failed"):
        run_bench(
            "exchange_faulty",
            text.replace(right, wrong),
            BENCH,
            parameters=shape("two cores")[1],
            only=test,
        )
