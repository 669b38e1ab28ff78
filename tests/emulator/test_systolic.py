"""The systolic array's emulator: closed forms against events, buffers and memory against their bounds."""

import math
from dataclasses import replace

import numpy as np
import pytest

from emulator.pe.array_model import ArrayModel, Product, product_cycles
from emulator.systolic import choose_tiling, follow, gemm_cost, list_cost
from emulator.systolic_gemm import Gemm, Tiling, check_tiling, parse_gemm, whole_tiling, works
from emulator.systolic_memory import candidate_tilings, fits, traffic
from emulator.systolic_timing import array_cycles, block_cycles, run_array
from emulator.systolic_values import golden_outputs, random_operands
from hw.spec.errors import InputError
from hw.spec.systolic import SystolicSpec
from hw.spec.systolic_parts import Dataflow, Dequantization
from hw.spec.systolic_target import check_systolic, load_systolic

TINY = load_systolic("mixpe-tiny")
LARGE = load_systolic("mixpe-w4a8")


def array(dataflow: str = "os", kind: str = "integer", **fields: int) -> SystolicSpec:
    """A small array; the result buffer as small as is allowed."""
    sums = 0 if kind == "none" else 48
    spec = replace(
        TINY,
        dataflow=Dataflow(dataflow),
        dequantization=Dequantization(kind),
        accumulator_rows=sums,
        result_rows=1 << 16,
        **fields,
    )
    return check_systolic(replace(spec, result_rows=spec.least_result_rows), "test")


def random_tiling(rng: np.random.Generator, spec: SystolicSpec, gemm: Gemm) -> Tiling:
    """Blocks that the array can hold, in either order, K cut or not."""
    beats = gemm.beats(spec)
    step = spec.rows if spec.output_stationary else 1
    while True:
        k = int(rng.integers(1, 4)) * spec.group_size
        tiling = Tiling(
            int(rng.integers(1, 7)) * step,
            k if spec.dequantizes and rng.random() < 0.7 else beats,
            int(rng.integers(1, 4)) * spec.columns,
            bool(rng.integers(2)),
        )
        try:
            check_tiling(spec, tiling, beats)
        except InputError:
            continue
        return tiling


ARRAYS = {
    "os": array(),
    "os_float32": array(kind="float32", rows=3, columns=5, group_size=6),
    "os_as_long_as_rows": array(rows=8, group_size=8),
    "os_one": array(rows=1, columns=1, group_size=2),
    "os_none": array(kind="none", rows=4, group_size=300),
    "ws": array("ws"),
    "ws_float32": array("ws", "float32", rows=4, columns=3, group_size=12),
    "ws_one": array("ws", rows=1, columns=2, group_size=4),
}


@pytest.mark.parametrize("name", list(ARRAYS))
def test_the_closed_form_counts_what_every_event_does(name: str) -> None:
    spec = ARRAYS[name]
    rng = np.random.default_rng(7)
    limit = spec.group_size if not spec.dequantizes else 90
    for _ in range(100):
        m, n = (int(rng.integers(1, 4 * side + 2)) for side in (spec.rows, spec.columns))
        gemm = Gemm(m, int(rng.integers(1, limit + 1)), n, count=int(rng.integers(1, 4)))
        tiling = random_tiling(rng, spec, gemm)
        items = [work for _ in range(gemm.count) for work in works(spec, gemm, tiling)]
        run = run_array(spec, items)
        assert array_cycles(spec, gemm, tiling) == run.cycles, (gemm, tiling)
        assert len(run.results) == gemm.count * result_rows(spec, gemm)
        assert len(set(run.results)) == len(run.results), "one row of results a cycle"


def result_rows(spec: SystolicSpec, gemm: Gemm) -> int:
    columns = math.ceil(gemm.n / spec.columns)
    if spec.output_stationary:
        return columns * math.ceil(gemm.m / spec.rows) * spec.rows
    return columns * gemm.m


@pytest.mark.parametrize("name", list(ARRAYS))
def test_works_cover_the_product_once_and_share_no_entry(name: str) -> None:
    spec = ARRAYS[name]
    rng = np.random.default_rng(8)
    for _ in range(30):
        m, k, n = (int(v) for v in rng.integers(1, 40, 3))
        gemm = Gemm(m, k, n)
        covered = np.zeros((gemm.m, gemm.k, gemm.n), int)
        open_rows: dict[int, tuple[int, int]] = {}
        for work in works(spec, gemm, random_tiling(rng, spec, gemm)):
            covered[work.m0 : work.m1, work.k0 : work.k1, work.n0 : work.n1] += 1
            if not spec.dequantizes:
                continue
            for row in range(work.m1 - work.m0):
                place, tile = work.address + row, (work.m0 + row, work.n0)
                assert 0 <= place < spec.accumulator_rows
                if not work.opens:
                    assert open_rows[place] == tile, "the entry was another output's"
                open_rows[place] = tile
        assert (covered == 1).all()


