"""Cycles of a systolic array by itself: when it takes its beats and offers its results.

The streams never pause here. The formulas are those of `docs/systolic.md`, and equal to the generated
hardware in every cycle. Time 0 is the cycle in which the streams are valid for the first time.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from emulator.systolic_gemm import Gemm, Tiling, Work, groups
from hw.spec.systolic import SystolicSpec

__all__ = ["ArrayRun", "array_cycles", "block_cycles", "extents", "run_array"]


@dataclass(frozen=True)
class ArrayRun:
    """Every event of a run, for comparison with hardware.

    Members
    -------
    ends : list of int
        Output stationary: the cycle in which the last beat of each group is accepted. Weight stationary: of
        each pass the first beat.
    results : list of int
        The cycle in which each row of outputs is taken, rows of zeros that fill a tile included.
    cycles : int
        Cycles from the first to the one in which the last row is taken, both counted.
    """

    ends: list[int]
    results: list[int]
    cycles: int


def run_array(spec: SystolicSpec, items: Iterable[Work]) -> ArrayRun:
    """Follow each group or pass of a list of works."""
    run = _run_output_stationary if spec.output_stationary else _run_weight_stationary
    ends, results = run(spec, items)
    return ArrayRun(ends, results, results[-1] + 1)


def _run_output_stationary(
    spec: SystolicSpec, items: Iterable[Work]
) -> tuple[list[int], list[int]]:
    ends: list[int] = []
    results: list[int] = []
    last = None
    accepted = -1
    # Scales of rows come in one a cycle, and are counted in the cycle behind.
    tokens_ready = spec.rows if spec.dequantizes else 0
    for work in items:
        for start, end in groups(spec, work):
            accepted += end - start
            if not spec.dequantizes and end % spec.group_size and not work.closes:
                continue
            if last is not None:
                accepted = max(accepted, last + spec.drain_interval)
            if work.closes and end == work.k1:
                accepted = max(accepted, tokens_ready)
                tokens_ready += spec.rows if spec.dequantizes else 0
                first = accepted + spec.output_latency
                results += range(first, first + spec.rows)
            ends.append(accepted)
            last = accepted
    return ends, results


def _run_weight_stationary(
    spec: SystolicSpec, items: Iterable[Work]
) -> tuple[list[int], list[int]]:
    ends: list[int] = []
    results: list[int] = []
    first = spec.rows
    for work in items:
        rows = work.m1 - work.m0
        ends.append(first)
        if work.closes:
            offered = first + spec.output_latency
            results += range(offered, offered + rows)
        first += max(rows, spec.load_interval)
    return ends, results


def block_cycles(spec: SystolicSpec, m: int, beats: int, n: int) -> int:
    """Cycles for which a block of `m` rows, `beats` along K and `n` columns occupies the input of the array."""
    n_tiles = math.ceil(n / spec.columns)
    if not spec.output_stationary:
        return n_tiles * math.ceil(beats / spec.rows) * max(m, spec.load_interval)
    whole, rest = divmod(beats, spec.group_size)
    # `group_size` is no less than `drain_interval`; only the group at the end can be.
    tile = whole * spec.group_size + (max(rest, spec.drain_interval) if rest else 0)
    return n_tiles * math.ceil(m / spec.rows) * tile


def array_cycles(spec: SystolicSpec, gemm: Gemm, tiling: Tiling) -> int:
    """`run_array(...).cycles` of `gemm.count` products behind each other, in closed form.

    Parameters
    ----------
    spec : SystolicSpec
        The array.
    gemm : Gemm
        The product.
    tiling : Tiling
        Blocks of each.
    """
    beats = gemm.beats(spec)
    busy = gemm.count * sum(
        m_count * n_count * block_cycles(spec, m, beats, n)
        for m, m_count in extents(gemm.m, tiling.m)
        for n, n_count in extents(gemm.n, tiling.n)
    )
    if not spec.output_stationary:
        last = extents(gemm.m, tiling.m)[-1][0]
        # Behind the last pass only its beats count, not the time for weights of another.
        return spec.rows + busy - max(last, spec.load_interval) + last + spec.output_latency
    first = min(beats, spec.group_size)
    # Before the first group there is nothing to keep a distance from. If it is the only one of its tile, the
    # scales of the rows are waited for.
    begun = max(first, spec.rows + 1) if spec.dequantizes and beats == first else first
    spared = max(first, spec.drain_interval) - begun
    return busy - spared + spec.output_latency + spec.rows - 1


def extents(length: int, block: int) -> list[tuple[int, int]]:
    """Lengths of the blocks of a range and how many there are of each, in order."""
    whole, rest = divmod(length, block)
    return [(size, count) for size, count in ((block, whole), (rest, 1)) if size and count]
