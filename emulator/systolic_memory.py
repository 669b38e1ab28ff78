"""Blocks of a product in the buffers of a systolic array, and the traffic they cause.

Half of each buffer holds the block in use, the other half the next one: its operands come from memory
while the array computes. The array itself is exact (`emulator.systolic_timing`); the memory is modelled by
bandwidth and latency (`hw.spec.systolic.OffChipSpec`).
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from emulator.systolic_gemm import Gemm, Tiling, check_tiling
from emulator.systolic_timing import extents
from hw.spec.errors import InputError
from hw.spec.systolic import SystolicSpec
from hw.spec.systolic_parts import INTEGER_SCALE_BITS, SCALE_BITS, Dequantization

__all__ = ["Storage", "Traffic", "candidate_tilings", "storage", "traffic"]


@dataclass(frozen=True)
class Storage:
    """Bits in memory and on chip.

    Members
    -------
    activation, weight : float
        Of the operand of one beat: X and W, an element each.
    group_scale : int
        Scale and zero point of one column and group.
    column_scale, row_scale, result : int
        Of one column, one row, one output.
    """

    activation: float
    weight: float
    group_scale: int
    column_scale: int
    row_scale: int
    result: int


def storage(spec: SystolicSpec, gemm: Gemm) -> Storage:
    """How the operands of a product are stored."""
    element = spec.processing_element
    share = max(element.products_per_cycle, 1)
    weight = spec.code_bits / share if gemm.weight_bits is None else gemm.weight_bits / gemm.planes
    activation = gemm.activation_bits or element.activation_bits / share
    # In beats: an element that takes several operands at once has several in each.
    rate = gemm.k * gemm.planes / gemm.beats(spec)
    channel = spec.dequantization is Dequantization.CHANNEL
    scale = INTEGER_SCALE_BITS if channel else SCALE_BITS
    return Storage(
        activation=activation * rate / gemm.planes,
        weight=weight * rate,
        group_scale=(scale + spec.zero_bits) if spec.dequantizes else 0,
        column_scale=SCALE_BITS if channel else 0,
        row_scale=32 if spec.dequantizes else 0,
        result=gemm.result_bits,
    )


@dataclass(frozen=True)
class Traffic:
    """Bytes that one product moves.

    Members
    -------
    memory_read, memory_write : int
        Off chip.
    activation_read, weight_read : int
        From the on-chip buffers into the array; what they are filled with is `memory_read`.
    sums_read, sums_written : int
        Of the memory of sums below the columns.
    """

    memory_read: int
    memory_write: int
    activation_read: int
    weight_read: int
    sums_read: int
    sums_written: int

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(*(a + b for a, b in zip(self.values(), other.values(), strict=True)))

    def __mul__(self, count: int) -> "Traffic":
        return Traffic(*(value * count for value in self.values()))

    def values(self) -> list[int]:
        """The fields in order."""
        return [getattr(self, name) for name in self.__dataclass_fields__]


def activation_bytes(s: Storage, rows: int, beats: int) -> int:
    """A part of X."""
    return math.ceil(rows * beats * s.activation / 8)


def weight_bytes(spec: SystolicSpec, s: Storage, beats: int, columns: int) -> int:
    """A part of W with the scales of its groups."""
    groups = math.ceil(beats / spec.group_size)
    return math.ceil((beats * s.weight + groups * s.group_scale) * columns / 8)


def result_bytes(s: Storage, rows: int, columns: int) -> int:
    """A block of Y, and the scales of its rows and columns, which are read."""
    return math.ceil(rows * columns * s.result / 8)


def block_scale_bytes(s: Storage, rows: int, columns: int) -> int:
    """Scales of rows and columns of a block."""
    return math.ceil((rows * s.row_scale + columns * s.column_scale) / 8)


def fits(spec: SystolicSpec, gemm: Gemm, tiling: Tiling) -> bool:
    """Whether a block and the next one fit the buffers."""
    s = storage(spec, gemm)
    beats = min(tiling.k, gemm.beats(spec))
    rows, columns = min(tiling.m, gemm.m), min(tiling.n, gemm.n)
    activations = 2 * activation_bytes(s, rows, beats)
    weights = 2 * weight_bytes(spec, s, beats, columns)
    return activations <= spec.activation_buffer_bytes and weights <= spec.weight_buffer_bytes


def traffic(spec: SystolicSpec, gemm: Gemm, tiling: Tiling) -> Traffic:
    """Bytes moved by one product in these blocks (`count` is not looked at).

    With K in one piece the operand that the next block shares stays where it is.
    """
    s = storage(spec, gemm)
    beats = gemm.beats(spec)
    m_extents, n_extents = extents(gemm.m, tiling.m), extents(gemm.n, tiling.n)
    m_blocks = sum(count for _, count in m_extents)
    n_blocks = sum(count for _, count in n_extents)
    k_extents = extents(beats, min(tiling.k, beats))
    whole = tiling.k >= beats
    x_loads = 1 if whole and (tiling.columns_first or m_blocks == 1) else n_blocks
    w_loads = 1 if whole and (not tiling.columns_first or n_blocks == 1) else m_blocks
    x = sum(c * d * activation_bytes(s, m, k) for m, c in m_extents for k, d in k_extents)
    w = sum(c * d * weight_bytes(spec, s, k, n) for n, c in n_extents for k, d in k_extents)
    pairs = [(m, n, c * d) for m, c in m_extents for n, d in n_extents]
    scales = sum(count * block_scale_bytes(s, m, n) for m, n, count in pairs)
    results = sum(count * result_bytes(s, m, n) for m, n, count in pairs)
    n_tiles = sum(math.ceil(n / spec.columns) * c for n, c in n_extents)
    m_tiles = sum(math.ceil(m / spec.rows) * c for m, c in m_extents)
    element = spec.processing_element
    added = _additions(spec, beats)
    sums = math.ceil(gemm.m * gemm.n * spec.accumulator_bits / 8)
    return Traffic(
        memory_read=x * x_loads + w * w_loads + scales,
        memory_write=results,
        activation_read=math.ceil(gemm.m * beats * element.activation_bits / 8) * n_tiles,
        weight_read=math.ceil(beats * gemm.n * spec.weight_bits / 8)
        * (m_tiles if spec.output_stationary else m_blocks),
        sums_read=sums * (added - 1 if added else 0),
        sums_written=sums * added,
    )


def _additions(spec: SystolicSpec, beats: int) -> int:
    """How often an output's sum over groups is added to."""
    if not spec.dequantizes:
        return 0
    return math.ceil(beats / (spec.group_size if spec.output_stationary else spec.rows))


