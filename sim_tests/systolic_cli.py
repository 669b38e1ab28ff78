"""`lpu pe array`: cycles of one product on a systolic array, emulated and measured on RTL."""

from typing import TYPE_CHECKING, Any

import click

from emulator.console import json_option, note, print_facts, print_json
from hw.spec.errors import CheckFailed, InputError

if TYPE_CHECKING:
    from emulator.systolic import GemmCost
    from emulator.systolic_gemm import Gemm, Tiling
    from hw.spec.systolic import SystolicSpec

SMALL_ELEMENTS = 64
"""Largest array that is simulated unless asked for."""
LARGEST_ELEMENTS = 1024
"""Largest array that is simulated at all."""
SMALL_CYCLES = 20_000
"""Longest run that is simulated unless asked for."""


@click.command("array")
@click.option(
    "--target", help="Bundled target of the family, or its YAML file. [default: mixpe-w4a8]"
)
@click.option("--rows", type=int, help="Elements from top to bottom.")
@click.option("--columns", type=int, help="Elements from left to right.")
@click.option("--dataflow", type=click.Choice(["os", "ws"]), help="What stays: outputs or weights.")
@click.option("--element", help="Processing element; `lpu pe list` has the names.")
@click.option("--group-size", type=int, help="Longest run along K with one scale.")
@click.option(
    "--dequantization",
    type=click.Choice(["none", "float32", "integer", "channel"]),
    help="Per group.",
)
@click.option(
    "--columns-per-unit", type=int, help="Columns that share a dequantization unit, a power of two."
)
@click.option("--gemm", "shape", required=True, help="MxKxN: [M, K] activations, [K, N] weights.")
@click.option(
    "--rtl/--no-rtl",
    default=None,
    help=f"Simulate the hardware too. [default: up to {SMALL_ELEMENTS} elements, {SMALL_CYCLES} cycles]",
)
@click.option("--seed", default=1, show_default=True, help="Of the operands in the simulation.")
@json_option
def array_command(
    target: str | None, shape: str, rtl: bool | None, seed: int, as_json: bool, **fields: Any
) -> None:
    """Cycles of one product of matrices on a systolic array.

    Options that describe the array replace fields of the target.
    """
    from emulator.systolic import gemm_cost
    from emulator.systolic_gemm import parse_gemm

    gemm = parse_gemm(shape)
    given = {name: value for name, value in fields.items() if value is not None}
    spec = build_array(target, given)
    cost = gemm_cost(spec, gemm)
    reason = _reason_against(spec, cost.array_cycles, rtl)
    measured = None
    if reason is None:
        if not as_json:
            note(f"emulator: {cost.array_cycles} cycles; simulating them in Verilator")
        measured = measure(spec, gemm, cost.tiling, seed)
        if measured != cost.array_cycles:
            raise CheckFailed(f"RTL: {measured} cycles, not {cost.array_cycles} as emulated")
    facts = _facts(spec, cost, measured, reason)
    if as_json:
        print_json(facts)
        return
    print_facts({
        f"{name} ({fact['label']})": fact["value"] for name, fact in facts["figures"].items()
    })
    if reason:
        note(f"RTL: {reason}")


