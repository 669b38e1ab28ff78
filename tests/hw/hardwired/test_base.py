"""Base netlists and metal programs: independence of weights, exactness, slack, and what does not fit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emulator.hardwired.metal import read_metal
from emulator.hardwired.weights import SmallWeights, synthetic
from hw.hardwired import adder_algebra
from hw.hardwired.adder_algebra import check_base_neuron, linear_form
from hw.hardwired.base import BaseNeuron, BaseSpec, build_base_neuron, plan_base
from hw.hardwired.base_verilog import metal_verilog
from hw.hardwired.metal import MetalProgram, fit
from hw.hardwired.netlist import Cell, CellKind, Netlist
from hw.spec.errors import CheckFailed, InputError
from sim_tests.hardwire_generate import check_program, generate, plan_for

SMALL = BaseSpec(inputs=40, outputs=3, magnitudes=(1, 3, 7), slices=6, slots=(3, 3, 2), taps=2)


def meaning(spec: BaseSpec, metal: MetalProgram) -> tuple[np.ndarray, np.ndarray]:
    return read_metal(
        metal.ports,
        metal.slots,
        metal.initial,
        slot_values=np.repeat(spec.magnitudes, spec.slots).tolist(),
        slice_ports=spec.slice_ports,
        inputs=spec.inputs,
        taps=spec.taps,
        digits=spec.schedule.cycles * spec.bits,
        result_bits=spec.result_bits,
        base_constant=build_base_neuron(spec, keep=False).constant,
    )


def test_two_matrices_have_the_same_silicon(tmp_path: Path) -> None:
    """The files of the base are equal byte for byte, those of the metal are not."""
    distribution = synthetic(8, 256, "mxfp4", seed=100)
    for seed in (1, 2):
        weights = synthetic(8, 256, "mxfp4", seed=seed)
        spec = plan_for(weights, distribution, taps=3)
        generate(weights, spec, tmp_path / str(seed))
    files = {
        name: [(tmp_path / str(seed) / name).read_bytes() for seed in (1, 2)]
        for name in ("base.v", "metal.v", "metal.npz")
    }
    assert files["base.v"][0] == files["base.v"][1]
    assert files["metal.v"][0] != files["metal.v"][1]
    assert files["metal.npz"][0] != files["metal.npz"][1]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("taps", [1, 2, 3])
def test_wires_spell_the_weights(bits: int, taps: int) -> None:
    rng = np.random.default_rng(bits + taps)
    for seed in range(3):
        weights = synthetic(5, 64 * (seed + 1), "mxfp4", seed=seed)
        exponents = rng.integers(-3, taps - 3, weights.exponents.shape)
        biases = rng.integers(-(2**15), 2**15, 5).tolist()
        spec = plan_base(64 * (seed + 1), 5, weights.shares(), taps=taps, bits=bits)
        metal = fit(spec, weights.values, exponents, biases)
        read, read_biases = meaning(spec, metal)
        assert np.array_equal(read, replace(weights, exponents=exponents).integers())
        assert read_biases.tolist() == biases
        assert metal.exponents.tolist() == exponents.min(axis=1).tolist()


def test_a_wrong_wire_is_found() -> None:
    weights = synthetic(4, 64, "mxfp4", seed=5)
    flat = replace(weights, exponents=np.zeros_like(weights.exponents))
    spec = plan_for(flat)
    metal = fit(spec, flat.values)
    assert check_program(spec, metal, flat) == 256
    used = np.argwhere(metal.ports)
    for row, port in used[::17].tolist():
        for line in (0, int(metal.ports[row, port]) ^ 1, 1):
            if line == metal.ports[row, port] or line > spec.lines:
                continue
            ports = metal.ports.copy()
            ports[row, port] = line
            with pytest.raises(CheckFailed, match="metal program"):
                check_program(spec, replace(metal, ports=ports), flat)
    for row, slot in np.argwhere(metal.slots)[::3].tolist():
        slots = metal.slots.copy()
        slots[row, slot] = 0
        with pytest.raises(CheckFailed, match="metal program: output"):
            check_program(spec, replace(metal, slots=slots), flat)
    ports = metal.ports.copy()
    ports[0, 0] = spec.lines + 1
    with pytest.raises(CheckFailed, match="a line that does not exist"):
        check_program(spec, replace(metal, ports=ports), flat)
    wrong = (metal.initial[0] ^ 1, *metal.initial[1:])
    with pytest.raises(CheckFailed, match="has a bias"):
        check_program(spec, replace(metal, initial=wrong), flat)


@pytest.mark.parametrize("bits, taps", [(1, 1), (1, 3), (2, 2), (4, 3), (8, 1)])
def test_the_neuron_is_proved(bits: int, taps: int) -> None:
    check_base_neuron(replace(SMALL, bits=bits, taps=taps))


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_the_proof_finds_changed_cells(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = replace(SMALL, bits=bits, taps=1)
    cells = len(build_base_neuron(spec).netlist.cells)
    for index in range(0, cells, 23):

        def broken(spec: BaseSpec, index: int = index) -> BaseNeuron:
            neuron = build_base_neuron(spec)
            cell = neuron.netlist.cells[index]
            others = (cell.inputs[-1], *cell.inputs[1:-1], cell.inputs[-1])[: len(cell.inputs)]
            kind = CellKind.NOT if cell.kind is CellKind.REGISTER else cell.kind
            changed = Cell(kind, (1,) if others == cell.inputs else others, cell.outputs)
            neuron.netlist.cells[index] = changed
            return neuron

        monkeypatch.setattr(adder_algebra, "build_base_neuron", broken)
        with pytest.raises((CheckFailed, StopIteration)):
            check_base_neuron(spec)


def test_linear_form_of_a_full_adder() -> None:
    netlist = Netlist()
    a, b, c = netlist.input("x", 3)
    total, carry = netlist.full_adder(a, netlist.invert(b), c)
    # a + (1 - b) + c
    assert linear_form(netlist, [total, carry], 1 << 8) == ({a: 1, b: 255, c: 1}, 1)
    with pytest.raises(CheckFailed, match="not twice that"):
        linear_form(netlist, [carry, total], 1 << 8)


def test_slack_at_the_size_of_gpt_oss() -> None:
    """At 2,880 inputs at most 15 % of the ports are unused, for any of several matrices of many rows."""
    shares = synthetic(64, 2880, "mxfp4", seed=9).shares()
    spec = plan_base(2880, 1000, shares, taps=4)
    for seed in range(3):
        weights = synthetic(1000, 2880, "mxfp4", seed=seed)
        report = fit(spec, weights.values, weights.exponents).report(spec)
        assert 0 < report["slack"] < 0.10
        assert report["ports_per_input"] < 1.0


@pytest.mark.parametrize("inputs", [1, 2, 8, 24, 100])
def test_a_plan_fits_short_rows(inputs: int) -> None:
    for seed in range(3):
        weights = synthetic(6, inputs, "mxfp4", seed=seed)
        flat = replace(weights, exponents=np.zeros_like(weights.exponents))
        spec = plan_for(flat)
        assert check_program(spec, fit(spec, flat.values), flat) == 6 * inputs


def small_weights(*counts: int) -> np.ndarray:
    """Rows with so many weights of 1, 3 and 7."""
    row = [1] * counts[0] + [-3] * counts[1] + [7] * counts[2]
    return np.array([row + [0] * (40 - len(row))] * 3)


@pytest.mark.parametrize(
    "weights, exponents, message",
    [
        (small_weights(1, 1, 17), None, "row 0: magnitude 7 needs 2"),
        (
            small_weights(17, 17, 1),
            None,
            "row 0: needs 5 slices of 16 ports, the base has 4; plan it",
        ),
        (np.full((3, 40), 2), None, "no region for magnitude 2; plan it"),
        (np.ones((3, 39)), None, "expected a shape of 3 by 40"),
        (
            small_weights(1, 1, 1),
            [[0, 0]] * 2 + [[5, 3]],
            "row 2: block scales are 2 binades apart",
        ),
        (small_weights(1, 1, 1), [[0] * 3] * 3, "blocks that divide 40 inputs"),
    ],
    ids=["slots", "slices", "alphabet", "shape", "scales", "blocks"],
)
def test_what_does_not_fit_is_refused_with_a_remedy(
    weights: np.ndarray, exponents: list[list[int]] | None, message: str
) -> None:
    spec = replace(SMALL, slices=4, slots=(3, 3, 1))
    with pytest.raises(InputError, match=message):
        fit(spec, weights, exponents)


def test_biases_that_do_not_fit() -> None:
    weights = small_weights(1, 1, 1)
    with pytest.raises(InputError, match="output 1: expected 16 bits, found 32768"):
        fit(SMALL, weights, None, [0, 32768, 0])
    with pytest.raises(InputError, match="expected 3, found 1"):
        fit(SMALL, weights, None, [0])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"inputs": 0}, "sizes of 1 or more"),
        ({"magnitudes": ()}, "1 to 32 magnitudes, found 0"),
        ({"magnitudes": tuple(range(1, 34))}, "found 33"),
        ({"magnitudes": (1, 1, 2)}, "different magnitudes"),
        ({"slots": (1, 2)}, "for each magnitude"),
        ({"bits": 3}, "1, 2, 4 or 8"),
    ],
)
def test_bases_that_make_no_sense(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(SMALL, **changes)


def test_a_plan_needs_shares() -> None:
    for shares in ({}, {0: 1.0}, {1: 0.7, 2: 0.6}):
        with pytest.raises(InputError, match="shares of magnitudes"):
            plan_base(64, 4, shares)


def test_metal_is_nothing_but_wires() -> None:
    weights = SmallWeights(small_weights(5, 4, 3), np.zeros((3, 1), np.int64), "test")
    metal = fit(SMALL, weights.values)
    body = metal_verilog(SMALL, metal, "m").split(");", 1)[1]
    assignments = [line for line in body.splitlines() if line.strip() not in {"", "endmodule"}]
    assert all(line.startswith("  assign ") for line in assignments)
    assert not any(operator in body for operator in "&|^~?")
