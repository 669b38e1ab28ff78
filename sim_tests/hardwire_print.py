"""Tables of `lpu hardwire compare`, for people."""

from typing import Any

from emulator.console import print_facts, print_table

__all__ = ["print_comparison"]


def print_comparison(result: dict[str, Any]) -> None:
    """Print the tables of one comparison."""
    _print_designs(result)
    _print_summary(result)
    if not isinstance(result["synthesis"], str):
        _print_synthesis(result)


def _print_designs(result: dict[str, Any]) -> None:
    designs = result["designs"]
    print_table(
        f"{result['shape']}, {result['weights']}: cells (structural)",
        ["design", "full adders", "half", "flip-flops", "memory bits", "um2/weight", "cycles"]
        + ["um2 x cycles", "depth", "toggles/weight", "seconds"],
        [
            [
                d["title"],
                d["full_adders"],
                d["half_adders"],
                d["registers"],
                d["memory_bits"],
                d["area_per_weight"],
                d["cycles"],
                d["area_cycles"],
                d["depth"],
                d["toggles_per_weight"],
                d["generation_seconds"],
            ]
            for d in designs.values()
        ],
    )
    print_table(
        f"Ratios over: {result['ratios_over']}",
        ["design", "area", "area x time", "area at equal bits a cycle"],
        [
            [designs[name]["title"], r["area"], r["area_time"], r["equal_bits"]]
            for name, r in result["ratios"].items()
        ],
    )


def _print_summary(result: dict[str, Any]) -> None:
    if "cell_over_neuron" in result:
        share = result["cell_over_neuron"]
        print_facts({
            "cell embedding over neuron, area": share["total"],
            "  of it bit-serial": share["serial"],
            "  of it regions": share["regions"],
        })
    base = result["base"]
    if isinstance(base, str):
        print_facts({"base netlist": base})
    else:
        print_facts({
            "base netlist, um2/weight": base["area_per_weight"],
            "  ports per input": base["ports_per_input"],
            "  slack of ports": base["slack"],
            "  wires": base["wires"],
        })
    other = result["da4ml"]
    print_facts(
        {"da4ml": other} if isinstance(other, str) else {f"da4ml, {k}": other[k] for k in other}
    )
    if isinstance(result["synthesis"], str):
        print_facts({"Yosys": result["synthesis"]})


def _print_synthesis(result: dict[str, Any]) -> None:
    designs = result["designs"]
    rows = [
        [
            designs[name]["title"],
            s["cells"],
            s.get("area", s.get("transistors")),
            s["luts"],
            s["luts_per_weight"],
            s["flip_flops"],
        ]
        for name, s in result["synthesis"].items()
    ]
    graph = result["synthesis"].get("adder_graph")
    if graph:
        s = graph["lut6_2"]
        title = "shared adders, bit-serial, LUT6_2"
        rows.append([title, None, None, s["luts"], s["luts_per_weight"], s["flip_flops"]])
    print_table(
        f"Synthesized (Yosys), {result['synthesis_of']}: gates of CMOS, LUTs of UltraScale+",
        ["design", "cells", "area or transistors", "LUT", "LUT/weight", "FF"],
        rows,
    )
