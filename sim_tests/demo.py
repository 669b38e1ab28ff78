"""The whole story on the bundled model: text on the emulator, Verilog, the same tokens on it in Verilator."""

import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from emulator.console import print_facts, print_table
from emulator.published import FIGURES
from emulator.report import bandwidth_cycles
from emulator.run import Generation
from emulator.text import ProgramText
from hw.spec.board import load_board
from hw.spec.errors import CheckFailed, InputError
from hw.spec.machine import MachineSpec
from hw.spec.machine_file import load_machine
from hw.spec.output import atomic_write, check_output
from hw.spec.program import Program, save_program
from mapping.compiler import compile_model
from mapping.estimate import estimate
from mapping.frontend.model import Model, load_model
from mapping.recipe import load_recipe
from sim_tests.exactness import Comparison, Expectation, Request, compare, expect
from sim_tests.run_result import SimulationResult
from sim_tests.simulate import build_simulator, simulate

MODEL = "pydoc-llama"
PROMPT = "The default value is"
CARD = "model_card.json"
CARD_MODEL, CARD_TARGET = "llama-2-7b", "u280"


@dataclasses.dataclass(frozen=True)
class Demo:
    """What is shown.

    Attributes
    ----------
    model, target, recipe : str
        As on the command line.
    prompt : str
    tokens, rtl_tokens : int
        Tokens to generate on the emulator, and how many of them on the hardware.
    engine : str
        Of the simulation, `native` or `cocotb`.
    folder : Path
        For everything that is left.
    """

    model: str
    target: str
    recipe: str
    prompt: str
    tokens: int
    rtl_tokens: int
    engine: str
    folder: Path

    def run(self) -> None:
        """Show everything, step by step.

        Raises
        ------
        InputError
            If a name means nothing, or a tool is missing.
        CheckFailed
            If emulator and hardware differ.
        """
        begun = time.monotonic()
        check_output(self.folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{self.folder}: expected a folder, found a file")
        machine = load_machine(self.target)
        heading("1", f"The model: {self.model}")
        model = load_model(self.model)
        show_card(model)
        heading("2", f"Compiled for {machine.name} with recipe {self.recipe}")
        program = self._compile(model, machine)
        heading("3", "Text from the emulator, bit for bit what the hardware computes")
        generation = self._generate(program)
        heading("4", "The processor as Verilog")
        self._write_verilog(machine)
        heading("5", "The same program on that hardware, in Verilator")
        self._simulate(program, generation)
        heading("6", "What is left")
        self._leave(program, generation)
        click.echo(
            f"\nDone in {_duration(time.monotonic() - begun)}. Next: lpu run {self.folder}/model.lpu --prompt 'A function'"
        )
        heading("7", "The same processor at the size of a card")
        click.echo(card_line())

    def _compile(self, model: Model, machine: MachineSpec) -> Program:
        program = compile_model(model, machine, load_recipe(self.recipe))
        self.folder.mkdir(exist_ok=True)
        save_program(program, self.folder / "model.lpu")
        memory = machine.memory
        print_facts({
            "machine": f"{machine.channels} channel(s) of {machine.bus_bytes} bytes, {machine.multipliers} multipliers, "
            f"{machine.lanes} FP32 lanes, {machine.clock_hz / 1e6:g} MHz",
            "program": f"{program.instruction_bytes:,} bytes of instructions for every length up to {program.information['context']} tokens",
            "memory": f"{program.memory.size:,} of {memory.words * machine.word_bytes:,} bytes hold weights and tables",
            "file": str(self.folder / "model.lpu"),
        })
        return program

    def _generate(self, program: Program) -> Generation:
        text = ProgramText(program, self.model)
        generation = Generation(program, text.encode(self.prompt), self.tokens)
        click.echo(click.style(text.decode(generation.prompt) or "", bold=True), nl=False)
        for piece in text.pieces(generation.prompt, generation.stream()):
            click.echo(piece, nl=False)
            sys.stdout.flush()
        click.echo("\n")
        timing = generation.timing()
        speed = generation.speed(timing)
        decode = speed.tokens_per_second
        moved = bandwidth_cycles(program.machine, timing.bytes_read + timing.bytes_written)
        print_facts({
            "on the target": f"{timing.cycles:,} cycles (emulated), {speed.seconds * 1e3:.2f} ms at {program.machine.clock_hz / 1e6:g} MHz",
            "tokens a second": "-" if decode is None else f"{decode:,.0f} at the target's clock",
            "memory ports": f"{moved / timing.cycles:.0%} of their bandwidth used",
            "here": f"{_duration(generation.seconds)} of bit-exact emulation, races looked for",
        })
        return generation

    def _write_verilog(self, machine: MachineSpec) -> None:
        from hw.verilog_files import verilog_files, write_files

        folder = self.folder / "verilog"
        with working("writing Verilog"):
            files = verilog_files(machine)
            with atomic_write(folder) as part:
                write_files(part, files)
        summary = json.loads(files["summary.json"])
        lines = sum(
            text.count("\n") for name, text in files.items() if name.endswith((".v", ".sv"))
        )
        print_facts({
            "folder": f"{folder}: {lines:,} lines, with file list and summary",
            "modules": len(summary["modules"]),
            "multipliers": summary["multipliers"],
            "memory bits": summary["memory_bits"],
            "ports": ", ".join(
                sorted({
                    port["name"].rpartition("_")[0]
                    for port in summary["ports"]
                    if "axi" in port["name"]
                })
            ),
        })

    def _simulate(self, program: Program, generation: Generation) -> None:
        request = Request(
            tuple(generation.prompt),
            min(self.rtl_tokens, self.tokens),
            tuple(program.information["stop_tokens"]),
        )
        expected = expect(program, request)
        with working("building the simulator: the first time a few minutes, later none"):
            build_simulator(program.machine, self.engine)
        with working(f"simulating {expected.cycles:,} cycles"):
            limit = 2 * expected.cycles + program.machine.watchdog_cycles
            result = simulate(
                program.machine, program, request.prompt, request.tokens, self.engine,
                stop_tokens=request.stop_tokens, limit=limit,
            )  # fmt: skip
        comparison = compare(program, expected, result)
        text = ProgramText(program, self.model).decode(int(token) for token in result.tokens)
        click.echo(f"the hardware wrote: {text!r}")
        show_comparison(expected, result, comparison)
        if not comparison.equal:
            raise CheckFailed(f"RTL and emulator differ: {comparison.first_difference}")

    def _leave(self, program: Program, generation: Generation) -> None:
        from emulator.explain import write_explanation

        written = write_explanation(
            program, len(generation.prompt), min(4, self.tokens), self.folder
        )
        print_facts({"model.lpu": "the program", "verilog/": "the processor", **written})
        click.echo(f"\nAll of it is in {self.folder.absolute()}")


def card_line() -> str:
    """LLaMA2-7B on the card of FlightLLM, estimated: the same instructions on the same timing engine, without weights."""
    context, tokens = 128, 4
    figure = next(f for f in FIGURES if (f.target, f.prompt_length) == (CARD_TARGET, context))
    facts = estimate(
        load_model(CARD_MODEL).config, load_machine(CARD_TARGET), load_recipe(figure.recipe), context, tokens,
        load_board(CARD_TARGET),
    )  # fmt: skip
    return (
        f"{CARD_MODEL} on {CARD_TARGET}, recipe {figure.recipe}: {facts['decode_tokens_per_second']:.1f} tokens a second at "
        f"{context} tokens of context (emulated; FlightLLM: {figure.published}, published), "
        f"{facts['bandwidth_fraction']:.1%} of the memory's peak, the prompt in {facts['prefill_seconds']:.3f} s, "
        f"{facts['program_bytes']:,} bytes of instructions. More: lpu compare --published"
    )


def heading(number: str, title: str) -> None:
    """Print the title of a step."""
    console = Console()
    if console.is_terminal:
        console.print()
        console.rule(f"[bold]{number}  {title}", align="left")
    else:
        click.echo(f"\n== {number}  {title}")


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show a spinner on a terminal, a line in a pipe."""
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status(what):
            yield
    else:
        click.echo(f"({what})", err=True)
        yield


def show_card(model: Model) -> None:
    """Print what the model's card says; the losses are those measured when it was trained."""
    path = None if model.folder is None else model.folder / CARD
    card: dict[str, Any] = (
        json.loads(path.read_text(encoding="utf-8")) if path is not None and path.is_file() else {}
    )
    config = model.config
    facts: dict[str, Any] = {
        "what it is": card.get("description"),
        "learned from": card.get("data"),
        "shape": f"{config.layers} layers, width {config.hidden_size}, {config.heads} heads on {config.kv_heads} KV heads, "
        f"vocabulary {config.vocabulary_size:,}",
        "parameters": model.parameters,
    }
    if "held_out_loss" in card and "trigram_loss" in card:
        facts["held-out loss"] = (
            f"{card['held_out_loss']:.3f} nats a token; an interpolated trigram model {card['trigram_loss']:.3f}"
        )
    print_facts({name: value for name, value in facts.items() if value is not None})


def show_comparison(
    expected: Expectation, result: SimulationResult, comparison: Comparison
) -> None:
    """Print emulator against hardware."""
    first = len(expected.request.prompt)

    def row(what: str, emulator: object, rtl: object) -> list[Any]:
        return [what, emulator, rtl, "yes" if emulator == rtl else "NO"]

    events = sum(len(trace) for trace in expected.trace.values())
    rows = [
        row("tokens", str(expected.tokens[first:].tolist()), str(result.tokens[first:].tolist())),
        row("cycles", f"{expected.cycles:,}", f"{result.cycles:,}"),
        row("retired instructions", f"{events:,}", f"{sum(len(trace) for trace in result.trace.values()):,}"),
        ["... with equal cycles and checksum", "", "", "yes" if comparison.events_different == 0 else "NO"],
        ["memory words after the run", f"{comparison.words_compared:,}", f"{comparison.words_compared:,}",
         "yes" if comparison.words_different == 0 else "NO"],
    ]  # fmt: skip
    for name in ("bytes_read", "bytes_written", "busy_ld", "busy_mpe", "busy_sfu"):
        rows.append(
            row(
                name.replace("_", " "), f"{expected.counters[name]:,}", f"{result.counters[name]:,}"
            )
        )
    print_table("", ["", "emulator", "RTL", "equal"], rows)
    click.echo(f"{result.cycles_per_second:,.0f} cycles a second in Verilator")


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