def build_array(target: str | None, given: dict[str, Any]) -> "SystolicSpec":
    """The array of a target with some fields replaced; others follow where they must."""
    from hw.spec.element_family import element_spec
    from hw.spec.systolic_parts import Dataflow, Dequantization
    from hw.spec.systolic_target import check_systolic, load_systolic, systolic_from_dict

    spec = load_systolic(target or "mixpe-w4a8")
    if not given:
        return spec
    content = spec.to_dict() | given
    if "element" in given and "dequantization" not in given:
        fp32 = element_spec(given["element"]).fp32
        content["dequantization"] = "float32" if fp32 else content["dequantization"]
    rows = content["rows"]
    if not 1 <= rows <= 1024:
        raise InputError(f"array: rows: expected a whole number from 1 to 1024, found {rows}")
    if "group_size" not in given:
        size = content["group_size"]
        ws = content["dataflow"] == Dataflow.WEIGHT_STATIONARY.value
        sums = rows * max(1, content["columns_per_unit"])
        content["group_size"] = -(-size // rows) * rows if ws else max(size, sums)
    none = content["dequantization"] == Dequantization.NONE.value
    content["accumulator_rows"] = 0 if none else max(spec.accumulator_rows, rows)
    # As many rows of results as must be able to wait.
    content["result_rows"] = 1 << 16
    content["name"] = "array"
    wide = systolic_from_dict({"family": "mixpe"} | content, "array")
    content["result_rows"] = wide.least_result_rows
    return check_systolic(systolic_from_dict({"family": "mixpe"} | content, "array"), "array")


def _reason_against(spec: "SystolicSpec", cycles: int, rtl: bool | None) -> str | None:
    """Why the hardware is not simulated; None if it is."""
    from sim_tests.toolchain import require_tools

    elements = spec.rows * spec.columns
    if rtl is False:
        return "not asked for"
    if rtl:
        if elements > LARGEST_ELEMENTS:
            raise InputError(
                f"--rtl: expected an array of at most {LARGEST_ELEMENTS} elements, found {elements}"
            )
        require_tools()
        return None
    if elements > LARGEST_ELEMENTS:
        return f"{elements} elements; up to {LARGEST_ELEMENTS} are simulated"
    if elements > SMALL_ELEMENTS or cycles > SMALL_CYCLES:
        return f"{elements} elements and {cycles} cycles are many; ask with --rtl"
    try:
        require_tools()
    except InputError as error:
        return str(error)
    return None


def measure(spec: "SystolicSpec", gemm: "Gemm", tiling: "Tiling", seed: int = 1) -> int:
    """Cycles of a product on the RTL, from the first beat to the last row of outputs.

    The outputs are compared with the golden model, and every group and row with the emulator's cycle.

    Raises
    ------
    CheckFailed
        If anything differs.
    """
    import json
    import tempfile
    from pathlib import Path

    from hw.pe.array import SystolicArray
    from sim_tests.bench import run_bench

    with tempfile.TemporaryDirectory(prefix="openlpu-array-") as folder:
        report = Path(folder, "cycles.json")
        blocks = (tiling.m, tiling.k, tiling.n, tiling.columns_first)
        parameters = {
            "array": spec.to_dict(),
            "gemms": [{"shape": (gemm.m, gemm.k, gemm.n), "blocks": blocks}],
            "report": str(report),
        }
        try:
            run_bench(
                "pe_array",
                lambda: SystolicArray(spec),
                "sim_tests.bench_systolic",
                parameters=parameters,
                seed=seed,
                only="every_product_is_right",
            )
        except AssertionError as error:
            lines = [line for line in str(error).splitlines() if "AssertionError" in line]
            said = lines[-1].strip() if lines else str(error).splitlines()[0]
            raise CheckFailed(f"RTL: {said}") from None
        return json.loads(report.read_text())[0]


EXACT = "emulated"
MODELLED = "emulated array, modelled memory"


def _facts(
    spec: "SystolicSpec", cost: "GemmCost", measured: int | None, reason: str | None
) -> dict[str, Any]:
    """Everything to be printed; each figure with its label."""
    gemm, moved = cost.gemm, cost.traffic
    busy = cost.products / (cost.array_cycles * spec.rows * spec.columns)
    rate = spec.processing_element.products_per_cycle
    figures = {
        "array cycles": (cost.array_cycles, EXACT),
        "array cycles on RTL": (measured, "measured on RTL"),
        "cycles with buffers and memory": (cost.cycles, MODELLED),
        "memory cycles": (cost.memory_cycles, "modelled"),
        "utilization of the array": (busy / rate, EXACT),
        "products": (cost.products, EXACT),
        "memory bytes read": (moved.memory_read, MODELLED),
        "memory bytes written": (moved.memory_write, MODELLED),
        "buffer bytes read, activations": (moved.activation_read, EXACT),
        "buffer bytes read, weights": (moved.weight_read, EXACT),
        "bytes of sums read": (moved.sums_read, EXACT),
        "bytes of sums written": (moved.sums_written, EXACT),
    }
    return {
        "gemm": {"m": gemm.m, "k": gemm.k, "n": gemm.n},
        "array": spec.to_dict(),
        "block": {"m": cost.tiling.m, "k": cost.tiling.k, "n": cost.tiling.n},
        "rtl": "equal" if measured is not None else reason,
        "figures": {
            name: {"value": value, "label": label} for name, (value, label) in figures.items()
        },
    }
