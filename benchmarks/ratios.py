"""Speeds of one run on this computer, as ratios: ``python -m benchmarks.ratios [--target T] [--json]``.

Absolute speeds depend on the computer and on what else it does; ratios of the same run depend on them little.
The last figure does not depend on the computer at all.
"""

import argparse
import time
from collections.abc import Callable

from emulator.console import print_json, print_table
from emulator.machine import Machine
from emulator.report import bandwidth_cycles
from emulator.timing import TimingEngine
from hw.spec.machine_file import load_machine
from hw.spec.program import Program
from mapping.compiler import compile_model
from mapping.frontend.model import list_models, load_model
from mapping.recipe import load_recipe
from sim_tests.simulate import build_simulator, simulate

MODEL = "pydoc-llama"
CONTEXT = 512
DECODED = 8
"""Tokens behind the context over which decode is measured."""

WANTED = {
    "cocotb": 30_000,
    "native": 150_000,
    "timing over cocotb": 1000,
    "bit-exact over cocotb": 50,
    "decode over bandwidth bound": 0.7,
}


def speeds(program: Program, prompt_length: int, tokens: int) -> dict[str, float]:
    """Cycles a second of the four ways to run a program, each in the same minute."""
    vocabulary = program.information["vocabulary_size"]
    prompt = [i % vocabulary for i in range(1, prompt_length + 1)]
    engine = TimingEngine(program)
    cycles = engine.run(prompt_length, tokens).cycles

    def exact() -> int:
        Machine(program, check=False, trace=False).run(prompt, tokens)
        return engine.run(prompt_length, tokens).cycles

    def timing() -> int:
        return engine.run(8 * prompt_length, 8 * tokens).cycles

    result = {}
    for name in ("cocotb", "native"):
        build_simulator(program.machine, name)
        simulated = simulate(program.machine, program, prompt, tokens, name)
        assert simulated.cycles == cycles, "emulator and hardware differ: see lpu sim"
        result[name] = simulated.cycles_per_second
    return result | {"timing": _rate(timing), "bit-exact": _rate(exact)}


def _rate(run: Callable[[], int]) -> float:
    """Cycles a second, behind a first run that compiles and fills caches; the best of three."""
    run()
    best = 0.0
    for _ in range(3):
        begun = time.perf_counter()
        cycles = run()
        best = max(best, cycles / (time.perf_counter() - begun))
    return best


def decode_fraction(program: Program) -> float:
    """Cycles that the ports need for the bytes of decoding behind a long context, over the cycles it takes."""
    engine = TimingEngine(program)
    first, last = engine.run(CONTEXT, 1), engine.run(CONTEXT, 1 + DECODED)
    moved = last.bytes_read + last.bytes_written - first.bytes_read - first.bytes_written
    return bandwidth_cycles(program.machine, moved) / (last.cycles - first.cycles)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description="Speeds of one run, as ratios.")
    parser.add_argument("--target", default="small")
    parser.add_argument("--recipe", default="w8a8")
    parser.add_argument(
        "--model",
        default=MODEL,
        help=f"default: {MODEL}; known: {', '.join(m.name for m in list_models())}",
    )
    parser.add_argument("--prompt-length", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    model, machine = load_model(arguments.model), load_machine(arguments.target)
    program = compile_model(model, machine, load_recipe(arguments.recipe))
    measured = speeds(program, arguments.prompt_length, arguments.tokens)
    figures = {
        "cocotb": measured["cocotb"],
        "native": measured["native"],
        "timing over cocotb": measured["timing"] / measured["cocotb"],
        "bit-exact over cocotb": measured["bit-exact"] / measured["cocotb"],
        "decode over bandwidth bound": decode_fraction(program),
    }
    if arguments.json:
        print_json({
            "target": machine.name,
            "model": model.name,
            "recipe": arguments.recipe,
            **figures,
        })
        return
    units = {
        "cocotb": "cycles/s",
        "native": "cycles/s",
        "decode over bandwidth bound": f"at {CONTEXT} tokens (emulated)",
    }
    rows = [
        [name, value, units.get(name, "times"), WANTED[name]] for name, value in figures.items()
    ]
    print_table(
        f"{model.name}, {arguments.recipe}, on {machine.name}",
        ["", "measured", "", "wanted, at least"],
        rows,
    )


if __name__ == "__main__":
    main()
