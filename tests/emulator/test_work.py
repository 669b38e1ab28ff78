"""Where cycles go: the critical chain adds up, the kinds of work are those of the program, bounds are bounds."""

import functools
from pathlib import Path

import numpy as np
import pytest

from emulator.explain import write_explanation
from emulator.report import multiplications
from emulator.roofline import Phase, phases, plot_roofline
from emulator.timing import RECORD_END, RECORD_ISSUE, TimingEngine
from emulator.work import ISSUING, Work, critical_chain, waits_for, work_table
from hw.spec.instructions import Opcode, Unit, encode
from hw.spec.machine_file import load_machine
from hw.spec.program import Program
from mapping.compiler import compile_model
from mapping.frontend.model import load_model
from mapping.recipe import load_recipe

FIXTURES = Path(__file__).parents[1] / "mapping" / "fixtures"


@functools.cache
def program(target: str, recipe: str = "w4a8") -> Program:
    model = load_model(FIXTURES / "linear_untied_f32")
    return compile_model(model, load_machine(target), load_recipe(recipe), 64)


LENGTHS = [(1, 1), (5, 3), (1, 20)]


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("target", ["tiny", "small"])
def test_the_critical_chain_adds_up_to_the_run(target: str, lengths: tuple[int, int]) -> None:
    result = TimingEngine(program(target)).run(*lengths, record=True)
    chain = critical_chain(program(target), result)
    assert sum(chain.values()) == result.cycles
    assert all(cycles > 0 for cycles in chain.values() if cycles) and min(chain.values()) >= 0
    for (unit, kind), cycles in chain.items():
        if kind != ISSUING:
            assert cycles <= sum(
                row.busy for row in work_table(program(target), result) if row.unit == unit
            )


@pytest.mark.parametrize("target", ["tiny", "small"])
def test_the_table_accounts_for_every_instruction_and_cycle(target: str) -> None:
    result = TimingEngine(program(target)).run(5, 3, record=True)
    table = work_table(program(target), result)
    waits = waits_for(program(target), result)
    for unit in Unit:
        rows = [row for row in table if row.unit == unit]
        assert sum(row.instructions for row in rows) == result.instructions[unit]
        assert sum(row.busy for row in rows) == result.busy[unit]
        assert sum(row.waited for row in rows) == result.waited[unit]
        assert (
            sum(cycles for (waiter, _), cycles in waits.items() if waiter == unit)
            == result.waited[unit]
        )
    assert sum(row.critical for row in table) == result.cycles


def test_kinds_of_work() -> None:
    table = {
        (row.unit, row.kind): row
        for row in work_table(program("tiny"), TimingEngine(program("tiny")).run(5, 3, record=True))
    }

    def instructions(unit: Unit, kind: str) -> int:
        return table[unit, kind].instructions

    steps, layers, heads, kv_heads = 7, 2, 4, 2
    assert instructions(Unit.SYS, "next token") == steps + 1
    assert instructions(Unit.LD, "embedding, to the vector unit") == steps
    assert instructions(Unit.LD, "rope, to the vector unit") == steps
    assert instructions(Unit.ST, "keys") == steps * layers
    assert instructions(Unit.ST, "values") == steps * layers
    assert instructions(Unit.MPE, "queries x keys") % (steps * layers * kv_heads) == 0
    assert instructions(Unit.MPE, "probabilities x values") >= steps * layers * heads // kv_heads
    assert instructions(Unit.SFU, "arg-max") >= 3
    assert instructions(Unit.SFU, "exponential2") > 0
    assert {"weights, INT4", "output head, INT8"} <= {
        kind for unit, kind in table if unit == Unit.MPE
    }


def test_a_chain_by_hand() -> None:
    """LD loads, MPE waits for it, LD waits for MPE: two hand-overs, each on the chain."""
    spec = load_machine("tiny")
    ld = [
        encode(Unit.LD, Opcode.SYNC, signal=1 << Unit.MPE),
        encode(Unit.LD, Opcode.SYNC, wait=1 << Unit.MPE),
        encode(Unit.LD, Opcode.HALT),
    ]
    mpe = [
        encode(Unit.MPE, Opcode.SYNC, wait=1 << Unit.LD, signal=1 << Unit.LD),
        encode(Unit.MPE, Opcode.HALT),
    ]
    words = {unit: [encode(unit, Opcode.HALT)] for unit in Unit} | {Unit.LD: ld, Unit.MPE: mpe}
    handed = Program(spec, words, np.zeros((0, spec.word_bytes), np.uint8))
    result = TimingEngine(handed).run(1, 1, record=True)
    chain = critical_chain(handed, result)
    assert sum(chain.values()) == result.cycles
    # Every SYNC lasts a cycle; two of LD and one of MPE follow from each other.
    assert chain[Unit.LD, "tokens only"] == 2
    assert chain[Unit.MPE, "tokens only"] == 1
    first, second = result.records[Unit.LD]
    (middle,) = result.records[Unit.MPE]
    assert first[RECORD_END] < middle[RECORD_ISSUE] < middle[RECORD_END] < second[RECORD_ISSUE]


def test_bounds_are_below_what_is_emulated() -> None:
    for target in ("tiny", "small"):
        prefill, decode, whole = phases(program(target), 6, 4)
        assert (prefill.name, decode.name, whole.name) == ("prefill", "decode", "whole run")
        assert whole.cycles == prefill.cycles + decode.cycles
        assert whole.macs == prefill.macs + decode.macs
        assert whole.bytes == prefill.bytes + decode.bytes
        spec = program(target).machine
        for phase in (prefill, decode, whole):
            assert phase.bandwidth_bound == -(-phase.bytes // spec.word_bytes)
            assert phase.compute_bound == -(-phase.macs // spec.multipliers)
            assert 0 < phase.bandwidth_bound < phase.cycles
            assert 0 < phase.compute_bound < phase.cycles
    assert [phase.name for phase in phases(program("tiny"), 6, 1)] == ["prefill"]


def test_multiplications_are_those_of_the_model_with_its_padding() -> None:
    model = load_model(FIXTURES / "linear_untied_f32").config
    matrices = (
        model.hidden_size
        * (2 * model.query_width + 2 * model.key_width + 3 * model.intermediate_size)
        * model.layers
    )
    counted = multiplications(program("tiny"), 4, 1)
    head = model.hidden_size * model.vocabulary_size
    assert 4 * matrices + head < counted < 6 * (4 * matrices + head)
    # A step more is one of every layer, and the head.
    assert multiplications(program("tiny"), 4, 2) - counted > matrices + head


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_roofline_is_drawn(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"roof.{suffix}"
    points = [Phase("one", 1000, 100, 500, 10, 10), Phase("two", 9000, 100, 500, 10, 10)]
    plot_roofline(load_machine("tiny"), points, path)
    begins = {"png": b"\x89PNG", "svg": b"<?xml"}[suffix]
    assert path.read_bytes().startswith(begins)
    assert list(tmp_path.iterdir()) == [path]


def test_an_explanation_leaves_what_it_says(tmp_path: Path) -> None:
    written = write_explanation(program("tiny"), 3, 2, tmp_path / "out")
    assert sorted(written) == sorted(path.name for path in (tmp_path / "out").iterdir())
    assert all(text for text in written.values())


def test_rows_of_a_unit_come_with_the_longest_on_the_chain_first() -> None:
    table: list[Work] = work_table(
        program("small"), TimingEngine(program("small")).run(2, 2, record=True)
    )
    for unit in Unit:
        critical = [row.critical for row in table if row.unit == unit and row.kind != ISSUING]
        assert critical == sorted(critical, reverse=True)
