"""The published tables of cost, carbon and efficiency, beside what the cost model says; where they contradict themselves."""

from typing import Any

from emulator.hardwired_cost import HOURS_A_YEAR, Chips, CostInputs, costs
from emulator.hardwired_system.published import published

FITTED = {
    "16 full mask sets, $M",
    "initial cost, low, $M",
    "initial cost, high, $M",
    "re-spin, low, $M",
    "50 systems, static, low, $M",
}
"""Published figures from which an input was taken: that these are met says nothing."""


def gpu_carbon_kg(gpus: int, inputs: CostInputs) -> float:
    """Carbon of a cluster of H100 over the same years, at the published power of one."""
    v = inputs.pick(0)
    kwh = published()["others"]["H100"]["system_kw"] * v["years"] * HOURS_A_YEAR
    return gpus * (kwh * v["carbon_kwh"] + v["carbon_gpu"])


def check_tables(
    chips: Chips, inputs: CostInputs, tokens_per_second: float
) -> list[dict[str, Any]]:
    """Compare with every published figure that the inputs determine; deviation in per cent.

    Parameters
    ----------
    tokens_per_second
        Of a system, emulated at the published context.
    """
    paper = published()["cost"]
    one = [costs(chips, inputs, end) for end in (0, 1)]
    fifty = [costs(chips, inputs, end, 50) for end in (0, 1)]
    rows: list[tuple[str, float, float]] = [
        ("silicon of 16 chips, mm2", chips.total_mm2, published()["throughput"]["silicon_mm2"]),
        ("power of a system, kW", one[0]["system_kilowatts"], published()["throughput"]["system_kw"]),
        ("16 full mask sets, $M", one[1]["full_sets_dollars"] / 1e6, paper["sixteen_sets_million"]),
        ("masks of 16 chips, $M", one[1]["masks_dollars"] / 1e6, paper["sixteen_chips_million"]),
        (
            "masks of cell-embedding chips over these",
            paper["cell_embedding_area_ratio"] * one[1]["full_sets_dollars"] / one[1]["masks_dollars"],
            paper["mask_reduction"],
        ),
    ]  # fmt: skip
    for end, label in enumerate(("low", "high")):
        for name, key, source in (
            ("initial cost", "initial_dollars", "initial_million"),
            ("re-spin", "respin_dollars", "respin_million"),
            ("one system, static", "static_dollars", "one_system_static_million"),
        ):
            rows.append((f"{name}, {label}, $M", one[end][key] / 1e6, paper[source][label]))
        rows.append((
            f"50 systems, static, {label}, $M",
            fifty[end]["static_dollars"] / 1e6,
            paper["fifty_systems_static_million"][label],
        ))
        rows.append((
            f"100,000 H100 over 50 systems with updates, {label}",
            1e6 * paper["gpus_100000_million"] / fifty[end]["updated_dollars"],
            paper["fifty_systems_updated_ratio"][label],
        ))
    rows.append((
        "carbon of 2,000 H100 over one system with updates",
        gpu_carbon_kg(2000, inputs) / one[0]["carbon_kg"],
        paper["carbon_ratio"],
    ))
    rows += _efficiency(chips, tokens_per_second, one[0]["system_kilowatts"])
    return [
        {
            "what": what,
            "modelled": ours,
            "published": theirs,
            "deviation_percent": 100 * (ours / theirs - 1),
            "input_from_it": what in FITTED,
        }
        for what, ours, theirs in rows
    ]


def _efficiency(
    chips: Chips, tokens_per_second: float, kilowatts: float
) -> list[tuple[str, float, float]]:
    """Sums of the table of blocks, and the quotients of the table of systems."""
    paper = published()
    chip, own = paper["chip"], paper["throughput"]
    rows: list[tuple[str, float, float]] = [
        ("one chip from its blocks, mm2", sum(chip["mm2"].values()), chip["total_mm2"]),
        ("one chip from its blocks, W", sum(chip["watts"].values()), chip["total_watts"]),
    ]
    systems = {"16 chips": (tokens_per_second, kilowatts, chips.total_mm2, own)}
    for name in ("H100", "WSE-3"):
        row = paper["others"][name]
        systems[name] = (row["tokens_per_second"], row["system_kw"], row["silicon_mm2"], row)
    for name, (rate, power, area, row) in systems.items():
        rows.append((f"{name}, tokens a kJ", rate / power, row["tokens_per_kj"]))
        per_area = row["tokens_per_second_and_mm2"]
        rows.append((f"{name}, tokens a second and mm2", rate / area, per_area))
    return rows


def contradictions(chips: Chips, inputs: CostInputs) -> list[str]:
    """Published figures that do not fit each other, with the numbers that show it."""
    paper, rate = published()["cost"], published()["throughput"]["tokens_per_second"]
    gpu = published()["others"]["H100"]["tokens_per_second"]
    fifty = paper["fifty_systems_static_million"]
    first, more = (
        {end: paper[key][end] - paper["initial_million"][end] for end in ("low", "high")}
        for key in ("one_system_static_million", "fifty_systems_static_million")
    )
    equal = 2000 * gpu
    return [
        f"A first system adds ${1000 * first['low']:.0f}K to {1000 * first['high']:.0f}K to the initial "
        f"cost, but each of fifty ${1000 * more['low'] / 50:.0f}K to {1000 * more['high'] / 50:.0f}K "
        f"(${fifty['low']}M to {fifty['high']}M).",
        f"One system is compared with 2,000 H100, which at {gpu} tokens/s each make {equal:,} tokens/s "
        f"against its {rate:,}: the cost table takes 1,080 tokens/s an H100.",
        f"Static, one system costs {paper['gpus_2000_million'] / paper['one_system_static_million']['high']:.2f} "
        f"to {paper['gpus_2000_million'] / paper['one_system_static_million']['low']:.2f} times less than "
        f"2,000 H100; with annual updates "
        f"{paper['gpus_2000_million'] * 1e6 / costs(chips, inputs, 1)['updated_dollars']:.2f} to "
        f"{paper['gpus_2000_million'] * 1e6 / costs(chips, inputs, 0)['updated_dollars']:.2f}: the "
        f"published {paper['fifty_systems_updated_ratio']['high']} to "
        f"{paper['fifty_systems_updated_ratio']['low']} holds for fifty systems alone.",
    ]
