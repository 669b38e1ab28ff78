"""A processor whose repeated components are instances of shared modules: as exact as one that is elaborated in full."""

import dataclasses

import pytest

from hw.spec.machine_file import load_machine
from sim_tests.exactness import Request, compare, expect
from sim_tests.simulate import simulate, simulation_netlist
from sim_tests.token_program import TokenProgram


def test_shared_modules_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    # So small a machine would share nothing; under another name it has a build of its own.
    monkeypatch.setattr("hw.sharing.MANY", 2)
    spec = dataclasses.replace(load_machine("two-core"), name="two-core-shared")
    netlist = simulation_netlist(spec)
    for kind in ("core", "matrix_row", "matrix_scaler", "vector_lane"):
        assert netlist.count(f"\nmodule lpu_{kind}(") == 1
    # Of the rows, the scalers and the lanes; the cores keep what is under way on the bus.
    assert netlist.count(".rst(run_rst)") == 2 * spec.matrix_rows + spec.lanes
    program = TokenProgram(spec)
    request = Request((3, 1, 2), 4)
    result = simulate(spec, program.program, request.prompt, request.tokens)
    comparison = compare(program.program, expect(program.program, request), result)
    assert comparison.equal, comparison.first_difference
    assert list(result.tokens) == program.tokens([3, 1, 2], 4)
