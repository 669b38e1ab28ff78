"""`lpu hardwire compare`: the operator in figures."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from emulator.console import json_option, note, print_json, progress
from hw.spec.errors import InputError
from sim_tests.hardwire_print import print_comparison

if TYPE_CHECKING:
    from emulator.hardwired.weights import SmallWeights
    from hw.hardwired.operator import Operator, OperatorSpec

Command = TypeVar("Command", bound=Callable[..., Any])

SYNTHESIS_WEIGHTS = 256
"""All designs of larger matrices take Yosys many minutes; they are synthesized only when asked for."""
SAMPLE_WEIGHTS = 1 << 10
"""Of matrices whose networks are too large to keep, Yosys gets so many weights, but at least one output."""
LARGEST = 1 << 24
GRAPH_WEIGHTS = 1 << 18
"""The search for shared sums takes minutes above this; larger matrices have it only when it is named."""


def weight_options(command: Command) -> Command:
    """Options that choose a matrix."""
    for option in (
        click.option("--seed", default=1, show_default=True, help="Of synthetic weights."),
        click.option(
            "--format",
            "kind",
            default="mxfp4",
            show_default=True,
            help="Of synthetic weights: mxfp4, int4, int3 or ternary.",
        ),
        click.option("--expert", type=int, help="Only this one, from 0, of a tensor of experts."),
        click.option("--tensor", help="Name of a tensor in a safetensors file."),
        click.option(
            "--weights",
            "path",
            type=click.Path(path_type=Path),
            help="Matrix of integers [outputs, inputs]: FILE.npy, or FILE.safetensors with --tensor.",
        ),
        click.option("--shape", help="INPUTSxOUTPUTS of synthetic weights.  [default: 1024x128]"),
    ):
        command = option(command)
    return command


@click.command("compare")
@weight_options
@click.option("--bits", default=1, show_default=True, help="Of an element a cycle: 1, 2, 4 or 8.")
@click.option("--design", "names", multiple=True, help="Only this design; repeat for several.")
@click.option(
    "--synthesis/--no-synthesis",
    default=None,
    help=f"Run Yosys.  [default: up to {SYNTHESIS_WEIGHTS} weights]",
)
@click.option(
    "--liberty", type=click.Path(path_type=Path), help="Cell library for the area that Yosys finds."
)
@click.option("--save", type=click.Path(path_type=Path), help="Folder for the Verilog of designs.")
@json_option
def compare_command(
    shape: str | None,
    path: Path | None,
    tensor: str | None,
    expert: int | None,
    kind: str,
    seed: int,
    bits: int,
    names: tuple[str, ...],
    synthesis: bool | None,
    liberty: Path | None,
    save: Path | None,
    as_json: bool,
) -> None:
    """Build the product of a fixed matrix and an INT8 vector in every way, and compare the costs.

    Cells are counted by the generator (structural, exact); areas follow from published cells of Nangate45,
    without wires. Every generated network is simulated against the integer product. Of matrices of very many
    weights --synthesis gives Yosys the first outputs only, and says so.
    """
    from hw.spec.output import check_output
    from sim_tests.hardwire_figures import all_figures, bit_serial_share, ratios
    from sim_tests.hardwire_weights import read_weights

    chosen = _chosen(names)
    if save is not None:
        check_output(save)
    weights = read_weights(path, tensor, shape, kind, seed, expert)
    spec = _spec(weights, bits)
    size = spec.inputs * spec.outputs
    if not names and size > GRAPH_WEIGHTS:
        chosen.remove("adder_graph")
        note(f"adder_graph: left out, {size} weights; --design adder_graph has it")
    files: dict[str, str] = {}
    operators: dict[str, Operator] = {}
    with progress("designs", None) as step:
        figures, neurons = all_figures(
            spec, chosen, lambda o: operators.__setitem__(o.name, o), step
        )
    result: dict[str, Any] = {
        "shape": f"{spec.inputs}x{spec.outputs}",
        "weights": weights.source,
        "nonzero": float((weights.values != 0).mean()),
        "counts_are": "structural, exact from the generator; areas from published cells, no wires",
        "designs": {name: design.as_dict(size) for name, design in figures.items()},
        "ratios_over": "hardwired neuron, signs merged",
        "ratios": ratios(figures, neurons),
    }
    if {"cell", "serial_cell"} <= set(figures):
        result["cell_over_neuron"] = bit_serial_share(figures)
    result["base"] = _base_figures(weights, bits)
    result |= _synthesized(operators, list(figures), spec, synthesis, liberty)
    result["da4ml"] = _da4ml(spec, isinstance(result["synthesis"], dict))
    if save is not None:
        files = _verilog_files(operators)
        _save(save, files)
        if not files:
            note(f"--save: nothing written: networks of {size} weights are counted, not kept")
    if as_json:
        print_json(result)
    else:
        print_comparison(result)


def _chosen(names: tuple[str, ...]) -> list[str]:
    from hw.hardwired.designs import DESIGNS

    for name in names:
        if name not in DESIGNS:
            raise InputError(f"--design: expected one of {', '.join(DESIGNS)}, found {name!r}")
    return [name for name in DESIGNS if not names or name in names or name == "neuron"]


def _spec(weights: "SmallWeights", bits: int) -> "OperatorSpec":
    from hw.hardwired.operator import OperatorSpec

    integers = weights.values
    if integers.size > LARGEST:
        raise InputError(f"{weights.source}: expected at most {LARGEST} weights")
    return OperatorSpec(tuple(map(tuple, integers.tolist())), bits=bits)


def _base_figures(weights: "SmallWeights", bits: int) -> dict[str, Any] | str:
    """Silicon that does not know the matrix, planned for its distribution."""
    import numpy as np

    from emulator.hardwired.weights import SmallWeights
    from hw.hardwired.base import build_base_neuron
    from hw.hardwired.metal import fit
    from sim_tests.hardwire_generate import check_program, plan_for

    flat = SmallWeights(weights.values, np.zeros_like(weights.exponents), weights.source)
    try:
        spec = plan_for(flat, bits=bits)
        metal = fit(spec, flat.values)
    except InputError as error:
        return f"does not fit: {error}"
    counts = build_base_neuron(spec, keep=False).netlist.counts()
    check = check_program(spec, metal, flat)
    area = counts.area * spec.outputs
    return {
        **metal.report(spec),
        "neuron": counts.as_dict(),
        "area": area,
        "area_per_weight": area / flat.values.size,
        "weights_proved": check,
    }


def _sample(spec: "OperatorSpec", names: list[str]) -> tuple[dict[str, "Operator"], str]:
    """Networks of the first outputs, and which these are; designs but one compute each output by itself."""
    from dataclasses import replace

    from hw.hardwired.designs import DESIGNS

    outputs = min(spec.outputs, max(1, SAMPLE_WEIGHTS // spec.inputs))
    part = replace(spec, weights=spec.weights[:outputs], biases=spec.biases[:outputs])
    operators = {name: DESIGNS[name].build(part, True) for name in names if name != "adder_graph"}
    text = f"{outputs} of {spec.outputs} outputs"
    return operators, text + (
        "; not shared adders, which outputs share" if "adder_graph" in names else ""
    )


def _synthesized(
    operators: dict[str, "Operator"],
    names: list[str],
    spec: "OperatorSpec",
    wanted: bool | None,
    liberty: Path | None,
) -> dict[str, Any]:
    """What Yosys finds, design by design, or why it was not run."""
    from hw.hardwired.verilog import Adders
    from sim_tests.hardwire_synthesis import gate_figures, lut_figures

    size = spec.inputs * spec.outputs
    if wanted is None and size > SYNTHESIS_WEIGHTS:
        return {"synthesis": f"not run: {size} weights; --synthesis runs it"}
    if wanted is False:
        return {"synthesis": "not run, as asked"}
    of = "all outputs"
    if set(names) - set(operators):
        operators, of = _sample(spec, names)
    table: dict[str, Any] = {}
    with progress("Yosys", len(operators)) as step:
        for name, operator in operators.items():
            table[name] = {**gate_figures(operator, liberty), **lut_figures(operator)}
            if name == "adder_graph":
                table[name]["lut6_2"] = lut_figures(operator, Adders.LUT6_2)
            step(1)
    return {"synthesis": table, "synthesis_of": of}


def _da4ml(spec: "OperatorSpec", synthesis: bool) -> dict[str, Any] | str:
    """Figures of da4ml, or why there are none."""
    from sim_tests.hardwire_da4ml import MAXIMUM_WEIGHTS, da4ml_figures, is_installed

    size = spec.inputs * spec.outputs
    if not is_installed():
        return "not installed; pip install 'openlpu[da4ml]' brings it"
    if size > MAXIMUM_WEIGHTS:
        return f"not run: {size} weights; its search is for up to {MAXIMUM_WEIGHTS}"
    return da4ml_figures(spec, synthesis)


def _verilog_files(operators: dict[str, "Operator"]) -> dict[str, str]:
    from hw.hardwired.frame import operator_verilog

    return {f"{name}.v": operator_verilog(operator, name) for name, operator in operators.items()}


def _save(folder: Path, files: dict[str, str]) -> None:
    from hw.spec.output import atomic_write

    if files:
        with atomic_write(folder) as part:
            part.mkdir()
            for name, text in files.items():
                (part / name).write_text(text)


def compare_commands() -> list[click.Command]:
    """Commands of the group `hardwire`."""
    return [compare_command]
