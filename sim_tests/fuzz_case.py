"""A case of the fuzzer: machines to try, programs with what is asked of them, memory timings."""

import dataclasses
import random
from dataclasses import dataclass
from typing import Any

from hw.spec.errors import InputError
from hw.spec.machine import MachineSpec, MemorySpec
from hw.spec.machine_file import load_machine
from hw.spec.machine_limits import check_machine
from hw.spec.program import Program
from hw.spec.weight_format import WeightFormat
from sim_tests.exactness import Request


def fuzz_machine(target: str) -> MachineSpec:
    """A bundled target with shallow buffers, which build fast and wrap often, and an impatient watchdog.

    `small` also gets what no bundled test target has: every weight format, sparse steps, two columns, shared scalers, fewer lanes.
    """
    spec = load_machine(target)
    more: dict[str, Any] = {}
    if target == "small":
        more = {
            "weight_formats": tuple(weight.name for weight in WeightFormat),
            "sparse": 1,
            "matrix_columns": 2,
            "vector_lanes": 4,
            "drain_lanes": 4,
            "result_rows": 128,
            "activation_rows": 256,
        }
    shallow = {
        "stream_words": 32,
        "scale_words": 8,
        "input_words": 64,
        "vector_rows": 64,
        "result_rows": 32,
        "activation_rows": 64,
        "store_rows": 16,
        "scalars": 32,
        "matrix_scales": 8,
        "tokens": 64,
        "watchdog_cycles": 3000,
    }
    memory = dataclasses.replace(spec.memory, words=2048)
    name = f"fuzz_{spec.name}"
    return dataclasses.replace(spec, name=name, memory=memory, **shallow | more)


@dataclass(frozen=True)
class FuzzCase:
    """A program and what to ask of it; `program.machine` has the memory timing to use."""

    seed: int
    program: Program
    request: Request


def random_request(rng: random.Random) -> Request:
    """Prompt, tokens to generate, stop tokens; also of token ids that no table has."""
    prompt = [
        rng.choice([rng.randrange(8), rng.randrange(1 << 20)]) for _ in range(rng.randint(1, 4))
    ]
    stops = tuple(rng.choice([0, rng.randrange(6)]) for _ in range(rng.choice([0, 0, 1, 2, 4])))
    return Request(tuple(prompt), rng.randint(1, 3), stops)


def random_memory(rng: random.Random, spec: MachineSpec) -> MemorySpec:
    """Any timing that the machine can have."""
    while True:
        denominator = rng.choice([1, 1, 2, 3, 7])
        memory = dataclasses.replace(
            spec.memory,
            read_latency=rng.choice([2, 3, 8, 20, 40]),
            write_latency=rng.choice([1, 2, 12, 30]),
            banks=rng.choice([1, 2, 4, 16]),
            row_words=rng.choice([1, 2, 4, 8]) * spec.burst_beats,
            activate=rng.choice([0, 1, 9, 20]),
            turnaround=rng.choice([0, 1, 4, 9]),
            refresh_interval=rng.choice([rng.randint(150, 600), rng.randint(150, 1200), 3000]),
            refresh_cycles=rng.choice([0, 1, 10, 40]),
            beat_numerator=rng.randint(1, denominator),
            beat_denominator=denominator,
        )
        try:
            return check_machine(dataclasses.replace(spec, memory=memory), "fuzz").memory
        except InputError:
            continue