def _doublings(step: int, limit: int) -> list[int]:
    """`step`, twice that, and so on, up to the first that is no less than `limit`."""
    sizes = [step]
    while sizes[-1] < limit:
        sizes.append(2 * sizes[-1])
    return sizes


def candidate_tilings(spec: SystolicSpec, gemm: Gemm) -> Iterator[Tiling]:
    """Tilings that fit, larger blocks in powers of two of the smallest.

    Raises
    ------
    InputError
        If not even the smallest block fits.
    """
    beats = gemm.beats(spec)
    # Without dequantization there is one group, so the pieces of K are of no meaning to the array.
    step = spec.group_size if spec.dequantizes else 1
    k_sizes = [size for size in _doublings(step, beats) if size < beats] + [beats]
    found = False
    m_step = spec.rows if spec.output_stationary else 1
    for m in _doublings(m_step, gemm.m):
        for n in _doublings(spec.columns, gemm.n):
            # The longest piece of K that fits is the best: it only saves.
            for k in reversed(k_sizes):
                tiling = Tiling(m, k, n)
                if not _legal(spec, tiling, beats):
                    continue
                if fits(spec, gemm, tiling):
                    found = True
                    yield tiling
                    yield Tiling(m, k, n, columns_first=False)
                    break
    if not found:
        check_tiling(spec, Tiling(m_step, beats, spec.columns), beats)
        raise InputError(
            f"{spec.name}: weight_buffer_bytes, activation_buffer_bytes: not even the smallest "
            f"block of {gemm.m}x{gemm.k}x{gemm.n} fits twice"
        )


@functools.lru_cache(maxsize=1 << 16)
def _legal(spec: SystolicSpec, tiling: Tiling, beats: int) -> bool:
    try:
        check_tiling(spec, tiling, beats)
    except InputError:
        return False
    return True
