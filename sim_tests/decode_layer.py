"""One layer of true width on the RTL of a whole board: ``python -m sim_tests.decode_layer [--target T] [--json]``.

The layer has random weights and the shapes of a known configuration; the vocabulary is small. The machine is the target's
in everything but the capacity of its memory, which is cut down to what one layer fills: its simulator would take as
much memory of this computer as the board has.
"""

import argparse
import dataclasses
import resource
import time
from pathlib import Path
from typing import Any

from emulator.console import note, print_facts, print_json
from hw.spec.errors import CheckFailed
from hw.spec.machine import MachineSpec
from hw.spec.machine_file import load_machine
from hw.spec.machine_limits import check_machine
from hw.spec.program import Program
from mapping.compiler import compile_model, plan_model
from mapping.frontend.model import Model, load_model, synthetic_model
from mapping.recipe import load_recipe
from sim_tests.exactness import Request, compare, expect
from sim_tests.simulate import build_simulator, simulate

VOCABULARY = 256
CONTEXT = 64
REQUEST = Request((1, 2, 3), 3)
"""A chunk of a prompt, and two steps of decoding that attend to what was stored before."""


def one_layer(name: str, seed: int = 0) -> Model:
    """A known configuration with random weights, cut down to one layer of its width and a small vocabulary."""
    config = load_model(name).config
    return synthetic_model(
        dataclasses.replace(config, layers=1, vocabulary_size=VOCABULARY), seed=seed
    )


def with_memory(machine: MachineSpec, words: int) -> MachineSpec:
    """The machine with a memory of another capacity: the least power of two from `words` on."""
    memory = dataclasses.replace(machine.memory, words=1 << (words - 1).bit_length())
    return check_machine(dataclasses.replace(machine, memory=memory), machine.name)


def layer_program(target: str, model: str, recipe: str) -> Program:
    """The program of one layer, for the target with just as much memory as it needs."""
    layer, settings, machine = one_layer(model), load_recipe(recipe), load_machine(target)
    used = plan_model(layer.config, machine, settings, CONTEXT).memory.used
    return compile_model(layer, with_memory(machine, used), settings, CONTEXT)


def run_layer(program: Program, request: Request = REQUEST) -> dict[str, Any]:
    """Simulate a program, and compare every event with the emulator's.

    Returns
    -------
    dict
        Figures by name, of them `first_difference`, None if all are equal.
    """
    machine = program.machine
    expected = expect(program, request)
    began = time.perf_counter()
    built = build_simulator(machine, "native")
    build_seconds, began = time.perf_counter() - began, time.perf_counter()
    limit = 2 * expected.cycles + machine.watchdog_cycles
    result = simulate(machine, program, request.prompt, request.tokens, limit=limit)
    run_seconds = time.perf_counter() - began
    comparison = compare(program, expected, result)
    return {
        "target": machine.name,
        "cores": machine.cores,
        "matrix_rows": machine.cores * machine.matrix_rows,
        "memory_words": machine.memory.words,
        "rtl_cycles": result.cycles,
        "emulator_cycles": expected.cycles,
        "events_compared": comparison.events_compared,
        "events_different": comparison.events_different,
        "words_compared": comparison.words_compared,
        "words_different": comparison.words_different,
        "bytes_read": machine.channels * sum(core.counters["bytes_read"] for core in result.cores),
        "rtl_cycles_per_second": result.cycles_per_second,
        "build_seconds": build_seconds,
        "build_megabytes": sum(f.stat().st_size for f in Path(built).rglob("*")) / 1e6,
        "run_seconds": run_seconds,
        "peak_megabytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000,
        "first_difference": comparison.first_difference,
    }


def main() -> None:
    """Print what was measured; exit with 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", default="u280")
    parser.add_argument("--model", default="llama-2-7b", help="known configuration")
    parser.add_argument("--recipe", default="flightllm-artifact")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    program = layer_program(arguments.target, arguments.model, arguments.recipe)
    if not arguments.json:
        note("a build of a whole board takes minutes, and is kept")
    facts = run_layer(program)
    (print_json if arguments.json else print_facts)(facts)
    if facts["first_difference"] is not None:
        raise CheckFailed(f"RTL and emulator differ: {facts['first_difference']}")


if __name__ == "__main__":
    main()