def test_results_do_not_depend_on_blocks_and_one_order_of_groups_is_that_of_floats() -> None:
    spec = array(kind="float32")
    operands = random_operands(spec, Gemm(5, 100, 6), np.random.default_rng(1))
    golden = golden_outputs(spec, operands).view(np.float32)
    # Double precision, all of K at once: near, and not equal in every bit.
    q = (operands.weights + 8) % 16 - 8
    x = operands.activations - 256 * (operands.activations > 127)
    half = operands.scales.astype(np.uint16).view(np.float16).astype(np.float64)
    special = (operands.scales >> 10 & 31) == 31
    half[special] = np.ldexp(1 + (operands.scales[special] & 1023) / 1024.0, 16) * np.where(
        operands.scales[special] >> 15, -1, 1
    )
    scale = np.repeat(half, spec.group_size, axis=0)[:100]
    exact = (x @ (q * scale)) * operands.token_scales.view(np.float32)[:, None].astype(float)
    size = np.abs(x) @ np.abs(q * scale)
    assert (np.abs(golden - exact) <= 1e-5 * size).all()
    assert (golden != exact.astype(np.float32)).any()


def test_the_three_dequantizations_agree_where_scales_are_whole_numbers() -> None:
    rng = np.random.default_rng(2)
    gemm = Gemm(6, 70, 5)
    base = random_operands(array(), gemm, rng)
    numbers = rng.integers(1, 9, base.scales.shape)
    codes = numbers.astype(np.float16).view(np.uint16).astype(np.int64)
    one = np.full(gemm.n, 0x3C00)
    results = []
    for kind in ("float32", "integer", "channel"):
        scales = numbers if kind == "channel" else codes
        operands = replace(base, scales=scales, channel_scales=one)
        for dataflow in ("os", "ws"):
            results.append(golden_outputs(array(dataflow, kind), operands))
    assert all((result == results[0]).all() for result in results)


@pytest.mark.parametrize("kind", ["float32", "integer", "channel"])
@pytest.mark.parametrize(("rows", "columns", "group"), [(8, 12, 16), (32, 32, 128), (16, 64, 128)])
@pytest.mark.parametrize(
    ("m", "n", "k"),
    [(1, 1, 128), (100, 70, 300), (64, 96, 1024), (2048, 512, 4096), (33, 640, 129)],
)
def test_the_model_of_the_comparison_differs_by_registers_only(
    kind: str, rows: int, columns: int, group: int, m: int, n: int, k: int
) -> None:
    """`emulator.pe.array_model` counts beats and one skew; an array has registers and ends behind them besides."""
    spec = array(kind=kind, rows=rows, columns=columns, group_size=group)
    tiling = Tiling(rows, k, columns, True)
    emulated = array_cycles(spec, Gemm(m, k, n), tiling)
    model = ArrayModel(rows, columns, 1, group, True, 1, 1, 4, 8)
    modelled = product_cycles(model, Product(m, k, n))
    tiles = math.ceil(m / rows) * math.ceil(n / columns)
    # A group that is shorter than the rows waits for the unit, but nothing is before the first; the array's
    # units besides need some cycles for a sum (`accumulate_interval`).
    lengths = [min(group, k - start) for start in range(0, k, group)]
    longer = sum(max(g, spec.drain_interval) - max(g, rows) for g in lengths)
    alone = max(lengths[0], rows + 1) if len(lengths) == 1 else lengths[0]
    spared = max(lengths[0], spec.drain_interval) - alone
    pipeline = 1 + spec.unit_latency + 2 + 2 + rows
    assert emulated - modelled == tiles * longer - spared + pipeline
    # Of a product as long as those of a model it is next to nothing.
    if m * n * k > 10**9:
        assert emulated == pytest.approx(modelled, rel=1e-3)


@pytest.mark.parametrize("spec", [TINY, LARGE, array("ws", columns=16)], ids=lambda s: s.name)
def test_blocks_fit_and_memory_and_array_bound_the_cycles(spec: SystolicSpec) -> None:
    rng = np.random.default_rng(3)
    for _ in range(25):
        m, k, n = (int(2**v) for v in rng.uniform(0, 9, 3))
        gemm = Gemm(m, k, n, count=int(rng.integers(1, 4)))
        cost = gemm_cost(spec, gemm)
        assert fits(spec, gemm, cost.tiling)
        assert cost.cycles >= max(cost.array_cycles, cost.memory_cycles)
        # Never worse than with no overlap at all: loads, array and stores one after the other.
        steps = cost.gemm.count * sum(
            1 for _ in candidate_steps(gemm.m, gemm.n, gemm.beats(spec), cost.tiling)
        )
        apart = 2 * spec.memory.latency + spec.rows + spec.output_latency + 4
        assert cost.cycles <= cost.array_cycles + cost.memory_cycles + steps * apart
        best = min(follow(spec, gemm, tiling) for tiling in candidate_tilings(spec, gemm))
        assert cost.cycles <= 1.1 * best, (gemm, cost.tiling)


