"""Cycle estimates without weights: the instructions of a model, timed by the emulator."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from emulator.energy import count_events, joules
from emulator.timing import TimingEngine, TimingResult
from hw.spec.board import Board
from hw.spec.design import check_fits
from hw.spec.errors import InputError
from hw.spec.instructions import Destination, Opcode, Unit, encode
from hw.spec.machine import MachineSpec
from hw.spec.program import Program
from mapping.compiler import compile_instructions, plan_model
from mapping.frontend.config import ModelConfig
from mapping.frontend.weights import tensor_shapes
from mapping.lowering.plan import Plan
from mapping.recipe import Recipe

__all__ = ["LABELS", "Run", "estimate", "run_estimate", "streaming_ceiling"]

LABELS = {
    "model": "given",
    "target": "given",
    "recipe": "given",
    "prompt_length": "given",
    "tokens": "given",
    "cycles": "emulated",
    "prefill_seconds": "emulated",
    "attention_density": "counted",
    "decode_tokens_per_second": "emulated",
    "bandwidth_fraction": "emulated",
    "ceiling_fraction": "emulated",
    "compute_fraction": "emulated",
    "prefill_compute_fraction": "emulated",
    "streaming_ceiling": "emulated",
    "bytes_per_token": "emulated",
    "useful_bytes_per_token": "counted",
    "program_bytes": "counted",
    "sequencer_bytes": "counted",
    "weight_bits_per_parameter": "counted",
    "memory_bytes": "counted",
    "energy_joules_per_token": "modelled",
    "emulation_seconds": "measured here",
    "fitted_parameters": "fitted",
    "resources": "synthesized",
    "resources_available": "published",
}
"""Where figures of an estimate come from; resources of which parts are extrapolated say so themselves."""
ENERGY_FITTED = "energy: static_watts"
_CEILING_WORDS = 200_000


@dataclass(frozen=True)
class Run:
    """What an estimate rests on.

    Attributes
    ----------
    plan : Plan
    program : Program
        Instructions only.
    prefill, whole : TimingResult
        To the first generated token, and to the last.
    seconds : float
        Time that the emulation took.
    """

    plan: Plan
    program: Program
    prefill: TimingResult
    whole: TimingResult
    seconds: float


def run_estimate(
    config: ModelConfig, machine: MachineSpec, recipe: Recipe, prompt_length: int, tokens: int
) -> Run:
    """Compile without weights, and time it.

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
    return Run(plan, program, prefill, whole, time.perf_counter() - begun)


