"""cocotb tests of hardwired operators, side by side in one top: results, gaps, stalls, throughput."""

import random
from typing import Any

import cocotb
import numpy as np

from emulator.hardwired.product import multiply
from sim_tests.packing import pack, unpack
from sim_tests.streams import FLOWING, PACES, Bench, Pace, parameters, seed

Vectors = list[list[int]]


class Case:
    """One operator of the top: its streams, and what it has to compute."""

    def __init__(self, name: str):
        described = parameters()["operators"][name]
        self.name = name
        self.weights = np.array(described["weights"])
        self.biases = np.array(described["biases"])
        self.cycles: int = described["cycles"]
        self.result_layout = [
            (str(k), described["result_bits"], True) for k in range(len(self.weights))
        ]
        self.layout = [(str(k), 8, True) for k in range(self.weights.shape[1])]

    def words(self, vectors: Vectors) -> list[int]:
        return [pack(self.layout, {str(k): x for k, x in enumerate(v)}) for v in vectors]

    def results(self, words: list[int]) -> Vectors:
        return [list(unpack(self.result_layout, word).values()) for word in words]

    def vectors(self, count: int) -> Vectors:
        rng = random.Random(f"{seed()} {self.name}")
        inputs = self.weights.shape[1]
        extremes = [[-128] * inputs, [127] * inputs, [0] * inputs, [-1] * inputs]
        # The largest and the smallest result that the first row can have.
        largest = [127 if weight > 0 else -128 for weight in self.weights[0].tolist()]
        extremes += [largest, [~x for x in largest]]
        return extremes + [
            [rng.randint(-128, 127) for _ in range(inputs)] for _ in range(count - len(extremes))
        ]

    def expected(self, vectors: Vectors) -> Vectors:
        return multiply(self.weights, vectors, self.biases).tolist()


async def run(dut: Any, count: int, gaps: Pace, stalls: Pace) -> dict[str, Any]:
    """Sends vectors to all operators at the same time and compares all results; returns the sinks."""
    bench = await Bench.start(dut)
    sinks = {}
    cases = [Case(name) for name in parameters()["operators"]]
    for case in cases:
        bench.source(f"{case.name}__i", pace=gaps).send(case.words(case.vectors(count)))
        sinks[case.name] = bench.sink(f"{case.name}__o", pace=stalls)
    for case in cases:
        got = case.results(await sinks[case.name].receive(count))
        wanted = case.expected(case.vectors(count))
        for index, (result, reference) in enumerate(zip(got, wanted, strict=True)):
            assert result == reference, f"{case.name}: vector {index}: {result}, not {reference}"
    await bench.cycles(40)
    for name, sink in sinks.items():
        assert len(sink.words) == count, f"{name}: a result came that was not asked for"
    return sinks


@cocotb.test()
@cocotb.parametrize(gaps=list(PACES), stalls=list(PACES))
async def results_are_exact(dut: Any, gaps: str, stalls: str) -> None:
    await run(dut, 20, PACES[gaps], PACES[stalls])


@cocotb.test()
async def takes_the_cycles_of_its_schedule(dut: Any) -> None:
    sinks = await run(dut, 12, FLOWING, FLOWING)
    for name, sink in sinks.items():
        cycles = Case(name).cycles
        steps = [
            later - earlier for earlier, later in zip(sink.cycles, sink.cycles[1:], strict=False)
        ]
        assert steps == [cycles] * 11, f"{name}: {steps}"


@cocotb.test()
async def a_reset_in_the_middle_of_a_vector_leaves_nothing_behind(dut: Any) -> None:
    bench = await Bench.start(dut)
    cases = [Case(name) for name in parameters()["operators"]]
    for case in cases:
        getattr(dut, f"{case.name}__i__valid").value = 1
        getattr(dut, f"{case.name}__o__ready").value = 1
        word = case.words([[-77] * len(case.layout)])[0]
        getattr(dut, f"{case.name}__i__payload").value = word
    await bench.cycles(4)
    dut.rst.value = 1
    await bench.cycles(1)
    await run(dut, 8, FLOWING, FLOWING)
