"""Commands of simulation of the hardware; what is slow to import is imported inside their bodies."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from emulator.console import json_option, note, print_facts, print_json
from hw.spec.errors import CheckFailed, InputError
from sim_tests.compare_cli import compare_commands
from sim_tests.demo_cli import demo_commands
from sim_tests.hardwire_cli import hardwire_commands
from sim_tests.pe_cli import pe_commands
from sim_tests.verilog_cli import verilog_commands

if TYPE_CHECKING:
    from hw.spec.program import Program
    from sim_tests.exactness import Request

DEFAULT_PROMPT = "The "
ENGINES = ("cocotb", "native")


def commands() -> list[click.Command]:
    """Commands for the front door, `lpu`."""
    return [
        sim_command,
        *compare_commands(),
        *demo_commands(),
        *pe_commands(),
        *hardwire_commands(),
        *verilog_commands(),
    ]


@click.command("sim")
@click.argument("program", type=click.Path(path_type=Path))
@click.option("--prompt", help=f"Text to continue. [default: {DEFAULT_PROMPT!r}]")
@click.option("--prompt-ids", help="The same as token ids, separated by commas.")
@click.option("--tokens", default=1, show_default=True, help="Tokens to generate.")
@click.option("--engine", type=click.Choice(ENGINES), default="cocotb", show_default=True)
@click.option(
    "--wave", type=click.Path(path_type=Path), help="Wave file to write, *.vcd or *.fst; slow."
)
@json_option
def sim_command(
    program: Path,
    prompt: str | None,
    prompt_ids: str | None,
    tokens: int,
    engine: str,
    wave: Path | None,
    as_json: bool,
) -> None:
    """Run PROGRAM on the RTL of its machine, in Verilator, and compare every event with the emulator."""
    from emulator.text import ProgramText
    from hw.spec.output import atomic_write, check_output
    from hw.spec.program import load_program
    from sim_tests.exactness import compare, expect
    from sim_tests.simulate import simulate
    from sim_tests.wave_view import check_wave, write_views

    loaded = load_program(program)
    request = read_request(loaded, prompt, prompt_ids, tokens, str(program))
    if wave is not None:
        check_output(wave)
        check_wave(wave)
    expected = expect(loaded, request)
    if not as_json:
        note(f"emulator: {expected.cycles} cycles; simulating them in Verilator")
    limit = 2 * expected.cycles + loaded.machine.watchdog_cycles
    arguments = (loaded.machine, loaded, request.prompt, request.tokens, engine)
    if wave is None:
        result = simulate(*arguments, stop_tokens=request.stop_tokens, limit=limit)
    else:
        with atomic_write(wave) as part:
            result = simulate(*arguments, wave=part, stop_tokens=request.stop_tokens, limit=limit)
        views = write_views(wave, loaded.machine)
        if not as_json:
            note(f"waves: {wave}; signal lists: {', '.join(str(view) for view in views)}")
    comparison = compare(loaded, expected, result)
    first = len(request.prompt)
    figures = {
        "target": loaded.machine.name,
        "engine": engine,
        "text": ProgramText(loaded, str(program)).decode(result.tokens[first:].tolist()),
        "tokens": result.tokens[first:].tolist(),
        "emulator_tokens": expected.tokens[first:].tolist(),
        "rtl_cycles": result.cycles,
        "emulator_cycles": expected.cycles,
        "events_compared": comparison.events_compared,
        "events_different": comparison.events_different,
        "words_compared": comparison.words_compared,
        "words_different": comparison.words_different,
        "rtl_cycles_per_second": result.cycles_per_second,
    }
    if as_json:
        print_json(figures)
    else:
        print_facts({
            **figures,
            "tokens": str(figures["tokens"]),
            "emulator_tokens": str(figures["emulator_tokens"]),
        })
    if comparison.first_difference is not None:
        raise CheckFailed(f"{program}: RTL and emulator differ: {comparison.first_difference}")


def read_request(
    program: "Program", text: str | None, ids: str | None, tokens: int, where: str
) -> "Request":
    """The prompt that the options ask for, checked against the program.

    Raises
    ------
    InputError
        If both or unusable ones are given, or a text without a tokenizer in the program.
    """
    from emulator.machine import check_request
    from sim_tests.exactness import Request

    if text is not None and ids is not None:
        raise InputError("--prompt, --prompt-ids: expected one of them, found both")
    if ids is not None:
        prompt = _parse_ids(ids)
    elif text is not None or "tokenizer" in program.information:
        prompt = _encode(program, DEFAULT_PROMPT if text is None else text, where)
    else:
        # A program without a tokenizer has no text to begin with; its lowest ids are as good as any.
        vocabulary = int(program.information.get("vocabulary_size", 4))
        prompt = [i % vocabulary for i in range(1, 5)]
    check_request(program, prompt, tokens)
    return Request(tuple(prompt), tokens, tuple(program.information.get("stop_tokens", ())))


def _parse_ids(ids: str) -> list[int]:
    try:
        return [int(part) for part in ids.split(",")]
    except ValueError:
        raise InputError(
            f"--prompt-ids: expected token ids separated by commas, found {ids!r}"
        ) from None


def _encode(program: "Program", text: str, where: str) -> list[int]:
    import tokenizers

    content = program.information.get("tokenizer")
    if content is None:
        raise InputError(
            f"--prompt: {where} carries no tokenizer; give token ids with --prompt-ids"
        )
    try:
        tokenizer = tokenizers.Tokenizer.from_str(content)
    except Exception as error:  # the library raises plain Exception for whatever it cannot read
        raise InputError(f"{where}: tokenizer: {' '.join(str(error).split())}") from error
    # Files may ask for padding or truncation, which were settings of somebody's training run.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer.encode(text).ids