def estimate(
    config: ModelConfig,
    machine: MachineSpec,
    recipe: Recipe,
    prompt_length: int,
    tokens: int,
    board: Board | None = None,
    fitted: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Figures of one run; all but energy and resources emulated (equal to the RTL on the target's own memory model).

    `decode_tokens_per_second` is that of the generated tokens at their actual context lengths; `bandwidth_fraction` is
    useful bytes (weights, scales, metadata, keys and values, without padding) over what the memory could move in that
    time; `ceiling_fraction` is that share over the memory model's own for one endless stream; `compute_fraction` the
    multiplications of a token over what the multipliers of one activation vector could do, `prefill_compute_fraction`
    those of a prompt, attention included, over what all multipliers could do. No early stop is assumed.

    Parameters
    ----------
    board : Board, optional
        What the design must fit; nothing is said of resources without it.
    fitted : mapping of str to str, optional
        Fields of the target that were fitted to measurements, see `hw.spec.board.load_fitted`.

    Raises
    ------
    InputError
        If the model does not fit the target, or the target its board, saying what and by how much; or the lengths
        are not possible.
    """
    design = check_fits(machine, board) if board is not None else None
    run = run_estimate(config, machine, recipe, prompt_length, tokens)
    plan, prefill, whole = run.plan, run.prefill, run.whole
    facts: dict[str, Any] = {
        "model": config.name,
        "target": machine.name,
        "recipe": recipe.name,
        "prompt_length": prompt_length,
        "tokens": tokens,
        "cycles": whole.cycles,
        "prefill_seconds": prefill.cycles / machine.clock_hz,
        "prefill_compute_fraction": _prompt_macs(plan, recipe, prompt_length)
        / (prefill.cycles * _peak_macs(machine)),
        "decode_tokens_per_second": None,
        "bandwidth_fraction": None,
        "streaming_ceiling": streaming_ceiling(machine),
        "ceiling_fraction": None,
        "compute_fraction": None,
        "bytes_per_token": None,
        "useful_bytes_per_token": None,
        "program_bytes": run.program.instruction_bytes,
        "sequencer_bytes": run.program.sequencer_bytes,
        "weight_bits_per_parameter": weight_bits_per_parameter(plan),
        "energy_joules_per_token": None,
        "emulation_seconds": run.seconds,
        "memory_bytes": plan.memory.used * machine.word_bytes * machine.cores,
        "fitted_parameters": [
            *([ENERGY_FITTED] if _card(board) else []),
            *(f"{machine.name}: {name}" for name in fitted or {}),
        ],
    }
    if recipe.attention_mask is not None:
        facts["attention_density"] = recipe.attention_mask.density(prompt_length)
    if tokens > 1:
        facts |= _decode_figures(run, prompt_length, tokens, board)
    if design is not None:
        facts["resources"] = {kind: round(n) for kind, n in design["used"].items()}
        facts["resources_available"] = design["available"]
        facts["resources_source"] = design["source"]
    facts["labels"] = {name: LABELS[name] for name in facts if name in LABELS}
    if design is not None:
        facts["labels"]["resources"] = design["source"]
    return facts


def _card(board: Board | None) -> bool:
    """Whether static power can be about that of the card it was fitted on; a small part's is not known."""
    return board is None or board.family == "xcup"


def _decode_figures(run: Run, prompt_length: int, tokens: int, board: Board | None) -> dict[str, Any]:  # fmt: skip
    machine, steps = run.program.machine, tokens - 1
    cycles = run.whole.cycles - run.prefill.cycles
    ports = machine.channels * machine.cores
    moved = ports * (_moved(run.whole) - _moved(run.prefill))
    useful = sum(useful_bytes(run.plan, prompt_length + step) for step in range(1, tokens))
    seconds = cycles / machine.clock_hz
    fraction = useful / seconds / peak_bytes_per_second(machine, board)
    events = count_events(run.program, run.whole, prompt_length, tokens)
    before = count_events(run.program, run.prefill, prompt_length, 1)
    decode = {name: events[name] - before[name] for name in events}
    return {
        "decode_tokens_per_second": steps / seconds,
        "bandwidth_fraction": fraction,
        "ceiling_fraction": fraction / streaming_ceiling(machine),
        "compute_fraction": _macs(run.plan) * steps * machine.matrix_columns / (cycles * _peak_macs(machine)),
        "bytes_per_token": moved / steps,
        "useful_bytes_per_token": useful / steps,
        "energy_joules_per_token": joules(machine, decode, cycles) / steps if _card(board) else None,
    }  # fmt: skip


def _moved(result: TimingResult) -> int:
    return result.bytes_read + result.bytes_written


def _macs(plan: Plan) -> int:
    """Multiplications of weights for one token of the model, its own shapes; attention is not counted."""
    return plan.config.layers * _layer_macs(plan) + _head_macs(plan)


def _layer_macs(plan: Plan) -> int:
    config = plan.config
    projections = 2 * config.query_width + 2 * config.key_width
    return config.hidden_size * (projections + (2 if config.opt else 3) * config.intermediate_size)


def _head_macs(plan: Plan) -> int:
    return plan.config.vocabulary_size * plan.config.hidden_size


def _prompt_macs(plan: Plan, recipe: Recipe, length: int) -> float:
    """Multiplications that a prompt needs up to its first logits: the output head once, attention between causal pairs."""
    config = plan.config
    mask = recipe.attention_mask
    pairs = length * (length + 1) // 2 * (mask.density(length) if mask is not None else 1)
    # Queries times keys, and probabilities times values.
    attention = 2 * config.query_width * pairs
    return config.layers * (length * _layer_macs(plan) + attention) + _head_macs(plan)


def _peak_macs(machine: MachineSpec) -> int:
    """Multiplications a cycle of all cores, for as many activation vectors as are multiplied at a time."""
    return machine.multipliers * machine.matrix_columns * machine.cores


def peak_bytes_per_second(machine: MachineSpec, board: Board | None = None) -> float:
    """Of the board's memory, or of the ports where nothing is known of a board."""
    if board is not None:
        return board.memory_bytes_per_second
    memory = machine.memory
    beats = machine.clock_hz * memory.beat_numerator / memory.beat_denominator
    return machine.channels * machine.cores * machine.bus_bytes * beats


def useful_bytes(plan: Plan, context: int) -> float:
    """Bytes that the decoding of one token needs at the least, in the recipe's formats, without padding."""
    config = plan.config
    weights = 0.0
    for segment in plan.segments:
        for matrix in segment.matrices.values():
            bits = sum(
                part.rows * piece.columns * piece.format.bits_per_weight(matrix.columns)
                for part in matrix.parts
                for piece in part.pieces
            )
            weights += segment.layers * bits / 8
    weights += sum(
        part.rows * piece.columns * piece.format.bits_per_weight(plan.head_matrix.columns) / 8
        for part in plan.head_matrix.parts
        for piece in part.pieces
    )
    # Every core reads its part of the norms, and the biases of its own outputs.
    vectors = sum(4 * shape[0] for shape in tensor_shapes(config).values() if len(shape) == 1)
    cache = 2 * config.layers * config.kv_heads * (config.head_dim + 4) * context
    rows = 2 if config.opt else 1
    return plan.cores * weights + vectors + cache + 4 * config.hidden_size * rows


@cache
def streaming_ceiling(machine: MachineSpec) -> float:
    """Share of the peak that the target's memory model gives one endless stream: refreshes and open rows are in it."""
    words = {unit: [encode(unit, Opcode.HALT)] for unit in Unit}
    load = encode(
        Unit.LD,
        Opcode.EXECUTE,
        destination=int(Destination.STREAM),
        length_cap=_CEILING_WORDS,
        length_offset=_CEILING_WORDS,
        length_scale=1,
    )
    words[Unit.LD] = [load, *words[Unit.LD]]
    program = Program(machine, words, np.zeros((0, machine.word_bytes), np.uint8))
    memory = machine.memory
    cycles = TimingEngine(program).run(1, 1).cycles
    return _CEILING_WORDS * memory.beat_denominator / memory.beat_numerator / cycles


def weight_bits_per_parameter(plan: Plan) -> float:
    """Memory bits of all weight matrices, scales and padding included, over their number of weights."""
    word_bits = 8 * plan.spec.word_bytes * plan.cores
    words = (
        sum(m.words * s.layers for s in plan.segments for m in s.streams.values())
        + plan.head_matrix.words
    )
    return words * word_bits / _macs(plan)
