"""cocotb test of what rows are reduced to over all cores: every result in its cycle."""

import random
from collections import Counter
from typing import Any

import cocotb

from sim_tests.streams import Bench, parameters, seed

ROWS = 1500
SUM_BITS = 64
KEY_BITS = 32


def drawn(rng: random.Random, is_sum: bool) -> int:
    """A sum, of either sign, or a key; few different ones now and then."""
    if not is_sum:
        return rng.randrange(3) if rng.random() < 0.3 else rng.getrandbits(KEY_BITS)
    return rng.randint(-(1 << 60), 1 << 60) >> rng.randrange(61) & (1 << SUM_BITS) - 1


@cocotb.test()
async def all_cores_get_the_sum_or_the_largest(dut: Any) -> None:
    given = parameters()
    count, latency = given["cores"], given["latency"]
    for core in range(count):
        getattr(dut, f"result__{core}").value = 0
    bench = await Bench.start(dut)
    rng = random.Random(seed())
    expected: list[tuple[bool, int] | None] = []
    bins: Counter[str] = Counter()
    while sum(entry is not None for entry in expected) < ROWS:
        valid, is_sum = rng.random() < 0.6, rng.random() < 0.5
        values = [drawn(rng, is_sum) for _ in range(count)]
        for core, value in enumerate(values):
            # What is not valid means nothing.
            getattr(dut, f"result__{core}").value = valid | is_sum << 1 | value << 2
        result = sum(values) % (1 << SUM_BITS) if is_sum else max(values)
        expected.append((is_sum, result) if valid else None)
        bins[f"largest of core {values.index(max(values))}"] += not is_sum
        bins["below zero"] += is_sum and result >> SUM_BITS - 1
        await bench.cycles(1)
        # Inputs count from the next edge on, so the answer of `latency` cycles ago is there now.
        if len(expected) > latency:
            wanted, found = expected[-1 - latency], int(dut.o.value)
            assert found & 1 == (wanted is not None), f"valid {found & 1}, expected {wanted}"
            if wanted is not None:
                assert (bool(found >> 1 & 1), found >> 2) == wanted
    assert all(bins[f"largest of core {core}"] > 50 for core in range(count)), bins
    assert bins["below zero"] > 50, bins
