"""Readings of the published machine, and variants of it that are faster with the same chips and links."""

import dataclasses
from dataclasses import dataclass

from emulator.hardwired_system.machine import (
    SHARED_LANES,
    Arbitration,
    Partition,
    Reduction,
    SystemMachine,
)

HBM3_STACK = 819_000_000_000
"""Bytes a second of one HBM3 stack (public figure of JEDEC HBM3 at 6.4 Gb/s a pin)."""

HBM_STACKS = 8


@dataclass(frozen=True)
class Variant:
    """A machine with a name and what is different about it."""

    name: str
    change: str
    machine: SystemMachine


def readings() -> list[Variant]:
    """Ways in which the published figures can be read; the first is the default machine."""
    machine = SystemMachine()
    shared = dataclasses.replace(
        machine,
        arbitration=Arbitration.SHARED,
        partial_sum_bits=32,
        activation_bits=32,
    )
    return [
        Variant(
            "serial",
            "links and compute of one token one after the other, links divided evenly and for good "
            "among the tokens in flight, 16-bit elements",
            machine,
        ),
        Variant(
            "overlapped",
            "links given to messages in order of arrival, so that they carry one token while others "
            "compute; 32-bit elements, as the published link bound suggests",
            shared,
        ),
        Variant(
            "shared units",
            "as serial, but all tokens in flight share one attention unit of 256 dot products a cycle "
            "and eight HBM3 stacks a chip",
            dataclasses.replace(
                machine,
                attention_lanes=SHARED_LANES,
                hbm_shared=True,
                hbm_bytes_per_second=HBM_STACKS * HBM3_STACK,
            ),
        ),
    ]


def improvements() -> list[Variant]:
    """Steps from the published machine to the best variant found, each on top of the one before.

    All of them have experts drawn at random, one attention unit of 256 dot products a cycle, and eight
    HBM3 stacks a chip that all tokens share: resources are not idealized as in the published reading.
    """
    steps: list[tuple[str, str, dict[str, object]]] = [
        (
            "real resources",
            "experts at random, one attention unit, HBM shared",
            {
                "even_routing": False,
                "attention_lanes": SHARED_LANES,
                "hbm_shared": True,
                "hbm_bytes_per_second": HBM_STACKS * HBM3_STACK,
            },
        ),
        (
            "shared links",
            "a message gets the whole link, in order of arrival",
            {"arbitration": Arbitration.SHARED},
        ),
        (
            "exact partial sums",
            "32 bits: reductions lose nothing",
            {"partial_sum_bits": 32, "activation_bits": 32},
        ),
        (
            "result ports",
            "eight double-buffered result ports a layer step",
            {"ports": 8, "double_buffered": True},
        ),
        (
            "scattered reduction",
            "residual stream in sixteenths, INT8 after the norm is what is gathered",
            {"reduction": Reduction.SCATTERED, "activation_bits": 8},
        ),
        (
            "heads",
            "attention divided by heads, not by positions: keys and values twice",
            {"partition": Partition.HEADS},
        ),
        ("24-bit sums", "partial sums of 24 bits", {"partial_sum_bits": 24}),
        ("wider ports", "32 bytes a cycle a port", {"operand_bus_bytes": 32}),
        ("8-bit keys and values", "INT8 keys and values", {"kv_bits": 8}),
        ("16-bit sums", "partial sums of 16 bits", {"partial_sum_bits": 16}),
        ("8-bit sums", "partial sums of 8 bits", {"partial_sum_bits": 8}),
        ("more in flight", "nine tokens a layer instead of six", {"stages": 9}),
    ]
    result = []
    machine = SystemMachine()
    for name, change, fields in steps:
        machine = dataclasses.replace(machine, **fields)  # pyright: ignore[reportArgumentType] - names are checked by replace
        result.append(Variant(name, change, machine))
    return result


def numeric_variants() -> list[Variant]:
    """The published machine, and those improvements that change what is computed; narrower sums last."""
    steps = improvements()
    changing = {"exact partial sums", "scattered reduction", "heads", "24-bit sums",
                "8-bit keys and values", "16-bit sums", "8-bit sums"}  # fmt: skip
    last = next(v.machine for v in steps if v.name == "8-bit sums")
    narrower = [
        Variant(
            f"{bits}-bit sums",
            f"partial sums of {bits} bits",
            dataclasses.replace(last, partial_sum_bits=bits),
        )
        for bits in (6, 4)
    ]
    return [readings()[0], *(v for v in steps if v.name in changing), *narrower]
