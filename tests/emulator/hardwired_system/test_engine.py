"""The event engine against the machine simulated message by message, to the tick."""

import dataclasses
import random

import numpy as np
import pytest

from emulator.hardwired_system.engine import Requests, run
from emulator.hardwired_system.fabric import Fabric
from emulator.hardwired_system.keys_values import attention_cost, resident_bytes
from emulator.hardwired_system.layer import layer_operations, link_bytes
from emulator.hardwired_system.machine import Arbitration, Partition, Reduction, SystemMachine
from emulator.hardwired_system.model import SystemModel
from emulator.hardwired_system.operation import Category
from emulator.hardwired_system.operation_tables import collision_odds
from hw.spec.errors import InputError


def random_machine(rng: random.Random) -> SystemMachine:
    return SystemMachine(
        arbitration=rng.choice(list(Arbitration)),
        partition=rng.choice(list(Partition)),
        reduction=rng.choice(list(Reduction)),
        partial_sum_bits=rng.choice([8, 13, 24, 32]),
        activation_bits=rng.choice([8, 16]),
        operand_bus_bytes=rng.choice([1, 4, 16]),
        ports=rng.choice([1, 4]),
        double_buffered=rng.random() < 0.5,
        attention_lanes=rng.choice([0, 1, 3]),
        attention_dots=rng.choice([1, 32]),
        hbm_shared=rng.random() < 0.5,
        hbm_bytes_per_second=rng.choice([10**8, 10**9, 65 * 10**10]),
        buffer_bytes=rng.choice([1000, 100_000]),
        link_bytes_per_second=rng.choice([128 * 10**9, 10**9]),
    )


