"""Compiled models on the simulated hardware: every retirement and every memory word as the emulator has them."""

import dataclasses
import functools
import random
from pathlib import Path

import numpy as np
import pytest

from hw.spec.instructions import Opcode, Unit, decode
from hw.spec.machine import MachineSpec, MemorySpec
from hw.spec.machine_file import load_machine
from hw.spec.machine_limits import check_machine
from hw.spec.program import Program
from mapping.attention_mask import AttentionMask, HeadMasks
from mapping.checkpoint import choose_recipe
from mapping.compiler import compile_model
from mapping.export import export_model
from mapping.frontend.model import load_model, synthetic_model
from mapping.recipe import load_recipe
from sim_tests.exactness import Request, compare, expect
from sim_tests.memory_agents import random_memory
from sim_tests.simulate import simulate

FIXTURES = Path(__file__).resolve().parents[1] / "tests" / "mapping" / "fixtures"
MODELS = {
    "odd": FIXTURES / "grouped_odd_f16",
    "opt": FIXTURES / "opt_f32",
    "odd opt": FIXTURES / "opt_odd_untied_f16",
    "pydoc-llama": "pydoc-llama",
}
PROMPT, GENERATED = 8, 8
CONTEXT = 32
EVERY_FORMAT = str(FIXTURES.parent / "every_format.yaml")
ENGINES = {"tiny": "native", "small": "cocotb"}
"""One build each, for all tests of this file; others are native."""
LIMIT = 20_000_000


@functools.cache
def _program(model: str, target: str, recipe: str) -> Program:
    return compile_model(
        load_model(MODELS[model]), load_machine(target), load_recipe(recipe), CONTEXT
    )


def _request(model: str, vocabulary: int) -> Request:
    rng = np.random.default_rng(len(model))
    return Request(tuple(rng.integers(0, vocabulary, PROMPT).tolist()), GENERATED)


def _timings(spec: MachineSpec, number: int) -> list[MemorySpec]:
    """The target's own timing, and others drawn at random: slow and fast, with many refreshes."""
    rng = random.Random(f"{spec.name} {number}")
    outstanding = spec.read_outstanding + spec.write_outstanding
    drawn = [
        random_memory(rng, spec.memory.words, spec.burst_beats, outstanding) for _ in range(number)
    ]
    return [spec.memory, *drawn]


def _check(model: str, target: str, recipe: str, timings: int) -> None:
    _check_program(_program(model, target, recipe), model, timings)


def _check_program(program: Program, model: str, timings: int) -> None:
    spec = program.machine
    request = _request(model, program.information["vocabulary_size"])
    cycles = set()
    for timing in _timings(spec, timings):
        result = simulate(
            spec,
            program,
            request.prompt,
            request.tokens,
            ENGINES.get(spec.name, "native"),
            memory_parameters=timing,
            limit=LIMIT,
        )
        machine = check_machine(dataclasses.replace(spec, memory=timing), "timing")
        timed = dataclasses.replace(program, machine=machine)
        comparison = compare(timed, expect(timed, request), result)
        assert comparison.equal, f"{timing}: {comparison.first_difference}"
        assert comparison.words_compared == spec.memory.words
        assert comparison.events_compared > 100 * (PROMPT + GENERATED)
        assert len(result.tokens) == PROMPT + GENERATED
        cycles.add(result.cycles)
    assert len(cycles) == 1 + timings, "the timing of the memory has no effect"


@pytest.mark.parametrize("recipe", ["w8a8", "w4a8"])
@pytest.mark.parametrize("target", list(ENGINES))
def test_odd_shapes(target: str, recipe: str) -> None:
    _check("odd", target, recipe, 3)


@pytest.mark.parametrize("model, recipe", [("opt", "w8a8"), ("odd opt", "w4a8")])
def test_opt(model: str, recipe: str) -> None:
    _check(model, "tiny", recipe, 1)


@pytest.mark.parametrize("target", list(ENGINES))
def test_bundled_model(target: str) -> None:
    _check("pydoc-llama", target, "w8a8", 0)


@pytest.mark.parametrize(
    "model, recipe",
    [("odd", EVERY_FORMAT), ("pydoc-llama", "w3a8"), ("pydoc-llama", "w4a8-8of16")],
    ids=["every format", "w3a8", "w4a8-8of16"],
)
def test_compressed_models(model: str, recipe: str) -> None:
    _check(model, "tiny-sparse", recipe, 0)


def test_attention_mask() -> None:
    """A prompt of several blocks, of which most are skipped, in fewer cycles than all of them take."""
    config = dataclasses.replace(
        load_model(MODELS["pydoc-llama"]).config, hidden_size=32, intermediate_size=48, layers=2, heads=2, kv_heads=1,
        head_dim=8, vocabulary_size=80,
    )  # fmt: skip
    spec, request = load_machine("tiny"), Request(tuple(7 * i % 80 for i in range(62)), 2)
    cycles = []
    for each in ((), ((8, 1, 2), (8, 0, 3)), ((8, 1, 2),), ((4, 0, 1),)):
        mask = HeadMasks(tuple(AttentionMask(*one) for one in each)) if each else None
        recipe = dataclasses.replace(load_recipe("w8a8"), attention_mask=mask)
        program = compile_model(synthetic_model(config), spec, recipe, 96)
        expected = expect(program, request)
        cycles.append(expected.cycles)
        if mask is None:
            continue
        result = simulate(spec, program, request.prompt, request.tokens, "native", limit=LIMIT)
        comparison = compare(program, expected, result)
        assert comparison.equal, f"{mask}: {comparison.first_difference}"
        assert comparison.events_compared > 5_000
        executed = {decode(Unit.LD, w)["opcode"] for w in program.instructions[Unit.LD]}
        assert Opcode.SKIP in executed and result.cycles == expected.cycles
    assert cycles[3] < cycles[2] < cycles[1] < cycles[0]


@pytest.mark.parametrize(
    "fields, recipe",
    [
        ({"logic_slots": 1, "logic_rows": 2}, "w8a8"),
        pytest.param({"logic_slots": 3}, "w4a8", marks=pytest.mark.slow),
        pytest.param(
            {"matrix_columns": 2, "logic_slots": 1, "logic_rows": 2}, "w4a8", marks=pytest.mark.slow
        ),
        pytest.param({"sparse": 1}, "w4a8-8of16", marks=pytest.mark.slow),
    ],
    ids=["two rows", "all with logic", "two columns", "sparse"],
)
def test_cascades_of_slices(fields: dict[str, int], recipe: str) -> None:
    """Products of two rows, of two columns, or alone in a slice; with slots that multiply in lookup tables."""
    spec = dataclasses.replace(load_machine("tiny"), matrix_element="dsp", **fields)
    machine = check_machine(dataclasses.replace(spec, name="slices"), "slices")
    program = compile_model(load_model(MODELS["odd"]), machine, load_recipe(recipe), CONTEXT)
    _check_program(program, "odd", 1)


@pytest.mark.parametrize("layout", ["awq-gemm", "mxfp4", "gptq"])
def test_quantized_checkpoints(layout: str, tmp_path: Path) -> None:
    """Integers of a checkpoint, with zero points as INT5, as FP4, and with inputs in activation order, just as they are."""
    export_model(
        load_model("pydoc-llama"), layout, tmp_path / "model", activation_order=layout == "gptq"
    )
    model, machine = load_model(tmp_path / "model"), load_machine("tiny-sparse")
    recipe = choose_recipe(None, model, machine).recipe
    _check_program(compile_model(model, machine, recipe, CONTEXT), "pydoc-llama", 0)
