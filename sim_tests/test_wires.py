"""Whole models in wires: the token loop on the simulated hardware, event by event as the emulator has it."""

import re
from pathlib import Path

import numpy as np
import pytest

from emulator.text import ProgramText
from hw.spec.machine_file import load_machine
from hw.spec.program import Program
from hw.spec.wires import WiredMatrix
from mapping.compiler import compile_model
from mapping.frontend.model import load_model
from mapping.recipe import load_recipe
from sim_tests.exactness import Request, compare, expect
from sim_tests.hardwire_model import generate_model, plan_bases
from sim_tests.simulate import simulate

FIXTURES = Path(__file__).resolve().parents[1] / "tests" / "mapping" / "fixtures"
LIMIT = 2_000_000
LEAST_WEIGHTS = 100_000


def compiled(model: str | Path) -> Program:
    return compile_model(
        load_model(model), load_machine("hardwired-tiny"), load_recipe("w4a8-channel")
    )


def wires_of(program: Program) -> tuple[WiredMatrix, ...]:
    assert program.wires is not None
    return program.wires.matrices


def equal(program: Program, request: Request) -> list[int]:
    """Run on hardware and emulator, compare everything; the generated tokens of the hardware."""
    expected = expect(program, request)
    result = simulate(
        program.machine, program, request.prompt, request.tokens, "native", limit=LIMIT
    )
    comparison = compare(program, expected, result)
    assert comparison.equal, comparison.first_difference
    assert comparison.words_compared == program.machine.memory.words
    assert comparison.events_compared > 50 * (len(request.prompt) + request.tokens - 1)
    assert result.cycles == expected.cycles
    return result.tokens[len(request.prompt) :].tolist()


def test_odd_shapes() -> None:
    program = compiled(FIXTURES / "grouped_odd_f16")
    rng = np.random.default_rng(1)
    prompt = tuple(rng.integers(0, program.information["vocabulary_size"], 7).tolist())
    assert len(equal(program, Request(prompt, 6))) == 6


@pytest.mark.slow
def test_bundled_model() -> None:
    """At least 100,000 hardwired weights write what the emulator writes, and it is text."""
    program = compiled("pydoc-wires")
    assert program.information["hardwired_weights"] >= LEAST_WEIGHTS
    text = ProgramText(program, "pydoc-wires")
    tokens = equal(program, Request(tuple(text.encode("The function ")), 16))
    written = text.decode(tokens)
    assert written is not None and re.search(r"[a-z]{3}", written)


@pytest.mark.slow
def test_base_netlists_and_metal_programs_are_the_bundled_model(tmp_path: Path) -> None:
    program = compiled("pydoc-wires")
    reports = generate_model(program, tmp_path / "metal")
    assert sum(report["weights_proved"] for report in reports) == sum(
        m.values.size for m in wires_of(program)
    )
    assert len(reports) == len(program.machine.wired_matrices)


def test_base_netlists_of_one_shape_are_the_same_to_the_byte(tmp_path: Path) -> None:
    program = compiled(FIXTURES / "grouped_odd_f16")
    reports = generate_model(program, tmp_path / "metal")
    bases: dict[str, set[bytes]] = {}
    metals: dict[str, set[bytes]] = {}
    for report in reports:
        folder = tmp_path / "metal" / report["matrix"]
        bases.setdefault(report["shape"], set()).add((folder / "base.v").read_bytes())
        metals.setdefault(report["shape"], set()).add((folder / "metal.v").read_bytes())
        assert report["weights_proved"] == report["inputs"] * report["outputs"]
    assert len(bases) == len(plan_bases(program)) and all(len(same) == 1 for same in bases.values())
    assert any(len(different) > 1 for different in metals.values())
