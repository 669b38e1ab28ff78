"""Programs of one length: they compute what the one program computes, and are counted as long as they are."""

import dataclasses
import functools
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from emulator.machine import Machine
from hw.spec.code_section import pack_code
from hw.spec.errors import InputError
from hw.spec.instructions import Opcode, Unit, decode, encode
from hw.spec.machine_file import load_machine
from hw.spec.program import Program
from mapping.attention_mask import AttentionMask, HeadMasks
from mapping.compiler import compile_model
from mapping.frontend import load_model
from mapping.lengths import length_modes
from mapping.lengths_cli import lengths_command
from mapping.lowering.assembler import Assembler, fixed, tiled
from mapping.recipe import load_recipe
from mapping.straight import StraightCount, straight_words

FIXTURES = Path(__file__).parent / "fixtures"
CASES = [
    ("grouped_odd_f16", "tiny", "w4a8"),
    ("linear_untied_f32", "small", "w8a8"),
    ("opt_f32", "small", "w8a8"),
    ("linear_untied_f32", "small", "masked"),
]
"""Prefill by the decode program, in chunks, and with an attention mask."""
MASKED = replace(load_recipe("w8a8"), attention_mask=HeadMasks((AttentionMask(16, 1, 1),)))


@functools.cache
def compiled(name: str, target: str, recipe: str) -> Program:
    model = load_model(FIXTURES / name)
    chosen = MASKED if recipe == "masked" else load_recipe(recipe)
    return compile_model(model, load_machine(target), chosen, 48)


def straight(program: Program, prompt: int, tokens: int) -> dict[Unit, list[int]]:
    return {
        unit: straight_words(unit, words, prompt, tokens)
        for unit, words in program.instructions.items()
    }


def size(instructions: dict[Unit, list[int]]) -> int:
    return sum(len(pack_code(unit, words)) for unit, words in instructions.items())


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_a_program_of_one_length_generates_the_same_tokens(case: tuple[str, str, str]) -> None:
    program = compiled(*case)
    wide = dataclasses.replace(program.machine, instructions=1 << 16)
    for prompt, tokens in ((1, 3), (8, 2), (11, 4), (40, 2)):
        ids = [(7 * i + 3) % program.information["vocabulary_size"] for i in range(prompt)]
        own = dataclasses.replace(
            program, machine=wide, instructions=straight(program, prompt, tokens)
        )
        expected, _ = Machine(program, trace=False).run(ids, tokens)
        found, _ = Machine(own, trace=False).run(ids, tokens)
        length = prompt + tokens
        assert found.tokens[:length].tolist() == expected.tokens[:length].tolist()


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_no_loop_and_no_register_is_left_where_it_need_not_be(case: tuple[str, str, str]) -> None:
    for unit, words in straight(compiled(*case), 9, 2).items():
        allowed = {Opcode.SYNC, Opcode.EXECUTE, Opcode.HALT}
        if unit in (Unit.ST, Unit.SYS):
            allowed.add(Opcode.INCREMENT)
        for word in words:
            fields = decode(unit, word)
            assert fields["opcode"] in allowed
            counted = [name for name in fields if name.endswith("_register")]
            registers = {fields[name] for name in counted if name != "address_register"}
            assert registers <= {0}


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_counting_is_writing(case: tuple[str, str, str]) -> None:
    program = compiled(*case)
    count = StraightCount(program)
    for prompt in (1, 2, 3, 5, 9, 16, 17, 25, 34, 40):
        for tokens in (1, 4):
            assert count.run(prompt, tokens) == size(straight(program, prompt, tokens))


def test_rounds_that_depend_on_the_loop_around_them_are_not_taken_for_equal() -> None:
    a = Assembler(Unit.MPE)
    with a.token_loop():
        with a.loop(fixed(3)) as level, a.loop(tiled(5, 2, level)), a.loop(fixed(4)):
            a.sync()
        a.leave_at_end()
    words = a.words(64)
    program = Program(load_machine("tiny"), {Unit.MPE: words}, np.zeros((0, 8), np.uint8))
    found = StraightCount(program).run(1, 1)
    assert found == size(straight(program, 1, 1))
    # Rounds of 2, 2 and 1 in two steps, the last of which finds END; a wait in each; HALT.
    assert found == (2 * 5 * 4 + 3) * 4


def without_prefill(program: Program) -> Program:
    """A program whose loop over the chunks of a prompt has no rounds."""
    instructions = {}
    for unit, words in program.instructions.items():
        fields = [decode(unit, word) for word in words]
        loops = [at for at, field in enumerate(fields) if field["opcode"] == Opcode.LOOP]
        outer = [at for at in loops if not any(o < at < fields[o]["target"] for o in loops)]
        (*chunks, _) = outer
        instructions[unit] = [
            encode(unit, Opcode.LOOP, target=fields[at]["target"]) if at in chunks else word
            for at, word in enumerate(words)
        ]
    return dataclasses.replace(program, instructions=instructions)


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_modes_are_sums_of_written_programs(case: tuple[str, str, str]) -> None:
    program = compiled(*case)
    context = 18
    decoding = without_prefill(program)
    written = [size(straight(decoding, 0, tokens)) for tokens in range(1, context + 2)]
    # What a step adds to a run, and a run without any step and output head.
    steps = [after - before for before, after in itertools.pairwise(written)]
    frame = size(straight(decoding, 1, 0))
    prefill = [size(straight(program, prompt, 1)) for prompt in range(1, context + 1)]
    found = length_modes(program, context)
    assert found["every_length_bytes"] == sum(prefill) + sum(steps) + context * frame
    assert found["every_length_programs"] == 2 * context
    # Buckets end at 16 and, cut off, at 18; the one of prompts at 18.
    assert found["bucket_bytes"] == prefill[-1] + steps[15] + steps[17] + 2 * frame
    assert found["bucket_programs"] == 3
    assert found["program_bytes"] == program.instruction_bytes < found["bucket_bytes"]


def test_the_command_compares_with_what_is_published() -> None:
    arguments = ["pydoc-llama", "--target", "tiny", "--recipe", "w8a8", "--context", "64"]
    result = CliRunner().invoke(lengths_command, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "1,670,000,000,000" in result.output and "3,250,000,000" in result.output
    with pytest.raises(InputError, match="context: expected at least 1"):
        CliRunner().invoke(lengths_command, [*arguments[:-1], "0"], catch_exceptions=False)