def candidate_steps(m: int, n: int, k: int, tiling: Tiling) -> list[tuple[int, int, int]]:
    ranges = range(0, m, tiling.m), range(0, n, tiling.n), range(0, k, tiling.k)
    return [(a, b, c) for a in ranges[0] for b in ranges[1] for c in ranges[2]]


def test_traffic_of_a_product_that_fits_is_each_operand_once() -> None:
    gemm = Gemm(16, 64, 16)
    moved = traffic(TINY, gemm, whole_tiling(TINY, gemm))
    weights = (64 * 4 + 2 * 16) * 16 // 8
    assert moved.memory_read == 16 * 64 + weights + 16 * 4
    assert moved.memory_write == 16 * 16 * 4
    # Two tiles in either direction, 8 bits an activation, 4 a weight.
    assert moved.activation_read == 2 * 16 * 64
    assert moved.weight_read == 2 * 64 * 16 // 2
    # Two groups: both are added, the second to the first.
    assert (moved.sums_written, moved.sums_read) == (2 * 256 * 8, 256 * 8)


def test_memory_as_slow_as_one_byte_a_cycle_is_what_is_waited_for() -> None:
    memory = replace(LARGE.memory, bytes_numerator=1)
    slow = replace(LARGE, memory=memory)
    cost = gemm_cost(slow, Gemm(1, 4096, 4096))
    assert cost.memory_cycles > 8 * cost.array_cycles
    assert cost.memory_cycles <= cost.cycles <= 1.01 * cost.memory_cycles
    fast = replace(LARGE, memory=replace(LARGE.memory, bytes_numerator=1 << 30, latency=0))
    cost = gemm_cost(fast, Gemm(64, 4096, 4096))
    assert cost.cycles <= cost.array_cycles + 40


def test_an_operand_in_two_planes_takes_twice_the_beats_and_the_same_bytes() -> None:
    once = gemm_cost(LARGE, Gemm(128, 1024, 128, weight_bits=4))
    twice = gemm_cost(LARGE, Gemm(128, 1024, 128, weight_bits=8, planes=2))
    blocks = block_cycles(LARGE, 128, 1024, 128)
    assert twice.array_cycles - once.array_cycles == blocks
    assert twice.traffic.memory_read >= once.traffic.memory_read
    assert twice.products == once.products


def test_a_list_is_the_sum_of_its_products() -> None:
    gemms = [Gemm(8, 64, 8), Gemm(3, 100, 9, count=2)]
    total = list_cost(TINY, gemms)
    parts = [gemm_cost(TINY, gemm) for gemm in gemms]
    assert total.cycles == sum(part.cycles for part in parts)
    assert total.traffic.memory_read == sum(part.traffic.memory_read for part in parts)
    assert total.seconds(TINY) == pytest.approx(total.cycles / 200e6)
    assert choose_tiling(TINY, gemms[0]) == parts[0].tiling


@pytest.mark.parametrize(
    "text, message",
    [
        ("4x4", "expected MxKxN"),
        ("4x4x4x4", "expected MxKxN"),
        ("4x-4x4", "expected MxKxN"),
        ("٤x4x4", "expected MxKxN"),
        ("0x4x4", "m: expected a whole number from 1"),
        ("4x4x99999999", "n: expected a whole number from 1"),
    ],
)
def test_a_malformed_shape_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_gemm(text)


def test_what_an_array_cannot_hold_is_refused() -> None:
    with pytest.raises(InputError, match="tiling: expected at most 64 rows of sums, found 72"):
        list(works(TINY, Gemm(72, 8, 8), Tiling(72, 8, 8)))
    with pytest.raises(InputError, match="tiling: k: expected a multiple of the group size 32"):
        list(works(TINY, Gemm(8, 64, 8), Tiling(8, 33, 8)))
    with pytest.raises(InputError, match="at most 300 beats without dequantization, found 301"):
        list(works(ARRAYS["os_none"], Gemm(1, 301, 1), Tiling(4, 301, 8)))
    with pytest.raises(InputError, match="not even the smallest"):
        gemm_cost(replace(TINY, weight_buffer_bytes=16), Gemm(8, 64, 8))
