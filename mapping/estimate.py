"""Cycle estimates without weights: the instructions of a model, timed by the emulator."""

import time
from typing import Any

from emulator.timing import TimingEngine
from hw.spec.errors import InputError
from hw.spec.machine import MachineSpec
from mapping.compiler import compile_instructions, plan_model
from mapping.frontend.config import ModelConfig
from mapping.lowering.plan import Plan
from mapping.recipe import Recipe


def estimate(
    config: ModelConfig, machine: MachineSpec, recipe: Recipe, prompt_length: int, tokens: int
) -> dict[str, Any]:
    """Figures of one run, all emulated (equal to the RTL on the target's own memory model).

    `decode_tokens_per_second` is that of the generated tokens at their actual context lengths; `bandwidth_fraction` is
    bytes moved over what the ports could move in that time, both of the decode phase. No early stop is assumed.

    Raises
    ------
    InputError
        If the model does not fit the target, saying what and by how much; or the lengths are not possible.
    """
    if prompt_length < 1 or tokens < 1:
        raise InputError(
            f"prompt length {prompt_length}, tokens {tokens}: expected at least 1 of each"
        )
    plan = plan_model(config, machine, recipe, prompt_length + tokens)
    program = compile_instructions(plan)
    engine = TimingEngine(program)
    begun = time.perf_counter()
    prefill = engine.run(prompt_length, 1)
    whole = engine.run(prompt_length, tokens) if tokens > 1 else prefill
    seconds = time.perf_counter() - begun
    decode_cycles = whole.cycles - prefill.cycles
    decode_bytes = (
        whole.bytes_read + whole.bytes_written - prefill.bytes_read - prefill.bytes_written
    )
    macs = sum(m.rows * m.columns for m in plan.segments[0].matrices.values()) * config.layers
    macs += plan.head_matrix.rows * plan.head_matrix.columns
    ports = machine.channels * machine.cores
    facts: dict[str, Any] = {
        "model": config.name,
        "target": machine.name,
        "recipe": recipe.name,
        "prompt_length": prompt_length,
        "tokens": tokens,
        "cycles": whole.cycles,
        "prefill_seconds": prefill.cycles / machine.clock_hz,
        "decode_tokens_per_second": None,
        "bandwidth_fraction": None,
        "compute_fraction": None,
        "bytes_per_token": None,
        "program_bytes": program.instruction_bytes,
        "weight_bits_per_parameter": weight_bits_per_parameter(plan),
        "emulation_seconds": seconds,
        "fitted_parameters": [],
    }
    if tokens > 1:
        facts["decode_tokens_per_second"] = (tokens - 1) * machine.clock_hz / decode_cycles
        facts["bandwidth_fraction"] = decode_bytes / (decode_cycles * machine.bus_bytes)
        facts["compute_fraction"] = macs * (tokens - 1) / (decode_cycles * machine.multipliers)
        facts["bytes_per_token"] = decode_bytes * ports / (tokens - 1)
    return facts


def weight_bits_per_parameter(plan: Plan) -> float:
    """Memory bits of all weight matrices, scales and padding included, over their number of weights."""
    config, word_bits = plan.config, 8 * plan.spec.word_bytes * plan.cores
    words = (
        sum(m.words * s.layers for s in plan.segments for m in s.matrices.values())
        + plan.head_matrix.words
    )
    hidden, inner = config.hidden_size, config.intermediate_size
    layer = hidden * (2 * config.query_width + 2 * config.key_width + 3 * inner)
    return words * word_bits / (config.layers * layer + config.vocabulary_size * hidden)
