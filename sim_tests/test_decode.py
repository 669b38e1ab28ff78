"""What decoding needs of the chip: nothing but keys and values leaves it, and weights are taken faster than they come."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from emulator import sequencer
from hw.spec.instructions import LOOP_DEPTH, Opcode, Pattern, Unit, decode
from hw.spec.machine import MachineSpec
from hw.spec.machine_file import load_machine
from hw.spec.program import Program
from hw.spec.weight_format import KEPT, StepFormat, WeightFormat
from mapping.compiler import compile_instructions, compile_model, plan_model
from mapping.frontend.model import load_model, synthetic_model
from mapping.lowering.plan import Plan
from mapping.recipe import load_recipe
from sim_tests.exactness import Request, entries_of, entry_registers, expect
from sim_tests.instruction_text import evaluate_operation

PROMPT, GENERATED = (3, 1, 4, 1, 5), 20
CONFIG = dataclasses.replace(
    load_model("tinyllama-1.1b").config, hidden_size=32, intermediate_size=48, layers=2, heads=4, kv_heads=2,
    head_dim=8, vocabulary_size=80, maximum_positions=64,
)  # fmt: skip
SMALL = load_machine("small")
TWO = dataclasses.replace(SMALL, cores=2)
SCALE_BYTES = 4


def operations(program: Program, unit: Unit, request: Request) -> Iterator[dict[str, int]]:
    """Operands of every EXECUTE of a unit, in order, of a program whose lengths do not depend on tokens."""
    for entry in entries_of(program, unit, request, request.steps):
        word = program.instructions[unit][int(entry[sequencer.PC])]
        if word & 0xF != Opcode.EXECUTE:
            continue
        registers = entry_registers(entry, request)
        indices = entry[sequencer.INDEX : sequencer.INDEX + LOOP_DEPTH]
        yield evaluate_operation(unit, decode(unit, word), indices.tolist(), registers)


@pytest.mark.parametrize("machine", [SMALL, TWO], ids=["one core", "two cores"])
def test_only_keys_and_values_leave_the_chip(machine: MachineSpec) -> None:
    recipe = load_recipe("w8a8")
    plan = plan_model(CONFIG, machine, recipe, 32)
    program = compile_model(synthetic_model(CONFIG), machine, recipe, 32)
    request = Request(PROMPT, GENERATED)
    expected = expect(program, request)
    stored = list(operations(program, Unit.ST, request))
    # What is retired beside them writes nothing.
    written = np.count_nonzero(expected.trace[Unit.ST]["checksum"])
    assert len(stored) == written > GENERATED
    end = plan.cache + CONFIG.layers * plan.cache_stride
    for store in stored:
        words = {Pattern.COLUMN: 2 * store["steps"], Pattern.SPREAD: 2}
        first = store["address"]
        last = (
            first + (store["rows"] - 1) * store["pitch"] + words.get(Pattern(store["pattern"]), 1)
        )
        assert plan.cache <= first and last <= end
    # And not more than they are: a byte an element, and the scale of each.
    tokens = len(PROMPT) + GENERATED - 1
    most = CONFIG.layers * tokens * plan.kv_heads * 2 * (CONFIG.head_dim + SCALE_BYTES)
    for core in expected.cores:
        changed = core.memory[plan.cache : end]
        assert most // 2 < np.count_nonzero(changed) <= most
        assert not core.memory[end:].any()
    images = program.memory if program.memory.ndim == 3 else program.memory[None]
    for core, image in zip(expected.cores, images, strict=True):
        assert np.array_equal(core.memory[: len(image)], image)


def consumption(plan: Plan) -> float:
    """Words of weights, metadata and scales that the matrix engine takes a cycle, over all products of a decode step.

    Of blocks that take as long as their steps, or as long as the block before drains if that is more.
    """
    spec, program = plan.spec, compile_instructions(plan)
    words = cycles = 0
    for product in operations(program, Unit.MPE, Request((1,), 1)):
        if not product["pop"]:
            continue
        step = StepFormat(
            WeightFormat(product["format"]), KEPT[product["kept"]], bool(product["bitmap"])
        )
        steps, blocks = product["steps"], product["blocks"]
        words += blocks * step.block_words(steps)
        if product["scaled"]:
            words += blocks * steps // product["group_steps"]
        cycles += blocks * max(steps * step.cycles, spec.drain_cycles)
    return words / cycles


@pytest.mark.parametrize("recipe", ["flightllm-artifact", "flightllm-paper", "w4a8-g128"])
def test_weights_are_taken_faster_than_they_come(recipe: str) -> None:
    """The ports bring a word a cycle at most; the engine takes at least 1.25, at the recipe's mixture of widths."""
    spec = load_machine("u280")
    plan = plan_model(load_model("llama-2-7b").config, spec, load_recipe(recipe), 1024)
    assert consumption(plan) >= 1.25
