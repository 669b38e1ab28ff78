"""Programs of a few instructions, and small compiled models, for the tests of the emulator."""

from dataclasses import replace
from functools import cache

import numpy as np

from hw.spec.instructions import Opcode, Unit, encode
from hw.spec.machine import MachineSpec, MemorySpec
from hw.spec.machine_file import load_machine
from hw.spec.program import Program
from mapping.compiler import compile_model
from mapping.frontend.config import ModelConfig
from mapping.frontend.model import synthetic_model
from mapping.recipe import load_recipe

Line = tuple[Opcode, dict[str, int]]

MEMORY = MemorySpec(
    words=1 << 12,
    read_latency=20,
    write_latency=10,
    banks=2,
    row_words=64,
    activate=7,
    turnaround=3,
    refresh_interval=100_000,
    refresh_cycles=40,
)
"""Open rows, and no refresh before the end of a short test."""
MACHINE = replace(
    load_machine("tiny"), memory=MEMORY, burst_beats=16, read_outstanding=2, write_outstanding=2
)


def mask(*units: Unit) -> int:
    """Token mask of some units."""
    return sum(1 << unit for unit in units)


def sync(wait: int = 0, signal: int = 0) -> Line:
    return Opcode.SYNC, {"wait": wait, "signal": signal}


def execute(wait: int = 0, signal: int = 0, **fields: int) -> Line:
    return Opcode.EXECUTE, {"wait": wait, "signal": signal, **fields}


def loop(rounds: int, target: int) -> Line:
    return Opcode.LOOP, {
        "target": target,
        "count_cap": rounds,
        "count_offset": rounds,
        "count_scale": 1,
    }


def end_loop(target: int) -> Line:
    return Opcode.END_LOOP, {"target": target}


HALT: Line = (Opcode.HALT, {})


def count(name: str, value: int) -> dict[str, int]:
    """Fields of a count that is always `value`."""
    return {f"{name}_cap": value, f"{name}_offset": value, f"{name}_scale": 1}


def load(
    words: int, wait: int = 0, signal: int = 0, address: int = 0, destination: int = 0, **more: int
) -> Line:
    fields = {"destination": destination, "address_base": address, **count("length", words), **more}
    return execute(wait, signal, **fields)


def store(wait: int = 0, signal: int = 0, address: int = 0, rows: int = 1, **more: int) -> Line:
    """SCALAR stores, or as `more` says."""
    return execute(
        wait, signal, **{"pattern": 2, "address_base": address, "rows": rows, "pitch": 1} | more
    )


def matrix(blocks: int, steps: int, wait: int = 0, signal: int = 0, **more: int) -> Line:
    fields = {
        "first": 1,
        "last": 1,
        "pop": 1,
        **count("blocks", blocks),
        **count("steps", steps),
        **count("vectors", 1),
    }
    return execute(wait, signal, **fields | more)


def vector(length: int, wait: int = 0, signal: int = 0, rows: int = 1, **more: int) -> Line:
    """Copies of the vector buffer's rows, or as `more` says."""
    fields = {"a_source": 2, "target": 1, **count("rows", rows), **count("length", length)}
    return execute(wait, signal, **fields | more)


def program(machine: MachineSpec = MACHINE, /, **lines: list[Line]) -> Program:
    """A program of the given instructions by unit name; HALT is added to each unit."""
    instructions = {
        unit: [
            encode(unit, opcode, **fields) for opcode, fields in [*lines.get(unit.name, []), HALT]
        ]
        for unit in Unit
    }
    return Program(machine, instructions, np.zeros((0, machine.word_bytes), np.uint8))


@cache
def compiled(target: str = "small", recipe: str = "w8a8", layers: int = 2) -> Program:
    """A small model with synthetic weights."""
    config = ModelConfig(
        name="small",
        architecture="LlamaForCausalLM",
        hidden_size=64,
        intermediate_size=96,
        layers=layers,
        heads=4,
        kv_heads=2,
        head_dim=16,
        vocabulary_size=160,
        rms_norm_eps=1e-5,
        rope_theta=1e4,
        tie_word_embeddings=True,
        maximum_positions=128,
        bos_token_ids=(0,),
        eos_token_ids=(0,),
        activation="silu",
    )
    return compile_model(synthetic_model(config), load_machine(target), load_recipe(recipe))
