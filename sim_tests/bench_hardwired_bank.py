"""cocotb tests of a bank of hardwired matrices, against the integer product."""

import random
from typing import Any

import cocotb

from emulator.hardwired.product import multiply
from sim_tests.packing import pack, unpack
from sim_tests.streams import FLOWING, PACES, Bench, parameters, seed


def beats_of(matrix: int, vector: list[int], lanes: int) -> list[int]:
    """A vector as words of the input stream; lanes without an element hold anything."""
    rng = random.Random(str(vector))
    layout = [("matrix", parameters()["select_bits"], False)]
    layout += [(str(k), 8, True) for k in range(lanes)]
    words = []
    for begin in range(0, len(vector), lanes):
        part = vector[begin : begin + lanes]
        part += [rng.randint(-128, 127) for _ in range(lanes - len(part))]
        fields = {"matrix": matrix} | {str(k): x for k, x in enumerate(part)}
        words.append(pack(layout, fields))
    return words


def results_of(words: list[int], outputs: int) -> list[int]:
    layout = [
        (str(k), parameters()["result_bits"], True) for k in range(parameters()["result_lanes"])
    ]
    lanes = [value for word in words for value in unpack(layout, word).values()]
    assert not any(lanes[outputs:]), "a lane without an output is not 0"
    return lanes[:outputs]


@cocotb.test()
@cocotb.parametrize(gaps=list(PACES), stalls=list(PACES))
async def products_are_exact_and_in_order(dut: Any, gaps: str, stalls: str) -> None:
    rng = random.Random(seed())
    lanes, result_lanes = parameters()["lanes"], parameters()["result_lanes"]
    matrices = parameters()["matrices"]
    bench = await Bench.start(dut)
    source = bench.source("i", pace=PACES[gaps])
    sink = bench.sink("o", pace=PACES[stalls])
    wanted = []
    for _ in range(60):
        # Often the same matrix again, so that vectors follow each other in it.
        matrix = rng.randrange(len(matrices)) if rng.random() < 0.5 or not wanted else wanted[-1][0]
        weights, biases = matrices[matrix]["weights"], matrices[matrix]["biases"]
        vector = [rng.randint(-128, 127) for _ in weights[0]]
        source.send(beats_of(matrix, vector, lanes))
        wanted.append((matrix, multiply(weights, vector, biases).tolist()))
    for number, (matrix, result) in enumerate(wanted):
        words = await sink.receive(-(-len(result) // result_lanes))
        assert results_of(words, len(result)) == result, f"vector {number}, matrix {matrix}"
    await bench.cycles(60)
    assert len(sink.words) == sum(-(-len(r) // result_lanes) for _, r in wanted)


@cocotb.test()
async def latency_is_that_of_the_spec(dut: Any) -> None:
    for index, matrix in enumerate(parameters()["matrices"]):
        bench = await Bench.start(dut)
        source, sink = bench.source("i"), bench.sink("o", pace=FLOWING)
        source.send(beats_of(index, [1] * len(matrix["weights"][0]), parameters()["lanes"]))
        await sink.receive(1)
        assert sink.cycles[0] - source.cycles[0] == matrix["latency"]
