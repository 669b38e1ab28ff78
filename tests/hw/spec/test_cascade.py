"""Orders and delays of the cascades of rows."""

from dataclasses import replace

import pytest

from hw.spec.cascade import SLOTS, RowCascade, cascade_cycles, row_cascade, row_kinds, slot_delays
from hw.spec.latency import matrix_element_cycles, matrix_latency
from hw.spec.machine import MachineSpec
from hw.spec.machine_file import load_machine


def _machine(logic_slots: int, logic_rows: int = 0) -> MachineSpec:
    return replace(
        load_machine("tiny"), matrix_element="dsp", logic_slots=logic_slots, logic_rows=logic_rows
    )


def _cascades(spec: MachineSpec) -> list[RowCascade]:
    return [row_cascade(spec, kind) for kind in row_kinds(spec)]


@pytest.mark.parametrize("logic_rows", [0, 2])
@pytest.mark.parametrize("logic_slots", range(5))
def test_every_slot_has_one_place(logic_slots: int, logic_rows: int) -> None:
    spec = _machine(logic_slots, logic_rows)
    for kind, cascade in zip(row_kinds(spec), _cascades(spec), strict=True):
        assert sorted(cascade.slices + cascade.logic) == list(range(SLOTS))
        assert len(cascade.logic) == kind
        # Weights of more than four bits are in even slots.
        assert all(slot % 2 for slot in cascade.logic)
        for place, slot in enumerate(cascade.slices):
            assert cascade.delays[slot] == cascade.first + place
        for place, slot in enumerate(cascade.logic):
            assert cascade.delays[slot] == cascade.delays[cascade.slices[place]]


@pytest.mark.parametrize("logic_rows", [0, 2])
@pytest.mark.parametrize("logic_slots", range(5))
def test_sums_of_all_rows_are_complete_in_the_same_cycle(logic_slots: int, logic_rows: int) -> None:
    spec = _machine(logic_slots, logic_rows)
    assert {max(cascade.delays) + 1 for cascade in _cascades(spec)} == {cascade_cycles(spec)}
    fewest = 0 if logic_rows else logic_slots
    assert cascade_cycles(spec) == SLOTS - fewest


def test_rows_of_two_kinds_share_delayed_activations_of_their_slices() -> None:
    without, lacking = _cascades(_machine(1, 2))
    assert all(without.delays[slot] == lacking.delays[slot] for slot in lacking.slices)


def test_latency_is_that_of_the_cascade_and_there_is_none_of_multipliers() -> None:
    tiny, spec = load_machine("tiny"), _machine(3)
    assert matrix_element_cycles(spec) == 5
    assert matrix_latency(spec) - matrix_latency(tiny) == 5
    assert slot_delays(tiny, 0) == (0,) * SLOTS
    assert max(slot_delays(spec, 3)) == 4
