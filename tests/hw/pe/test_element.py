"""Elements one by one in Amaranth's simulator, every operand pair where there are few, with gaps."""

import numpy as np
import pytest
from amaranth.sim import Simulator

from emulator.pe.golden import sums
from hw.pe.element import ProcessingElement, make_element
from hw.spec.element_family import ELEMENTS, element_spec
from hw.spec.errors import InputError


def simulate(
    element: ProcessingElement,
    weight: np.ndarray,
    activation: np.ndarray,
    valid: np.ndarray,
    clear: np.ndarray,
) -> list[int]:
    """The sum in each cycle, from the one in which the first operands are presented."""
    seen: list[int] = []

    async def bench(ctx) -> None:
        for cycle in range(len(weight) + element.spec.latency):
            if cycle < len(weight):
                ctx.set(element.weight, int(weight[cycle]))
                ctx.set(element.activation, int(activation[cycle]))
                ctx.set(element.valid, bool(valid[cycle]))
                ctx.set(element.clear, bool(clear[cycle]))
            else:
                ctx.set(element.valid, 0)
            seen.append(ctx.get(element.sum))
            await ctx.tick()

    simulator = Simulator(element)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return seen


@pytest.mark.parametrize("name", ["int8", "mixpe-a8"])
def test_a_sum_with_gaps_is_the_golden_one(name: str) -> None:
    spec = element_spec(name)
    rng = np.random.default_rng(1)
    count = 1500
    weight = rng.integers(0, 1 << spec.weight_bits, count)
    activation = rng.integers(0, 1 << spec.activation_bits, count)
    valid, clear = rng.random(count) < 0.8, rng.random(count) < 0.02
    valid[0] = clear[0] = True
    seen = simulate(make_element(spec), weight, activation, valid, clear)
    wanted = sums(spec, weight, activation, valid, clear)
    assert seen[spec.latency :] == wanted.tolist()


def test_an_accumulator_wraps() -> None:
    spec = element_spec("mixpe-a8").with_accumulator(13)
    count = 20
    weight, activation = np.full(count, 8), np.full(count, 0x80)
    clear = np.arange(count) == 0
    seen = simulate(make_element(spec), weight, activation, np.ones(count, bool), clear)
    assert seen[spec.latency : spec.latency + 5] == [1024, 2048, 3072, -4096, -3072]
    assert seen[spec.latency :] == sums(spec, weight, activation, True, clear).tolist()


@pytest.mark.parametrize("bits", [11, 65])
def test_an_accumulator_that_cannot_be_is_refused(bits: int) -> None:
    with pytest.raises(InputError, match="accumulator: expected 12 to 64 bits"):
        element_spec("mixpe-a8").with_accumulator(bits)


def test_an_unknown_element_is_refused() -> None:
    with pytest.raises(InputError, match="expected one of int8"):
        element_spec("abacus")


def test_the_registry_is_keyed_by_name() -> None:
    assert all(name == spec.name for name, spec in ELEMENTS.items())
