"""Cycles and traffic of products of matrices, and of lists of them, on a systolic array.

`list_cost(spec, gemms)` is the entry point: it chooses blocks for each product, follows them through
buffers, memory and array, and adds up. The array's part is exact, equal to the generated hardware in every
cycle; the memory's is a model (bandwidth and latency).
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from emulator.systolic_gemm import Gemm, Tiling, blocks
from emulator.systolic_memory import (
    Storage,
    Traffic,
    activation_bytes,
    block_scale_bytes,
    candidate_tilings,
    result_bytes,
    storage,
    traffic,
    weight_bytes,
)
from emulator.systolic_timing import array_cycles, block_cycles
from hw.spec.systolic import SystolicSpec

__all__ = ["GemmCost", "ListCost", "choose_tiling", "gemm_cost", "list_cost"]


TOLERANCE = 1.005
"""Tilings whose cycles differ by less are told apart by their traffic."""
FOLLOWED = 3
"""Tilings of the lowest bounds that are followed."""


@dataclass(frozen=True)
class GemmCost:
    """What one product costs; all counts are of all `gemm.count` repetitions together.

    Members
    -------
    gemm : Gemm
    tiling : Tiling
        Of each repetition.
    cycles : int
        From the first request to memory to the last byte written; repetitions follow each other, and the
        operands of one are loaded while the one before is computed.
    array_cycles : int
        Cycles of the array if memory took no time: fill, skew, group boundaries, dequantization, drain and
        partly filled tiles included.
    memory_cycles : int
        Cycles of transfers alone.
    products : int
        Multiplications of whole operands.
    traffic : Traffic
    """

    gemm: Gemm
    tiling: Tiling
    cycles: int
    array_cycles: int
    memory_cycles: int
    products: int
    traffic: Traffic

    def utilization(self, spec: SystolicSpec) -> float:
        """Share of the array's products that the list needed."""
        rate = spec.rows * spec.columns * spec.processing_element.products_per_cycle
        return self.products * self.gemm.planes / (self.cycles * rate)


@dataclass(frozen=True)
class ListCost:
    """What a list of products costs, one after the other.

    Members
    -------
    costs : tuple of GemmCost
    cycles, array_cycles, memory_cycles, products : int
        Sums.
    traffic : Traffic
        Sum.
    """

    costs: tuple[GemmCost, ...]

    @property
    def cycles(self) -> int:
        """Cycles of all products."""
        return sum(cost.cycles for cost in self.costs)

    @property
    def array_cycles(self) -> int:
        """Cycles of the array alone."""
        return sum(cost.array_cycles for cost in self.costs)

    @property
    def memory_cycles(self) -> int:
        """Cycles of memory alone."""
        return sum(cost.memory_cycles for cost in self.costs)

    @property
    def products(self) -> int:
        """Multiplications."""
        return sum(cost.products for cost in self.costs)

    @property
    def traffic(self) -> Traffic:
        """Bytes."""
        return sum((cost.traffic for cost in self.costs), Traffic(0, 0, 0, 0, 0, 0))

    def seconds(self, spec: SystolicSpec) -> float:
        """Time at the array's clock."""
        return self.cycles / spec.clock_hz


def list_cost(spec: SystolicSpec, gemms: Sequence[Gemm]) -> ListCost:
    """Cycles and traffic of products, one after the other.

    **For comparisons of processing elements:** build a `SystolicSpec` (or `dataclasses.replace` the fields
    `rows`, `columns`, `element`, `group_size`, `dequantization` of a target and pass it through
    `hw.spec.systolic_target.check_systolic`), take the products of a model from `mapping.systolic.model_gemms`,
    and read `cycles` (dequantization, edge tiles, memory and all), `array_cycles` (memory taken as free)
    and `traffic`. A product costs milliseconds; equal ones are computed once.

    Raises
    ------
    InputError
        If the smallest block does not fit the buffers, or K is longer than an array without dequantization
        can add up.
    """
    return ListCost(tuple(gemm_cost(spec, gemm) for gemm in gemms))


@functools.lru_cache(maxsize=4096)
def gemm_cost(spec: SystolicSpec, gemm: Gemm) -> GemmCost:
    """Cycles and traffic of one product in the best blocks."""
    tiling = choose_tiling(spec, gemm)
    moved = traffic(spec, gemm, tiling) * gemm.count
    return GemmCost(
        gemm=gemm,
        tiling=tiling,
        cycles=follow(spec, gemm, tiling),
        array_cycles=array_cycles(spec, gemm, tiling),
        memory_cycles=_transfer(spec, moved.memory_read + moved.memory_write),
        products=gemm.products,
        traffic=moved,
    )


def choose_tiling(spec: SystolicSpec, gemm: Gemm) -> Tiling:
    """The blocks with the least traffic among those within half a percent of the fewest cycles.

    Cycles are followed for the few tilings with the lowest bounds only.
    """
    bounds = {tiling: _bound(spec, gemm, tiling) for tiling in candidate_tilings(spec, gemm)}
    limit = min(cycles for cycles, _ in bounds.values()) * TOLERANCE
    near = [tiling for tiling, (cycles, _) in bounds.items() if cycles <= limit]
    followed = sorted(near, key=lambda tiling: bounds[tiling][1])[:FOLLOWED]
    followed += sorted(bounds, key=lambda tiling: bounds[tiling])[:FOLLOWED]
    cycles = {tiling: follow(spec, gemm, tiling) for tiling in followed}
    limit = min(cycles.values()) * TOLERANCE
    near = [tiling for tiling in followed if cycles[tiling] <= limit]
    return min(near, key=lambda tiling: (bounds[tiling][1], cycles[tiling]))


