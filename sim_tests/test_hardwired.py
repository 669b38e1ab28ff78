"""Runs all designs of a hardwired matrix in Verilator, side by side in few tops, and proves them with Yosys."""

from collections.abc import Mapping

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Out, connect, flipped

from hw.hardwired.designs import DESIGNS
from hw.hardwired.frame import FrameSpec, HardwiredFrame
from hw.hardwired.operator import Operator, OperatorSpec
from hw.hardwired.verilog import LUT_MODEL, Adders, netlist_verilog
from hw.verilog import convert
from sim_tests.bench import run_bench

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


def run_side_by_side(name: str, operators: Mapping[str, Operator], adders: Adders) -> int:
    """Results, stalls and throughput of operators in one simulation; returns the number of tests."""
    frames = {
        key: HardwiredFrame(FrameSpec.of(operator, f"{key}_core"))
        for key, operator in operators.items()
    }
    verilog = convert(SideBySide(frames), "top")
    for key, operator in operators.items():
        verilog += netlist_verilog(operator.netlist, f"{key}_core", adders)
    if adders is Adders.LUT6_2:
        verilog += LUT_MODEL.read_text()
    described = {
        key: {
            "weights": operator.spec.weights,
            "biases": operator.spec.biases or [0] * operator.spec.outputs,
            "cycles": operator.schedule.cycles,
            "result_bits": operator.spec.result_bits,
        }
        for key, operator in operators.items()
    }
    parameters = {"operators": described}
    return run_bench(name, verilog, "sim_tests.bench_hardwired", parameters=parameters).tests


@pytest.mark.parametrize(
    "alphabet, bits, adders",
    [("mxfp4", 1, Adders.EQUATIONS), ("int4", 4, Adders.LUT6_2), ("ternary", 2, Adders.EQUATIONS)],
    ids=["mxfp4", "int4-digits-lut6_2", "ternary-digits"],
)
def test_all_designs_on_streams(alphabet: str, bits: int, adders: Adders) -> None:
    spec = random_spec(3, alphabet, 3, 11, bits)
    operators = {name: design.build(spec, True) for name, design in DESIGNS.items()}
    assert run_side_by_side(f"hardwired_{alphabet}", operators, adders) == 11
