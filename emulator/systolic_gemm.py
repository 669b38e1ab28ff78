"""Products of matrices as a systolic array sees them: shapes, tiles, and the order of its work."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from hw.spec.errors import InputError
from hw.spec.systolic import SystolicSpec
from hw.spec.systolic_parts import RESULT_BITS

__all__ = [
    "Gemm",
    "Tiling",
    "Work",
    "blocks",
    "check_tiling",
    "groups",
    "parse_gemm",
    "whole_tiling",
    "works",
]

LARGEST_EXTENT = 1 << 24


@dataclass(frozen=True)
class Gemm:
    """``Y [m, n] = X [m, k] W [k, n]``, computed `count` times on different operands.

    Parameters
    ----------
    m, k, n : int
        Rows of X, columns of X, columns of W.
    count : int
        How often; attention has one for each head.
    name : str
        For reports.
    weight_bits : float or None
        Bits of an element of W in memory; None: the bits that enter a column in a beat, shared by the products
        of the beat. To be given where an element takes other codes than memory holds (BitFusion's modes,
        decoded ANT and OliVe, BitMoD's terms).
    activation_bits : float or None
        Bits of an element of X in memory; None: likewise, of a row.
    result_bits : int
        Bits of an element of Y in memory.
    planes : int
        Parts of W that are multiplied one after the other, as an 8-bit operand on an element for 4-bit
        weights: each is a matrix [k, n] with scales of its own, and the sums of all are added.
    """

    m: int
    k: int
    n: int
    count: int = 1
    name: str = ""
    weight_bits: float | None = None
    activation_bits: float | None = None
    result_bits: int = RESULT_BITS
    planes: int = 1

    def __post_init__(self) -> None:
        for field in ("m", "k", "n", "count", "planes"):
            value = getattr(self, field)
            if not 1 <= value <= LARGEST_EXTENT:
                raise InputError(
                    f"gemm: {field}: expected a whole number from 1 to {LARGEST_EXTENT}, found {value}"
                )

    @property
    def products(self) -> int:
        """Multiplications of whole operands."""
        return self.m * self.k * self.n * self.count

    def beats(self, spec: SystolicSpec) -> int:
        """Length of the sums in operand sets of the element: `k`, but for elements that take several."""
        return math.ceil(self.k * self.planes / spec.processing_element.products_per_cycle)


def parse_gemm(text: str) -> Gemm:
    """Read ``MxKxN``.

    Raises
    ------
    InputError
        If it is anything else.
    """
    found = re.fullmatch(r"(\d{1,9})x(\d{1,9})x(\d{1,9})", text, re.ASCII)
    if not found:
        raise InputError(f"gemm: expected MxKxN, three whole numbers, found {ascii(text)}")
    m, k, n = map(int, found.groups())
    return Gemm(m, k, n)


@dataclass(frozen=True)
class Tiling:
    """The part of a product whose operands are on chip at once, and the order of such blocks.

    Parameters
    ----------
    m, k, n : int
        Extents of a block; `k` in beats.
    columns_first : bool
        The next block is one of other columns of W; otherwise of other rows of X.
    """

    m: int
    k: int
    n: int
    columns_first: bool = True


@dataclass(frozen=True)
class Work:
    """One tile of outputs along a part of K (os), or one pass: a tile of W for some rows of X (ws).

    Parameters
    ----------
    m0, m1, k0, k1, n0, n1 : int
        Half-open ranges.
    address : int
        Entry of the first row in the memory of sums.
    opens, closes : bool
        It is the first, the last along K.
    """

    m0: int
    m1: int
    k0: int
    k1: int
    n0: int
    n1: int
    address: int
    opens: bool
    closes: bool


def check_tiling(spec: SystolicSpec, tiling: Tiling, beats: int) -> None:
    """Raise `InputError` unless the array can hold the sums of a block, and blocks cut no group."""
    m_tiles, n_tiles = math.ceil(tiling.m / spec.rows), math.ceil(tiling.n / spec.columns)
    if tiling.k < beats and tiling.k % spec.group_size and spec.dequantizes:
        raise InputError(
            f"tiling: k: expected a multiple of the group size {spec.group_size}, found {tiling.k}"
        )
    if not spec.dequantizes:
        if beats > spec.group_size:
            raise InputError(
                f"gemm: k: expected at most {spec.group_size} beats without dequantization, found {beats}"
            )
        if tiling.k < beats and m_tiles * n_tiles > 1:
            raise InputError("tiling: expected one tile a block where blocks cut k")
        return
    rows = m_tiles * spec.rows if spec.output_stationary else tiling.m
    if n_tiles * rows > spec.accumulator_rows:
        raise InputError(
            f"tiling: expected at most {spec.accumulator_rows} rows of sums, found {n_tiles * rows}"
        )


def whole_tiling(spec: SystolicSpec, gemm: Gemm) -> Tiling:
    """The largest blocks that the memory of sums allows, K in one piece; buffers are not looked at."""
    beats = gemm.beats(spec)
    if spec.output_stationary:
        n = min(math.ceil(gemm.n / spec.columns), spec.slots)
        m = max(min(math.ceil(gemm.m / spec.rows), spec.slots // n), 1)
        return Tiling(m * spec.rows, beats, n * spec.columns)
    m = min(gemm.m, spec.accumulator_rows)
    n = min(math.ceil(gemm.n / spec.columns), spec.accumulator_rows // m)
    return Tiling(m, beats, n * spec.columns)


def blocks(gemm: Gemm, beats: int, tiling: Tiling) -> Iterator[tuple[int, int, int]]:
    """First row, beat and column of each block, in order."""
    rows, columns = range(0, gemm.m, tiling.m), range(0, gemm.n, tiling.n)
    outer = [(m, n) for m in rows for n in columns]
    if not tiling.columns_first:
        outer = [(m, n) for n in columns for m in rows]
    for m, n in outer:
        for k in range(0, beats, tiling.k):
            yield m, k, n


def works(spec: SystolicSpec, gemm: Gemm, tiling: Tiling) -> Iterator[Work]:
    """What the array does for one product, in order.

    Within a block, output stationary: tiles from left to right, in each from top to bottom. Weight
    stationary: tiles of W from top to bottom, in each from left to right.
    """
    beats = gemm.beats(spec)
    check_tiling(spec, tiling, beats)
    for m0, k0, n0 in blocks(gemm, beats, tiling):
        m1 = min(m0 + tiling.m, gemm.m)
        k1 = min(k0 + tiling.k, beats)
        columns = range(n0, min(n0 + tiling.n, gemm.n), spec.columns)
        if spec.output_stationary:
            slot = 0
            for n in columns:
                for m in range(m0, m1, spec.rows):
                    right, below = min(n + spec.columns, gemm.n), min(m + spec.rows, gemm.m)
                    ends = k0 == 0, k1 == beats
                    address = slot * spec.rows if spec.dequantizes else 0
                    yield Work(m, below, k0, k1, n, right, address, *ends)
                    slot += 1
            continue
        for k in range(k0, k1, spec.rows):
            below = min(k + spec.rows, k1)
            for slot, n in enumerate(columns):
                right = min(n + spec.columns, gemm.n)
                ends = k == 0, below == beats
                yield Work(m0, m1, k, below, n, right, slot * (m1 - m0), *ends)


def groups(spec: SystolicSpec, work: Work) -> list[tuple[int, int]]:
    """Half-open ranges of beats of the groups in a work (os), whole but for a cut without dequantization."""
    size = spec.group_size
    starts = range(work.k0, work.k1, size)
    return [(start, min(start + size, work.k1)) for start in starts]