@pytest.mark.parametrize("seed", range(24))
def test_every_token_ends_when_the_last_message_says(small_model: SystemModel, seed: int) -> None:
    rng = random.Random(seed)
    machine = random_machine(rng)
    users = rng.randint(1, machine.in_flight(small_model.layers))
    draw = [[rng.randint(0, 10**6) for _ in range(users)] for _ in range(3)]
    requests = Requests(
        prompt=np.ones(users, np.int64),
        output=1 + np.array(draw[0]) % 4,
        arrival=np.sort(np.array(draw[1]) * machine.ticks_per_cycle // 1000),
        position=np.array(draw[2]) % 200,
    )
    served = run(small_model, machine, requests, 1000)
    expected = Fabric(small_model, machine).run(requests)
    second = machine.ticks_per_second
    assert all((end * second).denominator == 1 for _, end in expected)
    assert sorted(zip(served.sequence.tolist(), served.end.tolist(), strict=True)) == sorted(
        (sequence, int(end * second)) for sequence, end in expected
    )


@pytest.mark.parametrize("seed", range(6))
def test_the_parts_of_a_tokens_time_add_up(small_model: SystemModel, seed: int) -> None:
    machine = dataclasses.replace(random_machine(random.Random(seed)), even_routing=False)
    rng = np.random.default_rng(seed)
    requests = Requests(
        prompt=rng.integers(1, 9, 30),
        output=rng.integers(1, 5, 30),
        arrival=np.sort(rng.integers(0, 10**8, 30)),
        position=np.zeros(30, np.int64),
    )
    served = run(small_model, machine, requests, 10_000)
    np.testing.assert_array_equal(served.times.sum(axis=1), served.end - served.begin)
    assert served.times.min() >= 0
    # Every prompt token and every generated token but the last passes through the machine once.
    assert len(served.end) == (requests.prompt + requests.output - 1).sum()
    assert served.generated.sum() == requests.output.sum()
    assert (np.diff(served.end) >= 0).all()
    for sequence in range(30):
        mine = served.sequence == sequence
        assert served.begin[mine].min() >= requests.arrival[sequence]
        # A generated token enters when the one before it has left.
        ends, begins = served.end[mine], served.begin[mine]
        answers = np.flatnonzero(served.generated[mine])
        assert (begins[answers[1:]] >= ends[answers[:-1]]).all()


def test_link_bytes_are_those_of_the_published_table(published_model: SystemModel) -> None:
    """Elements a token, layer and direction: Q 512, O 512, Xo 720, Y 1440 in a column; 1800 in a row."""
    found = link_bytes(published_model, SystemMachine())
    # K and V: 64 elements scattered to each chip, 64 more to their keeper; 8 + 8 softmax statistics.
    assert found["column"] == 2 * (512 + 64 + 16 + 512 + 720 + 1440)
    assert found["keeper"] == 2 * 64
    assert found["row"] == 2 * 1800


def test_scattered_reduction_needs_fewer_bytes(published_model: SystemModel) -> None:
    machine = SystemMachine(
        reduction=Reduction.SCATTERED,
        partition=Partition.HEADS,
        partial_sum_bits=32,
        activation_bits=8,
    )
    found = link_bytes(published_model, machine)
    # Column: Q, K, V 384 sums; O 256 bytes and a scale; X 90 + 360 bytes; Y 360 + 90 sums; statistics.
    assert found["column"] == 4 * (384 + 450) + 256 + 8 + 450 + 2 * 8
    assert found["row"] == 4 * (180 + 450) + 450 + 180 + 2 * 8


def test_attention_takes_an_eighth_of_a_cycle_a_position(published_model: SystemModel) -> None:
    for partition in Partition:
        machine = SystemMachine(partition=partition)
        cost = attention_cost(published_model, machine)
        assert cost.ticks(65536) == 65536 // 8 * machine.ticks_per_cycle


def test_keys_and_values_fill_the_buffer(published_model: SystemModel) -> None:
    machine = SystemMachine()
    window, full = resident_bytes(published_model, machine)
    assert window == 128 // 4 * 2 * 2 * 64 * 2
    kept = 216 * 18 * (window + full)
    assert machine.buffer_bytes - 216 * 18 < kept <= machine.buffer_bytes


def test_collisions_of_experts(published_model: SystemModel) -> None:
    odds = collision_odds(published_model, SystemMachine(even_routing=False))
    alone = 120 * 112 * 104 / (127 * 126 * 125)
    assert odds[0] == pytest.approx(alone, abs=0.01)
    assert odds[-1] == 1.0
    two = layer_operations(published_model, SystemMachine(), 2)
    one = layer_operations(published_model, SystemMachine(), 1)
    assert sum(o.total for o in two) > sum(o.total for o in one)
    ported = SystemMachine(ports=8)
    assert [o.total for o in layer_operations(published_model, ported, 2) if o.step >= 2] == [
        o.total for o in layer_operations(published_model, ported, 1) if o.step >= 2
    ]


def test_a_longer_prompt_than_positions_of_the_pipeline(small_model: SystemModel) -> None:
    """Tokens of one prompt follow each other; none attends before the one ahead has left its keys."""
    one = np.ones(1, np.int64)
    served = run(small_model, SystemMachine(), Requests(one * 50, one * 3, one * 0, one * 0), 1000)
    assert served.generated.tolist() == [0] * 49 + [1] * 3
    assert served.times[:, Category.LINKS].min() > 0


@pytest.mark.parametrize(
    "changes, complaint",
    [
        ({"rows": 1}, "rows: expected 2 to 64"),
        ({"link_latency_ns": 0}, "link_latency_ns: expected a whole number from 1"),
        ({"flit_slots": 17}, "flit_slots: expected at most 16"),
        ({"clock_hz": 999_999_937}, "expected round numbers"),
        ({"kv_bits": 2.5}, "kv_bits: expected a whole number"),
    ],
)
def test_bad_machines_are_refused(changes: dict[str, int], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        SystemMachine(**changes)  # pyright: ignore[reportArgumentType] - wrong types are the point


def test_models_that_do_not_divide_are_refused(small_model: SystemModel) -> None:
    one = np.ones(1, np.int64)
    with pytest.raises(InputError, match="small: hidden size: expected a multiple of 16"):
        run(
            dataclasses.replace(small_model, hidden=100),
            SystemMachine(),
            Requests(one, one, one * 0, one * 0),
            1,
        )


def test_sequences_without_room_are_refused(small_model: SystemModel) -> None:
    one = np.ones(1, np.int64)
    machine = SystemMachine(buffer_bytes=1, hbm_bytes=1000)
    with pytest.raises(InputError, match="expected what 1,000 bytes of HBM a chip hold"):
        run(small_model, machine, Requests(one, one, one * 0, one * 900), 1)


def test_room_limits_how_many_sequences_run_at_once(small_model: SystemModel) -> None:
    cost = attention_cost(small_model, SystemMachine())
    one_sequence = cost.bytes(8) + cost.bytes(100)
    machine = SystemMachine(buffer_bytes=1, hbm_bytes=2 * one_sequence)
    n = 6
    requests = Requests(np.full(n, 1), np.full(n, 90), np.zeros(n, np.int64), np.zeros(n, np.int64))
    served = run(small_model, machine, requests, 10_000)
    begins = [served.begin[served.sequence == q].min() for q in range(n)]
    ends = [served.end[served.sequence == q].max() for q in range(n)]
    for q in range(2, n):
        assert sum(begins[q] < ends[p] for p in range(q)) <= 1