def _bound(spec: SystolicSpec, gemm: Gemm, tiling: Tiling) -> tuple[int, int]:
    """About the cycles, and bytes off chip of one repetition.

    The longest of array, memory and what the two buffers allow, and what cannot overlap: the first loads and
    the last store.
    """
    moved = traffic(spec, gemm, tiling)
    total = moved.memory_read + moved.memory_write
    s = storage(spec, gemm)
    beats = min(tiling.k, gemm.beats(spec))
    rows, columns = min(tiling.m, gemm.m), min(tiling.n, gemm.n)
    first = activation_bytes(s, rows, beats) + weight_bytes(spec, s, beats, columns)
    exposed = _transfer(spec, first + result_bytes(s, rows, columns))
    array, memory = array_cycles(spec, gemm, tiling), _transfer(spec, total * gemm.count)
    # Two steps are under way at a time: the load of one waits for the end of the one before the last.
    pairs = (gemm.m, tiling.m), (gemm.n, tiling.n), (gemm.beats(spec), tiling.k)
    steps = gemm.count * math.prod(math.ceil(length / block) for length, block in pairs)
    turns = (array + memory + steps * spec.memory.latency) // 2
    return max(array, memory, turns) + exposed, total


def _transfer(spec: SystolicSpec, amount: int) -> int:
    """Cycles for which some bytes occupy the memory."""
    memory = spec.memory
    return math.ceil(amount * memory.bytes_denominator / memory.bytes_numerator)


@dataclass(frozen=True)
class _Step:
    """One block along one piece of K: bytes to load, cycles in the array, bytes of results."""

    load: int
    busy: int
    store: int


def follow(spec: SystolicSpec, gemm: Gemm, tiling: Tiling) -> int:
    """Cycles of all repetitions with double buffering, step by step.

    A step is a block and a piece of K. Its load begins when the load before has ended and the step two
    before has left the buffers; the array begins it when it is loaded and the step before has left the
    input of the array. Results are written when the array has offered all of them and the memory is free;
    loads go first. Memory carries one transfer at a time.
    """
    steps = _steps(spec, gemm, tiling)
    latency = spec.memory.latency
    drained = spec.output_latency + (spec.rows if spec.output_stationary else 1)
    bus_free = 0
    loaded = [0, 0]
    left = [0, 0]
    waiting: list[tuple[int, int]] = []
    finished = 0
    for index in range(len(steps) * gemm.count):
        step = steps[index % len(steps)]
        room = left[index % 2]
        # Results that are ready before the next load may begin go first.
        while waiting and max(waiting[0][0], bus_free) < room:
            ready, amount = waiting.pop(0)
            bus_free = max(bus_free, ready) + _transfer(spec, amount)
            finished = max(finished, bus_free + latency)
        if step.load:
            bus_free = max(bus_free, room) + _transfer(spec, step.load)
        loaded[index % 2] = bus_free + latency if step.load else loaded[1 - index % 2]
        previous = left[1 - index % 2]
        begin = max(loaded[index % 2], previous)
        # Weights are shifted in ahead of time, unless the array had to wait for them.
        exposed = spec.rows if not spec.output_stationary and begin > previous else 0
        left[index % 2] = begin + exposed + step.busy
        if step.store:
            waiting.append((left[index % 2] + drained, step.store))
    for ready, amount in waiting:
        bus_free = max(bus_free, ready) + _transfer(spec, amount)
        finished = max(finished, bus_free + latency)
    return finished


def _steps(spec: SystolicSpec, gemm: Gemm, tiling: Tiling) -> list[_Step]:
    """The steps of one repetition, in order."""
    s = storage(spec, gemm)
    beats = gemm.beats(spec)
    steps: list[_Step] = []
    whole = tiling.k >= beats
    before: tuple[int, int] | None = None
    cost = functools.lru_cache(functools.partial(_step, spec, s))
    for m, k, n in blocks(gemm, beats, tiling):
        height, width = min(tiling.m, gemm.m - m), min(tiling.n, gemm.n - n)
        depth = min(tiling.k, beats - k)
        keeps_x = whole and before is not None and before[0] == m
        keeps_w = whole and before is not None and before[1] == n
        steps.append(cost(height, depth, width, keeps_x, keeps_w, k == 0, k + depth == beats))
        before = m, n
    return steps


def _step(
    spec: SystolicSpec,
    s: Storage,
    rows: int,
    depth: int,
    columns: int,
    keeps_x: bool,
    keeps_w: bool,
    opens: bool,
    closes: bool,
) -> _Step:
    load = 0 if keeps_x else activation_bytes(s, rows, depth)
    load += 0 if keeps_w else weight_bytes(spec, s, depth, columns)
    load += block_scale_bytes(s, rows, columns) if opens else 0
    busy = block_cycles(spec, rows, depth, columns)
    return _Step(load, busy, result_bytes(s, rows, columns) if closes else 0)
