"""Commands of the compiler; what is slow to import is imported inside their bodies."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emulator.console import json_option, note, print_facts, print_json, print_table, progress
from hw.spec.errors import InputError
from mapping.estimate_cli import estimate_command
from mapping.export_cli import export_command
from mapping.lengths_cli import lengths_command
from mapping.options import choose_recipe_of, note_mask, recipe_option, target_option

if TYPE_CHECKING:
    from mapping.frontend.model import Model
    from mapping.passes.setting import Setting


def commands() -> list[click.Command]:
    """Commands for the front door, `lpu`."""
    return [
        compile_command,
        estimate_command,
        eval_command,
        export_command,
        graph_command,
        lengths_command,
        list_command,
    ]


@click.command("compile")
@click.argument("model")
@target_option
@recipe_option
@click.option("--context", type=int, help="Longest sequence, prompt and answer together.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Program file to write.")
@click.option(
    "--print-passes", is_flag=True, help="Print the graph after each pass; then -o may be left out."
)
@json_option
def compile_command(
    model: str,
    target: str,
    recipe: str | None,
    context: int | None,
    output: Path | None,
    print_passes: bool,
    as_json: bool,
) -> None:
    """Compile MODEL (a folder or a known name) into one program file."""
    from hw.spec.machine_file import load_machine
    from hw.spec.output import check_output
    from mapping.compiler import compile_to_file, plan_model
    from mapping.frontend.model import load_model

    if output is None and not print_passes:
        raise InputError("-o: expected a program file to write")
    if output is not None:
        check_output(output)
    loaded, machine = load_model(model), load_machine(target)
    formats = choose_recipe_of(recipe, loaded, machine)
    if print_passes:
        _print_passes(plan_model(loaded.config, machine, formats, context).setting)
    if output is None:
        return
    program = compile_to_file(loaded, machine, formats, output, context)
    note_mask(formats, program.information["context"])
    facts = {
        "program": str(output),
        "model": loaded.name,
        "synthetic_weights": loaded.synthetic,
        "parameters": loaded.parameters,
        "target": program.machine.name,
        "recipe": program.information["recipe"],
        "context": program.information["context"],
        "instruction_bytes": program.instruction_bytes,
        "sequencer_bytes": program.sequencer_bytes,
        "memory_bytes": program.memory.size,
        "file_bytes": output.stat().st_size,
    }
    _report(facts, as_json)


def _print_passes(setting: "Setting") -> None:
    """The graph as the front end builds it, and after each pass; on standard error beside a report on standard output."""
    from mapping.graph import print_graph
    from mapping.passes.pipeline import run_passes

    for done, graph in run_passes(setting):
        click.echo(f"after {done}:\n{print_graph(graph)}")


@click.command("eval")
@click.argument("model")
@recipe_option
@click.option(
    "--target",
    default="small",
    show_default=True,
    help="Target on which it is computed bit for bit.",
)
@click.option("--text", type=click.Path(path_type=Path), help="Text file.")
@click.option("--token-ids", type=click.Path(path_type=Path), help="JSON list of token ids.")
@click.option("--context", type=int, default=256, show_default=True, help="Tokens of a window.")
@click.option("--limit", type=int, help="Predict at most this many tokens.")
@click.option(
    "--prompt",
    type=int,
    help="Tokens that each window begins with, to be taken as a prompt: only their last one's successor is predicted. "
    "By default 1; half of a window if the recipe has an attention mask, which is about prompts only.",
)
@json_option
def eval_command(
    model: str,
    recipe: str | None,
    target: str,
    text: Path | None,
    token_ids: Path | None,
    context: int,
    limit: int | None,
    prompt: int | None,
    as_json: bool,
) -> None:
    """Loss of MODEL on a text: in float, compressed, and bit-exact.

    On the whole text that was held out from a bundled model, that of a trigram model stands beside it.
    """
    import math

    from hw.spec.machine_file import load_machine
    from mapping.baseline import trigram_loss
    from mapping.compiler import compile_model, plan_model
    from mapping.estimate import weight_bits_per_parameter
    from mapping.frontend.model import load_model
    from mapping.losses import compressed_loss, exact_loss, float_loss

    loaded = load_model(model)
    ids = _token_ids(loaded, text, token_ids)
    machine = load_machine(target)
    chosen = choose_recipe_of(recipe, loaded, machine)
    context = min(context, loaded.config.maximum_positions - 1, machine.tokens - 1)
    if prompt is None:
        prompt = 1 if chosen.attention_mask is None else max(1, context // 2)
    note_mask(chosen, prompt)
    plan = plan_model(loaded.config, machine, chosen, context + 1)
    program = compile_model(loaded, machine, chosen, context + 1)
    total = min(len(ids) - 1, limit or len(ids))
    losses = {}
    for name, measure in (
        ("float", lambda told: float_loss(loaded, ids, context, limit, told, prompt)),
        (
            "compressed",
            lambda told: compressed_loss(loaded, plan, ids, context, limit, told, prompt),
        ),
        ("exact", lambda told: exact_loss(program, ids, context, limit, told, prompt)),
    ):
        with progress(name, total) as advance:
            done = 0

            def told(now: int, _: int, advance: Any = advance) -> None:
                nonlocal done
                advance(now - done)
                done = now

            losses[name] = measure(told)
    facts: dict[str, Any] = {"tokens": losses["float"].tokens}
    facts |= {f"{name}_nll": result.loss for name, result in losses.items()}
    facts |= {f"{name}_perplexity": result.perplexity for name, result in losses.items()}
    whole = total == len(ids) - 1 and prompt == 1
    baseline = trigram_loss(loaded, ids) if whole else None
    if baseline is not None:
        facts["trigram_nll"] = baseline
    facts["exact_over_float"] = math.exp(losses["exact"].loss - losses["float"].loss)
    facts |= {
        "model": loaded.name,
        "recipe": chosen.name,
        "target": machine.name,
        "context": context,
        "prompt": prompt,
        "weight_bits_per_parameter": weight_bits_per_parameter(plan),
    }
    if as_json:
        print_json(facts)
        return
    title = f"{loaded.name}, {chosen.name}: {facts['tokens']} tokens in windows of {context}"
    if prompt > 1:
        title += f", behind prompts of {prompt}"
    rows = [[name, losses[name].loss, losses[name].perplexity] for name in losses]
    if baseline is not None:
        rows.append(["trigram model (model card)", baseline, math.exp(baseline)])
    print_table(title, ["computed", "nats a token", "perplexity"], rows)


def _token_ids(model: "Model", text: Path | None, token_ids: Path | None) -> list[int]:
    if (text is None) == (token_ids is None):
        raise InputError("eval: give either --text or --token-ids")
    if text is not None:
        try:
            content = text.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise InputError(f"{text}: expected UTF-8 text") from None
        return list(model.tokenizer.encode(content))
    assert token_ids is not None
    try:
        ids = json.loads(token_ids.read_text())
    except (ValueError, RecursionError):
        raise InputError(f"{token_ids}: expected a JSON list of token ids") from None
    if not isinstance(ids, list) or not all(
        isinstance(i, int) and not isinstance(i, bool) for i in ids
    ):
        raise InputError(f"{token_ids}: expected a JSON list of token ids")
    for position, token in enumerate(ids):
        if not 0 <= token < model.config.vocabulary_size:
            raise InputError(
                f"{token_ids}: entry {position}: token id {token} is outside 0 to {model.config.vocabulary_size - 1}"
            )
    return ids


@click.command("graph")
@click.argument("model")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Draw it: .png, .svg, .pdf or .dot."
)
def graph_command(model: str, output: Path | None) -> None:
    """Print the graph of MODEL, or draw it."""
    from mapping.frontend.model import load_model
    from mapping.graph import build_graph, draw_graph, print_graph, verify_graph

    graph = build_graph(load_model(model).config)
    verify_graph(graph)
    if output is None:
        click.echo(print_graph(graph))
    else:
        draw_graph(graph, output)


@click.command("list")
@click.argument("what", required=False, type=click.Choice(["targets", "models", "recipes"]))
@click.option(
    "--template", is_flag=True, help="Print a commented target file to start from (with targets)."
)
@json_option
def list_command(what: str | None, template: bool, as_json: bool) -> None:
    """List bundled targets (processors and systolic arrays), models and recipes."""
    from hw.spec.machine_file import load_machine
    from hw.spec.systolic_target import FAMILY, load_systolic
    from hw.spec.targets import TARGETS, list_targets
    from mapping.frontend.model import list_models
    from mapping.recipe import list_recipes

    if template:
        if what != "targets":
            raise InputError("list: --template goes with targets")
        click.echo((TARGETS / "small.yaml").read_text(), nl=False)
        return
    targets = [load_machine(name) for name in list_targets()]
    arrays = [load_systolic(name) for name in list_targets(FAMILY)]
    content = {
        "targets": [{"name": t.name, "channels": t.channels, "word_bytes": t.word_bytes,
                     "multipliers": t.multipliers, "clock_hz": t.clock_hz} for t in targets],
        "arrays": [{"name": a.name, "rows": a.rows, "columns": a.columns, "dataflow": a.dataflow.value,
                    "element": a.element, "dequantization": a.dequantization.value,
                    "group_size": a.group_size, "clock_hz": a.clock_hz} for a in arrays],
        "models": [{"name": m.name, "parameters": m.parameters, "description": m.description}
                   for m in list_models()],
        "recipes": [{"name": name} for name in list_recipes()],
    }  # fmt: skip
    kinds = ["targets", "arrays"] if what == "targets" else [what] if what else list(content)
    chosen = {kind: content[kind] for kind in kinds}
    if as_json:
        print_json(chosen)
        return
    for kind, rows in chosen.items():
        columns = list(rows[0])
        print_table(
            kind,
            [c.replace("_", " ") for c in columns],
            [[row[c] for c in columns] for row in rows],
        )


def _report(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(facts)
        return
    if facts.get("synthetic_weights"):
        note("the weights are synthetic: this is a known configuration, not a trained model")
    print_facts({name.replace("_", " "): value for name, value in facts.items()})
