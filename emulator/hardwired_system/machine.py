"""Parameters of the 16-chip machine, each with where it comes from."""

import dataclasses
import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from hw.spec.errors import InputError

PAPER = "published: HNLPU, arXiv 2508.16151 v2"
CXL = "published: CXL 3.0, 256-byte flit"
ASSUMED = "assumed"
"""A natural value (a power of two, a public standard), chosen with the published figures in view."""
CALIBRATED = "assumed, fitted to one published share"

SLOT_BYTES = 16


class Arbitration(StrEnum):
    """Who may use a link when."""

    STATIC = "static"
    """Each token in flight owns an equal share of every link, used or not."""
    SHARED = "shared"
    """A message gets the whole link, in order of arrival."""


class Partition(StrEnum):
    """How the chips of a column divide attention."""

    POSITIONS = "positions"
    """Each has a quarter of the positions of all the column's heads."""
    HEADS = "heads"
    """Each has a quarter of the query heads, and all positions of the key and value head they use."""


class Reduction(StrEnum):
    """How partial sums over the whole grid become a vector that all chips have."""

    REPEATED = "repeated"
    """An all-reduce in rows, then one (or a gather) in columns: every chip ends with the whole vector."""
    SCATTERED = "scattered"
    """Reduce-scatter in rows and columns, the residual stream stays in sixteenths, and what is
    gathered are INT8 activations after the norm. Half of each vector takes rows first, half columns."""


SHARED_LANES = 8
"""32 cached key heads a cycle, each used by 8 query heads: 256 dot products, 8 lanes of 32."""


def parameter(
    default: Any, source: str, why: str, swept: bool = False, *, otherwise: Any = None
) -> Any:
    """A field with its source; for the sensitivity study `swept` ones vary, others become `otherwise`."""
    facts = {"source": source, "why": why, "swept": swept, "otherwise": otherwise}
    return field(default=default, metadata=facts)


