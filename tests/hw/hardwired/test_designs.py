"""Every design of a hardwired matrix against one integer product: exhaustive where small, random where large."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from emulator.hardwired.product import multiply
from hw.hardwired.designs import DESIGNS
from hw.hardwired.netlist import Cell, CellKind
from hw.hardwired.operator import Operator, OperatorSpec, result_range
from hw.spec.errors import InputError
from sim_tests.gate_simulation import GateSimulation, run_operator

MXFP4 = [0, 1, 2, 3, 4, 6, 8, 12, -1, -2, -3, -4, -6, -8, -12]
ALPHABETS = {
    "mxfp4": MXFP4,
    "int4": list(range(-8, 8)),
    "int3": list(range(-4, 4)),
    "ternary": [-1, 0, 1],
    "odd": [5, -7, 11, 13, -27, 100],
}


def make_spec(
    weights: Sequence[Sequence[int]], biases: Sequence[int] = (), bits: int = 1
) -> OperatorSpec:
    return OperatorSpec(tuple(map(tuple, weights)), tuple(biases), bits)


def random_spec(seed: int, alphabet: str, outputs: int, inputs: int, bits: int) -> OperatorSpec:
    rng = np.random.default_rng(seed)
    weights = rng.choice(ALPHABETS[alphabet], (outputs, inputs)).tolist()
    return make_spec(weights, rng.integers(-900, 900, outputs).tolist(), bits)


def every_pair() -> npt.NDArray[np.int64]:
    numbers = np.arange(-128, 128)
    return np.stack(np.meshgrid(numbers, numbers), axis=-1).reshape(-1, 2)


@pytest.mark.parametrize("name", list(DESIGNS))
def test_two_inputs_exhaustively(name: str) -> None:
    """Pairs of MXFP4 weights in which every weight occurs, and all pairs of INT8 inputs."""
    rows = [(weight, MXFP4[(4 * place + 5) % 15]) for place, weight in enumerate(MXFP4)]
    spec = make_spec(rows)
    vectors = every_pair()
    got = run_operator(DESIGNS[name].build(spec, True), vectors)
    assert np.array_equal(got, multiply(spec.weights, vectors))


@pytest.mark.parametrize("name", list(DESIGNS))
@pytest.mark.parametrize("alphabet", list(ALPHABETS))
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_random_matrices(name: str, alphabet: str, bits: int) -> None:
    for seed, (outputs, inputs) in enumerate([(1, 1), (5, 3), (3, 40)]):
        spec = random_spec(seed, alphabet, outputs, inputs, bits)
        operator = DESIGNS[name].build(spec, True)
        vectors = np.random.default_rng(seed).integers(-128, 128, (130, inputs))
        # Extremes of the first output, and of the inputs.
        low, high = result_range(spec.weights[0], spec.bias(0))
        vectors[0] = np.where(np.array(spec.weights[0]) > 0, -128, 127)
        vectors[1] = np.where(np.array(spec.weights[0]) > 0, 127, -128)
        vectors[2], vectors[3] = -128, 127
        wanted = multiply(spec.weights, vectors, spec.biases)
        assert (wanted[0, 0], wanted[1, 0]) == (low, high)
        # One simulation goes on from vector to vector: nothing of the one before may be left.
        simulation = GateSimulation(operator.netlist, len(vectors))
        for shift in range(3):
            got = run_operator(operator, np.roll(vectors, shift, axis=0), simulation)
            assert np.array_equal(got, np.roll(wanted, shift, axis=0))


@pytest.mark.parametrize("name", list(DESIGNS))
def test_rows_without_weights(name: str) -> None:
    spec = make_spec([[0, 0, 0], [0, -1, 0], [0, 0, 0]], [0, 0, -5])
    operator = DESIGNS[name].build(spec, True)
    vectors = np.array([[-128, -128, -128], [127, 127, 127], [3, 4, 5]])
    assert np.array_equal(
        run_operator(operator, vectors), multiply(spec.weights, vectors, [0, 0, -5])
    )


@pytest.mark.parametrize("name", list(DESIGNS))
def test_counting_without_building_counts_the_same(name: str) -> None:
    for seed, alphabet in enumerate(ALPHABETS):
        for bits in (1, 4):
            spec = random_spec(seed, alphabet, 4, 19, bits)
            built, counted = (DESIGNS[name].build(spec, keep).netlist for keep in (True, False))
            assert counted.cells == []
            assert counted.counts() == built.counts()


def test_counts_are_those_of_the_cells() -> None:
    netlist = DESIGNS["neuron"].build(random_spec(1, "mxfp4", 3, 30, 1), True).netlist
    kinds = [cell.kind for cell in netlist.cells]
    counts = netlist.counts()
    assert counts.full_adders == kinds.count(CellKind.FULL_ADDER)
    assert counts.registers == kinds.count(CellKind.REGISTER)
    halves = kinds.count(CellKind.HALF_ADDER) + kinds.count(CellKind.HALF_ADDER_ONE)
    assert counts.half_adders == halves


def test_a_changed_cell_is_found() -> None:
    """Each kind of change of one cell somewhere in a network changes a result."""
    # Without biases: the register of a positive one is as after a clear when a vector has passed.
    spec = replace(random_spec(2, "mxfp4", 2, 6, 1), biases=())
    vectors = np.random.default_rng(0).integers(-128, 128, (200, 6))
    wanted = multiply(spec.weights, vectors)

    def wrong(operator: Operator) -> bool:
        simulation = GateSimulation(operator.netlist, len(vectors))
        return any(
            not np.array_equal(run_operator(operator, vectors, simulation), wanted)
            for _ in range(2)
        )

    # Not multiply_select: what its ROM does not select may be anything.
    for name in ("cell", "merged", "neuron", "adder_graph", "memory_mac"):
        operator = DESIGNS[name].build(spec, True)
        cells = operator.netlist.cells
        found = tried = 0
        for index in range(0, len(cells), 7):
            cell = cells[index]
            changed = _changed(cell)
            if changed is None:
                continue
            cells[index] = changed
            tried += 1
            found += wrong(operator)
            cells[index] = cell
        # What is not found: carries and sums of which nothing depends, at the top of numbers.
        assert tried > 5
        assert not wrong(operator)
        assert found >= 0.85 * tried, (name, found, tried)


def _changed(cell: Cell) -> Cell | None:
    others = {
        CellKind.FULL_ADDER: (CellKind.HALF_ADDER, cell.inputs[:2]),
        CellKind.HALF_ADDER: (CellKind.HALF_ADDER_ONE, cell.inputs),
        CellKind.HALF_ADDER_ONE: (CellKind.HALF_ADDER, cell.inputs),
        CellKind.AND: (CellKind.OR, cell.inputs),
        CellKind.XOR: (CellKind.OR, cell.inputs),
        CellKind.CLEARED: (CellKind.REGISTER, cell.inputs),
        CellKind.PRESET: (CellKind.CLEARED, cell.inputs),
    }
    if cell.kind not in others:
        return None
    kind, inputs = others[cell.kind]
    return Cell(kind, inputs, cell.outputs)


def test_wanted_ratio_of_cell_embedding_to_neuron() -> None:
    """At 1,024 inputs at least ten times the area, in structural counts."""
    rng = np.random.default_rng(5)
    weights = rng.choice(MXFP4, (4, 1024)).tolist()
    spec = make_spec(weights)
    areas = {n: DESIGNS[n].build(spec, False).netlist.counts().area for n in ("cell", "neuron")}
    assert areas["cell"] / areas["neuron"] > 10


@pytest.mark.parametrize(
    "weights, biases, bits, message",
    [
        ([], [], 1, "at least one row"),
        ([[1, 2], [3]], [], 1, "rows of one length"),
        ([[1, 2]], [1, 2], 1, "biases: expected one for each of 1"),
        ([[1, 2]], [], 3, "expected 1, 2, 4 or 8"),
        ([list(range(40))], [], 1, "at most 32 different magnitudes, found 39"),
    ],
)
def test_specs_that_make_no_sense(
    weights: list[list[int]], biases: list[int], bits: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make_spec(weights, biases, bits)
