"""How large are programs that know their length? Three ways to meet every length of a prompt and an answer, compared."""

from typing import Any

from hw.spec.errors import InputError
from hw.spec.machine import MachineSpec
from hw.spec.program import Program
from mapping.compiler import compile_instructions, plan_model
from mapping.frontend.config import ModelConfig
from mapping.recipe import Recipe
from mapping.straight import StraightCount

PREFILL_BUCKET, DECODE_BUCKET = 128, 16
"""Lengths that share a program in FlightLLM (arXiv 2401.03868)."""
PUBLISHED = {"every_length_bytes": 1.67e12, "bucket_bytes": 3.25e9}
"""FlightLLM's, for LLaMA2-7B on the U280 up to 2,048 tokens."""


def length_modes(program: Program, context: int) -> dict[str, Any]:
    """Bytes of instructions for all lengths up to `context`, in three modes.

    A program's bytes are its instructions as a program file holds them (`hw.spec.code_section`): everything but weights,
    scales, indices, embeddings and the KV cache; `sequencer_bytes` is what they take in the sequencers of a core. Those of
    the first two modes have the lengths as constants and no loops (`mapping.straight`), one program for each prompt length
    and one for each context length of a decoded token; a bucket's program is that of its longest length. All cores run
    the same program, which counts once.
    """
    count = StraightCount(program)
    lengths = range(1, context + 1)

    def programs(prefill: int, decode: int) -> tuple[int, int]:
        prompts = {min(context, -(-length // prefill) * prefill) for length in lengths}
        contexts = {min(context, -(-length // decode) * decode) for length in lengths}
        total = sum(count.run(prompt, 1) for prompt in prompts)
        total += sum(count.step(seen - 1) for seen in contexts)
        return total, len(prompts) + len(contexts)

    every, every_programs = programs(1, 1)
    bucket, bucket_programs = programs(PREFILL_BUCKET, DECODE_BUCKET)
    return {
        "every_length_bytes": every,
        "every_length_programs": every_programs,
        "bucket_bytes": bucket,
        "bucket_programs": bucket_programs,
        "program_bytes": program.instruction_bytes,
        "program_programs": 1,
        "sequencer_bytes": program.sequencer_bytes,
    }


def compare_lengths(
    config: ModelConfig, machine: MachineSpec, recipe: Recipe, context: int
) -> dict[str, Any]:
    """`length_modes` of a model, beside what was published.

    Raises
    ------
    InputError
        If the model does not fit the target, or has fewer positions.
    """
    if context < 1:
        raise InputError(f"context: expected at least 1 token, found {context}")
    plan = plan_model(config, machine, recipe, max(context, 2))
    facts: dict[str, Any] = {
        "model": config.name,
        "target": machine.name,
        "recipe": recipe.name,
        "context": context,
    }
    facts |= length_modes(compile_instructions(plan), context)
    facts["published"] = PUBLISHED
    counted = "counted from the lowered program"
    facts["labels"] = {
        "every_length_bytes": counted,
        "bucket_bytes": counted,
        "program_bytes": counted,
        "published": "published (FlightLLM, LLaMA2-7B, U280, 2,048 tokens)",
    }
    return facts
