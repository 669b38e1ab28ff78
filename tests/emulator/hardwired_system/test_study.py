"""Figures of the 16-chip machine against the published ones, against bounds, and bad input."""

import pytest

from emulator.hardwired_system.machine import SystemMachine, assumptions
from emulator.hardwired_system.model import SystemModel
from emulator.hardwired_system.published import published, published_shares, share_deviation
from emulator.hardwired_system.report import fits, statement, system_report
from emulator.hardwired_system.study import bound, bounds, measure, sensitivity
from emulator.hardwired_system.variants import improvements, readings
from emulator.hardwired_system.workload import mixed_requests, serve
from hw.spec.errors import InputError


def test_published_throughput(published_model: SystemModel) -> None:
    found = measure(published_model, SystemMachine(), published()["throughput"]["context"])
    assert found.in_flight == published()["throughput"]["tokens_in_flight"]
    assert found.tokens_per_second == pytest.approx(
        published()["throughput"]["tokens_per_second"], rel=0.015
    )
    assert found.per_user * found.in_flight == pytest.approx(found.tokens_per_second, rel=0.002)


@pytest.mark.parametrize("context", published_shares())
def test_published_shares(published_model: SystemModel, context: int) -> None:
    shares = measure(published_model, SystemMachine(), context).shares
    assert sum(shares.values()) == pytest.approx(1)
    assert share_deviation(context, shares) < 3.0


def test_published_shares_are_whole() -> None:
    for row in published_shares().values():
        assert sum(row.values()) == pytest.approx(1, abs=0.0011)


@pytest.mark.parametrize("variant", [*readings(), *improvements()], ids=lambda v: v.name)
def test_nothing_is_faster_than_its_bounds(published_model: SystemModel, variant) -> None:
    for context in (512, 65536):
        found = measure(published_model, variant.machine, context).tokens_per_second
        assert found <= 1.02 * bound(published_model, variant.machine, context)[1]


def test_a_variant_is_2_3_times_as_fast_without_loss(published_model: SystemModel) -> None:
    """Sums of 32 bits lose nothing, INT8 is what the wires take anyway; experts fall at random."""
    base = published()["throughput"]["tokens_per_second"]
    variant = next(v for v in improvements() if v.name == "scattered reduction")
    assert variant.machine.partial_sum_bits == 32
    found = measure(published_model, variant.machine, 2048)
    assert found.tokens_per_second > 2.3 * base


def test_readings_are_told_apart(published_model: SystemModel) -> None:
    report = system_report(published_model, SystemMachine(), 2048, study=True)
    serial, overlapped, shared = report["readings"]
    assert fits(serial)
    assert not fits(overlapped)
    assert not fits(shared)
    assert report["statement"].startswith("Published figures are met by serial")
    assert "Not by overlapped" in statement(report["readings"])
    listed = {entry["name"]: entry for entry in report["assumptions"]}
    assert listed.keys() == {entry["name"] for entry in assumptions(SystemMachine())}
    assert "link_bytes_per_second" not in listed
    change = listed["partial_sum_bits"]["change_of_tokens_per_second_percent"]
    assert change["minus_20_percent"] > 1
    assert change["plus_20_percent"] < -1


def test_every_assumption_is_varied(published_model: SystemModel) -> None:
    found = sensitivity(published_model, SystemMachine(), 524288)
    assert set(found) == {entry["name"] for entry in assumptions(SystemMachine())}
    # Those that are no numbers: the machine that the other reading stands for is far slower here.
    assert found["hbm_shared"]["if_true"] < -50
    assert found["attention_lanes"]["if_8"] < -50
    assert set(found["arbitration"]) == {"if_shared"}
    assert found["hbm_bytes_per_second"]["minus_20_percent"] < -1
    assert found["kv_bits"]["plus_20_percent"] < -1


def test_bounds_scale_with_their_resource(published_model: SystemModel) -> None:
    fast, slow = (
        bounds(published_model, SystemMachine(link_bytes_per_second=rate), 2048)
        for rate in (128_000_000_000, 64_000_000_000)
    )
    for name in ("links of a column", "links of a row"):
        assert fast[name] == pytest.approx(2 * slow[name])
    assert fast["projection, unembedding"] == slow["projection, unembedding"]


def test_a_mixed_load(published_model: SystemModel) -> None:
    machine = SystemMachine()
    requests = mixed_requests(machine, 40, 20, 10, 5000.0, 3)
    found = serve(published_model, machine, requests)
    assert found["generated_tokens"] == requests.output.sum()
    assert found["prompt_tokens"] == requests.prompt.sum()
    assert 0 < found["median_seconds_to_first_token"] < found["seconds"]
    # At so low a load each user has what one token after the other gives.
    assert found["median_tokens_per_second_per_user"] < 1300
    again = serve(published_model, machine, mixed_requests(machine, 40, 20, 10, 5000.0, 3))
    assert again == found


@pytest.mark.parametrize("context", [0, -5, 524289])
def test_bad_contexts(published_model: SystemModel, context: int) -> None:
    with pytest.raises(InputError, match=f"--context: expected 1 to 524288, found {context}"):
        measure(published_model, SystemMachine(), context)


def test_bad_loads(published_model: SystemModel) -> None:
    machine = SystemMachine()
    with pytest.raises(InputError, match="sequences: expected 1 or more"):
        mixed_requests(machine, 0, 1, 1, None, 0)
    with pytest.raises(InputError, match="arrivals: expected more than 0"):
        mixed_requests(machine, 1, 1, 1, -1.0, 0)
    with pytest.raises(InputError, match="at most 131072 positions"):
        serve(published_model, machine, mixed_requests(machine, 50, 100_000, 100_000, None, 0))
    with pytest.raises(InputError, match="--steps: expected 4 or more"):
        measure(published_model, machine, 2048, steps=3)


@pytest.mark.slow
def test_full_size_emulation_is_quick(published_model: SystemModel) -> None:
    import time

    measure(published_model, SystemMachine(), 2048)
    begun = time.process_time()
    found = measure(published_model, SystemMachine(), 2048, steps=1000)
    assert time.process_time() - begun < 60
    assert found.tokens_per_second == pytest.approx(249_960, rel=0.015)