@dataclass(frozen=True, kw_only=True)
class SystemMachine:
    """The machine; defaults are the published machine with the assumptions that reproduce its figures."""

    rows: int = parameter(4, PAPER, "rows of chips")
    columns: int = parameter(4, PAPER, "columns of chips")
    stages: int = parameter(6, PAPER, "stages of a layer; stages x layers tokens are in flight")
    clock_hz: int = parameter(1_000_000_000, PAPER, "clock of a chip")
    link_bytes_per_second: int = parameter(128_000_000_000, PAPER, "of one link, each direction")
    link_latency_ns: int = parameter(
        100, ASSUMED, "of a message, beyond its transfer; the paper says below 100 ns", True
    )
    flit_bytes: int = parameter(256, CXL, "bytes of a flit on the wire")
    flit_slots: int = parameter(
        15, ASSUMED, "16-byte slots of a flit that carry data; the paper names CXL 3.0 alone", True
    )
    arbitration: Arbitration = parameter(
        Arbitration.STATIC,
        ASSUMED,
        "each token in flight owns a fixed share of every link; only this keeps the published link "
        "time constant from 2K to 512K",
        otherwise=Arbitration.SHARED,
    )
    partition: Partition = parameter(Partition.POSITIONS, PAPER, "a chip holds l/4 positions")
    reduction: Reduction = parameter(
        Reduction.REPEATED, PAPER, "row all-reduce and column all-gather, all-chip all-reduce"
    )
    partial_sum_bits: int = parameter(
        16, ASSUMED, "of a partial sum or a softmax statistic on a link", True
    )
    activation_bits: int = parameter(16, ASSUMED, "of a gathered activation on a link", True)
    input_bits: int = parameter(8, PAPER, "cycles in which a bit-serial input passes")
    operand_bus_bytes: int = parameter(
        16, ASSUMED, "a cycle into and out of the wires of one layer step", True
    )
    result_bits: int = parameter(32, ASSUMED, "of one sum on that bus", True)
    ports: int = parameter(
        1,
        ASSUMED,
        "buses out of a layer step, over which its matrices divide; an expert uses one",
        otherwise=2,
    )
    double_buffered: bool = parameter(
        False,
        ASSUMED,
        "whether wires take the next token while results of one leave",
        otherwise=True,
    )
    even_routing: bool = parameter(
        True,
        ASSUMED,
        "no two of a token's experts are on one chip; false draws them at random",
        otherwise=False,
    )
    vector_lanes: int = parameter(
        64, ASSUMED, "elements a cycle of one vector pipeline; each layer has its own", True
    )
    vector_latency: int = parameter(
        8, ASSUMED, "cycles of a vector operation beyond its passes", True
    )
    attention_dots: int = parameter(
        32, PAPER, "dot products of one head a cycle and attention lane; scores and values overlap"
    )
    attention_lanes: int = parameter(
        0,
        ASSUMED,
        "lanes of a chip, 0 for one a token in flight: the published attention time has no waiting",
        otherwise=SHARED_LANES,
    )
    kv_bits: int = parameter(16, ASSUMED, "of a key or value element", True)
    buffer_bytes: int = parameter(320_000_000, PAPER, "on-chip key and value buffer of a chip")
    hbm_bytes: int = parameter(8 * 24_000_000_000, PAPER, "capacity of the HBM of a chip")
    hbm_bytes_per_second: int = parameter(
        650_000_000_000,
        CALIBRATED,
        "of a chip for one token in flight (static), or for all (shared); the paper gives none. "
        "Fitted to the stall share at 512K",
        True,
    )
    hbm_shared: bool = parameter(
        False, ASSUMED, "whether all tokens in flight share that bandwidth", otherwise=True
    )

    def __post_init__(self) -> None:
        for name in ("rows", "columns"):
            if not 2 <= getattr(self, name) <= 64:
                raise InputError(f"machine: {name}: expected 2 to 64, found {getattr(self, name)}")
        if self.flit_slots * SLOT_BYTES > self.flit_bytes:
            raise InputError(
                f"machine: flit_slots: expected at most {self.flit_bytes // SLOT_BYTES}, "
                f"found {self.flit_slots}"
            )
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            least = 0 if entry.name in ("attention_lanes", "vector_latency") else 1
            whole = isinstance(value, int) and not isinstance(value, bool)
            if entry.type is int and (not whole or value < least):
                raise InputError(
                    f"machine: {entry.name}: expected a whole number from {least}, found {value}"
                )
        if self.ticks_per_second > 1 << 50:
            raise InputError("machine: clock_hz and link_bytes_per_second: expected round numbers")

    @property
    def chips(self) -> int:
        """Chips of the grid."""
        return self.rows * self.columns

    @property
    def ticks_per_second(self) -> int:
        """Unit of time in which cycles and slots are both whole: times are exact."""
        return math.lcm(self.clock_hz, self.flit_slots * self.link_bytes_per_second)

    @property
    def ticks_per_cycle(self) -> int:
        """Ticks of a clock cycle."""
        return self.ticks_per_second // self.clock_hz

    @property
    def latency_ticks(self) -> int:
        """Ticks of a message beyond its transfer, rounded up."""
        return -(-self.link_latency_ns * self.ticks_per_second // 1_000_000_000)

    def in_flight(self, layers: int) -> int:
        """Tokens on their way at once."""
        return self.stages * layers

    def link_ticks(self, data_bytes: int, layers: int) -> int:
        """Ticks for which a message of so many bytes has its link, or its share of it."""
        slots = -(-data_bytes // SLOT_BYTES)
        per_slot = self.ticks_per_second // (self.flit_slots * self.link_bytes_per_second)
        share = self.in_flight(layers) if self.arbitration is Arbitration.STATIC else 1
        return slots * self.flit_bytes * per_slot * share

    def lanes(self, layers: int) -> int:
        """Attention lanes of a chip."""
        return self.attention_lanes or self.in_flight(layers)


def is_static(machine: SystemMachine) -> bool:
    """Whether each token in flight owns its share of the links."""
    return machine.arbitration is Arbitration.STATIC


def assumptions(machine: SystemMachine) -> list[dict[str, Any]]:
    """Every parameter that the paper does not state, with its value and the reason for it."""
    return [
        {
            "name": entry.name,
            "value": getattr(machine, entry.name),
            "source": entry.metadata["source"],
            "why": entry.metadata["why"],
        }
        for entry in dataclasses.fields(machine)
        if not entry.metadata["source"].startswith("published")
    ]
