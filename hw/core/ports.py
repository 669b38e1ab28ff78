"""Signatures of the on-chip buffer ports, and payload layouts, shared by the units and the top."""

from amaranth.lib import data
from amaranth.lib.wiring import In, Member, Out, Signature
from amaranth.utils import ceil_log2

from hw.spec.instructions import Unit, operation_fields


def operation_layout(unit: Unit) -> data.StructLayout:
    """Layout of the instruction stream into a unit: evaluated fields in the order of the spec."""
    return data.StructLayout(dict(operation_fields(unit)))


def read_port(depth: int, width: int) -> Signature:
    """Reader's side of a buffer: `data` is row `address` as presented in the cycle before."""
    return Signature({"address": Out(ceil_log2(depth)), "data": In(width)})


def write_port(depth: int, width: int, granularity: int | None = None) -> Signature:
    """Writer's side of a buffer: one `enable` bit for every `granularity` bits of `data` (default: all)."""
    return Signature({
        "enable": Out(width // (granularity or width)),
        "address": Out(ceil_log2(depth)),
        "data": Out(width),
    })


def unit_members(unit: Unit) -> dict[str, Member]:
    """What every unit reports to its sequencer.

    `done` is high in the cycle in which an instruction ends, with `checksum` of what it wrote; `illegal` is
    high for one cycle if an accepted instruction cannot be executed (the unit then stays idle).
    """
    return {"done": Out(1), "checksum": Out(32), "illegal": Out(1)}
