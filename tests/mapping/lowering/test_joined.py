"""Gate and up projection as one matrix: fewer blocks, and the same tokens bit for bit."""

import dataclasses

import numpy as np
import pytest

from emulator.machine import Machine
from emulator.timing import TimingEngine
from hw.spec.machine import MachineSpec
from hw.spec.machine_file import load_machine
from hw.spec.program import Program
from mapping.compiler import compile_model, plan_model
from mapping.frontend.config import ModelConfig
from mapping.frontend.model import load_model, synthetic_model
from mapping.lowering import plan as planning
from mapping.lowering.joined import FIRST, SECOND
from mapping.lowering.plan import Plan
from mapping.recipe import load_recipe

# 24 outputs in blocks of 16: two blocks each, three together. Of two cores, each has as many.
CONFIG = dataclasses.replace(
    load_model("tinyllama-1.1b").config, hidden_size=32, intermediate_size=24, layers=3, heads=4, kv_heads=2,
    head_dim=8, vocabulary_size=80, maximum_positions=64,
)  # fmt: skip
SMALL = load_machine("small")
TWO = dataclasses.replace(SMALL, cores=2)
CASES = [(SMALL, CONFIG), (TWO, dataclasses.replace(CONFIG, intermediate_size=48))]
PROMPT, TOKENS = [3, 1, 4, 1, 5, 9, 2], 6


def run(program: Program, plan: Plan) -> tuple[np.ndarray, int, int]:
    """Keys and values of all layers, which depend on every product before them; bytes read, cycles."""
    machine = Machine(program)
    machine.run(PROMPT, TOKENS)
    timing = TimingEngine(program).run(len(PROMPT), TOKENS)
    words = plan.config.layers * plan.cache_stride
    used = slice(plan.cache, plan.cache + words)
    cache = np.stack([state.memory[used] for state in machine.states])
    return cache, timing.bytes_read, timing.cycles


@pytest.mark.parametrize("recipe", ["w8a8", "w4a8", "w3a8"])
@pytest.mark.parametrize("machine, config", CASES, ids=["one core", "two cores"])
def test_the_same_tokens_from_fewer_bytes(
    machine: MachineSpec, config: ModelConfig, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = synthetic_model(config)
    chosen = load_recipe(recipe)
    if recipe == "w3a8":
        machine = dataclasses.replace(machine, weight_formats=("INT8", "INT3"))
    together = plan_model(config, machine, chosen, 32)
    assert together.joined
    (segment,) = together.segments
    assert segment.streams[FIRST].blocks == 3
    assert SECOND not in segment.streams
    assert SECOND not in segment.offsets
    joined = run(compile_model(model, machine, chosen, 32), together)
    monkeypatch.setattr(planning, "join", lambda *_: None)
    alone = plan_model(config, machine, chosen, 32)
    assert not alone.joined
    apart = run(compile_model(model, machine, chosen, 32), alone)
    np.testing.assert_array_equal(joined[0], apart[0])
    assert len(np.unique(joined[0])) > 20
    assert joined[1] < apart[1]
    # Of matrices this small, the vector unit may take as long as what is saved, and begins earlier with two.
    assert joined[2] < 1.01 * apart[2]


def test_matrices_stay_apart_where_nothing_is_gained_or_formats_differ() -> None:
    even = dataclasses.replace(CONFIG, intermediate_size=32)
    assert not plan_model(even, SMALL, load_recipe("w8a8"), 32).joined
    # 20 outputs end inside a granule of the vector unit.
    odd = dataclasses.replace(CONFIG, intermediate_size=20)
    assert not plan_model(odd, SMALL, load_recipe("w8a8"), 32).joined
    recipe = load_recipe("w8a8")
    gate = dataclasses.replace(load_recipe("w4a8").weights)
    mixed = dataclasses.replace(recipe, overrides=((FIRST.join(["*.", ""]), gate),))
    plan = plan_model(CONFIG, SMALL, mixed, 32)
    assert not plan.joined
    assert set(plan.segments[0].streams) == set(plan.segments[0].matrices)


def test_weights_of_both_are_in_memory() -> None:
    """Every weight of both, found again in the image: the sums of magnitudes agree."""
    model = synthetic_model(CONFIG)
    plan = plan_model(CONFIG, SMALL, load_recipe("w8a8"), 32)
    image = compile_model(model, SMALL, load_recipe("w8a8"), 32).memory
    segment = plan.segments[0]
    joined = segment.streams[FIRST]
    at = segment.base + segment.offsets[FIRST]
    words = image[at : at + joined.words].reshape(-1).view(np.int8).astype(int)
    scales = joined.blocks * joined.parts[0].block_scale_words * SMALL.word_bytes
    found = np.abs(words[scales:]).sum() if joined.parts[0].tiles == 1 else None
    expected = 0
    for name in (FIRST, SECOND):
        weight = model.tensor(f"layers.0.{name}")
        scale = np.abs(weight).max(axis=1, keepdims=True) / 127
        expected += np.abs(np.rint(weight / scale)).sum()
    assert found is not None
    assert found == pytest.approx(expected, rel=0.03)
